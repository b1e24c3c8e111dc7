/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "oci/ids.h"

static void test_valid(void **state)
{
    static const char *const ids[] = {"a",
                                      "A9",
                                      "k8s.io",
                                      "a-b_c.d",
                                      "0",
                                      "default",
                                      "5a9db0c1e2f35a9db0c1e2f35a9db0c1e2f35a9db0c1e2f35a9db0c1e2f3a0b1"};
    char longest[ID_MAX + 2];

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        if (!id_is_valid(ids[i]))
            fail_msg("\"%s\" was refused", ids[i]);
    memset(longest, 'x', sizeof(longest));
    longest[ID_MAX] = 0;
    assert_true(id_is_valid(longest));
    longest[ID_MAX] = 'x';
    longest[ID_MAX + 1] = 0;
    assert_false(id_is_valid(longest));
}

static void test_invalid(void **state)
{
    static const char *const ids[] = {"",     ".",   "..",  "-a", "a-", "a..b", "a.-b",  "a/b",
                                      "../x", "a b", "a\n", "ä",  "a_", "_",    "a\177b"};

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        if (id_is_valid(ids[i]))
            fail_msg("\"%s\" was accepted", ids[i]);
    assert_false(id_is_valid(NULL));
}

static void test_message(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(id_check("a", "container id", &e), 0);
    assert_int_equal(id_check("a/b", "container id", &e), -EINVAL);
    assert_non_null(strstr(error_message(&e), "container id \"a/b\" is not valid"));
    assert_int_equal(id_check(NULL, "container id", NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
