/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "containerd-bootstrap.pb-c.h"
#include "shim/bootstrap.h"

static size_t pack_params(uint8_t *buffer, const char *id, const char *namespace, int level, const char *socket_dir)
{
    Containerd__BootstrapParams p = CONTAINERD__BOOTSTRAP_PARAMS__INIT;

    p.instance_id = (char *)id;
    p.namespace_ = (char *)namespace;
    p.log_level = level;
    p.containerd_ttrpc_address = (char *)"/run/c.sock.ttrpc";
    p.socket_dir = (char *)socket_dir;
    return containerd__bootstrap_params__pack(&p, buffer);
}

static void test_parameters(void **state)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    uint8_t data[256];
    size_t n = pack_params(data, "one", "ns", -4, "/run/other");

    assert_int_equal(bootstrap_parse(data, n, "one", "ns", &b, NULL), 0);
    assert_true(b.params);
    assert_true(b.debug);
    assert_string_equal(b.ttrpc_address, "/run/c.sock.ttrpc");
    assert_string_equal(b.socket_dir, "/run/other");
    assert_int_equal(bootstrap_choose(&b, 0), BOOTSTRAP_ANSWER_PROTOBUF);
}

static void test_log_level_of_info(void **state)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    uint8_t data[256];
    size_t n = pack_params(data, "one", "ns", 0, "");

    assert_int_equal(bootstrap_parse(data, n, "one", "ns", &b, NULL), 0);
    assert_true(b.params);
    assert_false(b.debug);
    assert_null(b.socket_dir);
}

static void test_older_containerd(void **state)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    Containerd__Any any = CONTAINERD__ANY__INIT;
    uint8_t data[256];
    size_t n;

    assert_int_equal(bootstrap_parse(NULL, 0, "one", "ns", &b, NULL), 0);
    assert_false(b.params);
    any.type_url = (char *)"runtimeoptions.v1.Options";
    any.value.data = (uint8_t *)"abc";
    any.value.len = 3;
    n = containerd__any__pack(&any, data);
    assert_int_equal(bootstrap_parse(data, n, "one", "ns", &b, NULL), 0);
    assert_false(b.params);
    assert_int_equal(bootstrap_choose(&b, 0), BOOTSTRAP_ANSWER_ADDRESS);
    assert_int_equal(bootstrap_choose(&b, 1), BOOTSTRAP_ANSWER_ADDRESS);
    assert_int_equal(bootstrap_choose(&b, 2), BOOTSTRAP_ANSWER_JSON);
}

/* An Any decodes as parameters too: both begin with two strings. Only the names tell them apart. */
static void test_names_decide(void **state)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    uint8_t data[256];
    size_t n = pack_params(data, "one", "ns", 0, "");

    assert_int_equal(bootstrap_parse(data, n, "two", "ns", &b, NULL), 0);
    assert_false(b.params);
    assert_int_equal(bootstrap_parse(data, n, "one", "other", &b, NULL), 0);
    assert_false(b.params);
}

static void test_bad_input(void **state)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    uint8_t data[256];
    size_t n = pack_params(data, "one", "ns", 0, "relative");

    assert_int_equal(bootstrap_parse(data, n, "one", "ns", &b, &e), -EINVAL);
    assert_non_null(strstr(e.message, "relative"));
    assert_int_equal(bootstrap_parse("\xff\xff\xff\xff\xff", 5, "one", "ns", &b, &e), -EINVAL);
    assert_int_equal(bootstrap_parse(data, BOOTSTRAP_INPUT_MAX + 1, "one", "ns", &b, &e), -EFBIG);
}

static void test_answers(void **state)
{
    _cleanup_free_ char *text = NULL, *json = NULL, *binary = NULL;
    Containerd__BootstrapResult *result;
    size_t n = 0;

    assert_int_equal(bootstrap_answer(BOOTSTRAP_ANSWER_ADDRESS, "unix:///s/a", &text, &n), 0);
    assert_int_equal(n, strlen("unix:///s/a"));
    assert_string_equal(text, "unix:///s/a");
    assert_int_equal(bootstrap_answer(BOOTSTRAP_ANSWER_JSON, "unix:///s/a", &json, &n), 0);
    assert_string_equal(json, "{\"version\":3,\"address\":\"unix:///s/a\",\"protocol\":\"ttrpc\"}");
    assert_int_equal(bootstrap_answer(BOOTSTRAP_ANSWER_PROTOBUF, "unix:///s/a", &binary, &n), 0);
    result = containerd__bootstrap_result__unpack(NULL, n, (uint8_t *)binary);
    assert_non_null(result);
    assert_int_equal(result->version, 3);
    assert_string_equal(result->address, "unix:///s/a");
    assert_string_equal(result->protocol, "ttrpc");
    containerd__bootstrap_result__free_unpacked(result, NULL);
}

static void test_versions(void **state)
{
    static const struct {
        const char *text;
        int result;
        unsigned major;
    } cases[] = {
        {"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n", 0, 1},
        {"containerd github.com/containerd/containerd/v2 v2.3.7 abcdef\n", 0, 2},
        {"containerd github.com/containerd/containerd/v2 2.1.4-rc.1 \n", 0, 2},
        {"containerd x v12345.1", -EINVAL, 0},
        {"containerd x v", -EINVAL, 0},
        {"containerd", -EINVAL, 0},
        {"", -EINVAL, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned major = 0;

        assert_int_equal(bootstrap_parse_version(cases[i].text, &major), cases[i].result);
        assert_int_equal(major, cases[i].major);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),   cmocka_unit_test(test_log_level_of_info),
        cmocka_unit_test(test_older_containerd), cmocka_unit_test(test_names_decide),
        cmocka_unit_test(test_bad_input),    cmocka_unit_test(test_answers),
        cmocka_unit_test(test_versions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
