/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"

static json_t *parse(const char *text)
{
    json_t *j = NULL;

    assert_int_equal(json_parse(text, strlen(text), "test", &j, NULL), 0);
    return j;
}

static void test_parse_errors(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    json_t *j = NULL;

    assert_int_equal(json_parse("{\"a\": 1, \"a\": 2}", 16, "file", &j, &e), -EINVAL);
    assert_non_null(strstr(e.message, "file: not valid JSON"));
    assert_int_equal(json_parse("{", 1, "file", &j, &e), -EINVAL);
    /* A NUL would cut the string short where C reads it. */
    assert_int_equal(json_parse("\"a\\u0000b\"", 10, "file", &j, &e), -EINVAL);
    assert_null(j);
}

static void test_members(void **state)
{
    _cleanup_json_ json_t *j = parse("{\"s\": \"x\", \"n\": 5, \"m\": -1, \"b\": true, \"z\": null}");
    _cleanup_error_ Error e = ERROR_INIT;
    const char *s = "untouched";
    uint64_t n = 99;
    bool b = false;

    assert_int_equal(json_get_string(j, "s", "f", &s, &e), 1);
    assert_string_equal(s, "x");
    assert_int_equal(json_get_string(j, "z", "f", &s, &e), 0);
    assert_int_equal(json_get_string(j, "none", "f", &s, &e), 0);
    assert_int_equal(json_get_string(j, "n", "f", &s, &e), -EINVAL);
    assert_string_equal(e.message, "f: \"n\" must be a string, not an integer");
    assert_int_equal(json_get_uint(j, "n", "f", 1, 5, &n, &e), 1);
    assert_int_equal(n, 5);
    assert_int_equal(json_get_uint(j, "n", "f", 1, 4, &n, &e), -ERANGE);
    assert_int_equal(json_get_uint(j, "m", "f", 0, 4, &n, &e), -ERANGE);
    assert_string_equal(e.message, "f: \"m\" is -1, but must be between 0 and 4");
    assert_int_equal(n, 5);
    assert_int_equal(json_get_bool(j, "b", "f", &b, &e), 1);
    assert_true(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_errors),
        cmocka_unit_test(test_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
