/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "agent/spec.h"
#include "base/json.h"

static const SpecPlaces places = {.root_path = "/r", .cgroups_path = "/c"};

static json_t *place(const char *text, const SpecPlaces *p)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *out = NULL;
    json_t *spec;

    assert_int_equal(spec_place(text, strlen(text), p, &out, &e), 0);
    assert_int_equal(json_parse(out, strlen(out), "result", &spec, &e), 0);
    return spec;
}

static const char *string_at(json_t *spec, const char *object, const char *key)
{
    return json_string_value(json_object_get(json_object_get(spec, object), key));
}

static void test_places(void **state)
{
    _cleanup_json_ json_t *spec = place("{\"process\":{\"args\":[\"x\"]},\"root\":{\"path\":\"/old\",\"readonly\":true},"
                                        "\"linux\":{\"cgroupsPath\":\"/old\",\"seccomp\":{}}}",
                                        &places);

    assert_string_equal(string_at(spec, "root", "path"), "/r");
    assert_true(json_is_true(json_object_get(json_object_get(spec, "root"), "readonly")));
    assert_string_equal(string_at(spec, "linux", "cgroupsPath"), "/c");
    assert_non_null(json_object_get(json_object_get(spec, "linux"), "seccomp"));
    assert_non_null(json_object_get(json_object_get(spec, "process"), "args"));
}

static void test_missing_objects_are_made(void **state)
{
    _cleanup_json_ json_t *spec = place("{\"process\":{}}", &places);

    assert_string_equal(string_at(spec, "root", "path"), "/r");
    assert_string_equal(string_at(spec, "linux", "cgroupsPath"), "/c");
    assert_null(json_object_get(json_object_get(spec, "linux"), "namespaces"));
}

static void test_pid_namespace(void **state)
{
    const SpecPlaces joined = {.root_path = "/r", .cgroups_path = "/c", .pid_namespace = "/proc/7/ns/pid"};
    static const char *const texts[] = {
        "{\"process\":{},\"linux\":{\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}]}}",
        "{\"process\":{},\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]}}",
        "{\"process\":{}}",
    };

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        _cleanup_json_ json_t *spec = place(texts[i], &joined);
        json_t *list = json_object_get(json_object_get(spec, "linux"), "namespaces");
        json_t *last = json_array_get(list, json_array_size(list) - 1);

        assert_int_equal(json_array_size(list), i == 2 ? 1 : 2);
        assert_string_equal(json_string_value(json_object_get(last, "type")), "pid");
        assert_string_equal(json_string_value(json_object_get(last, "path")), "/proc/7/ns/pid");
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text;
        int number;
    } cases[] = {
        {"", -EINVAL},
        {"[]", -EINVAL},
        {"{", -EINVAL},
        {"{}", -EINVAL},
        {"{\"process\":1}", -EINVAL},
        {"{\"process\":{},\"root\":\"/\"}", -EINVAL},
        {"{\"process\":{},\"linux\":[]}", -EINVAL},
        {"{\"process\":{\"terminal\":true}}", -EOPNOTSUPP},
        {"{\"process\":{\"terminal\":1}}", -EINVAL},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_error_ Error e = ERROR_INIT;
        char *out = (char *)"untouched";

        assert_int_equal(spec_place(cases[i].text, strlen(cases[i].text), &places, &out, &e), cases[i].number);
        assert_string_equal(out, "untouched");
        assert_non_null(e.message);
    }
}

static void test_too_large(void **state)
{
    _cleanup_free_ char *text = calloc(1, AGENT_SPEC_MAX + 1);
    char *out;

    assert_non_null(text);
    memset(text, ' ', AGENT_SPEC_MAX + 1);
    assert_int_equal(spec_place(text, AGENT_SPEC_MAX + 1, &places, &out, NULL), -EINVAL);
}

static int check_process(const char *text)
{
    return spec_check_process(text, strlen(text), NULL);
}

static void test_process(void **state)
{
    assert_int_equal(check_process("{\"args\":[\"x\"]}"), 0);
    assert_int_equal(check_process("{\"args\":[\"x\"],\"terminal\":false}"), 0);
    assert_int_equal(check_process("{\"args\":[\"x\"],\"terminal\":true}"), -EOPNOTSUPP);
    assert_int_equal(check_process("[]"), -EINVAL);
    assert_int_equal(check_process(""), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),          cmocka_unit_test(test_missing_objects_are_made),
        cmocka_unit_test(test_pid_namespace),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_large),       cmocka_unit_test(test_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
