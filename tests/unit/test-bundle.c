/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "oci/bigint.h"
#include "oci/bundle.h"

static void refused(const char *text, const char *message)
{
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_true(bundle_parse(text, strlen(text), "x.json", &bundle, &e) < 0);
    assert_null(bundle);
    if (!strstr(error_message(&e), message))
        fail_msg("%s: \"%s\" has no \"%s\"", text, error_message(&e), message);
}

static void test_bad_input(void **state)
{
    refused("", "x.json: not valid JSON");
    refused("{\"linux\":{}", "x.json: not valid JSON");
    refused("[]", "must be a JSON object");
    refused("{}", "\"linux\" is missing");
    refused("{\"linux\":{},\"linux\":{}}", "not valid JSON");
    refused("{\"linux\":[]}", "\"linux\" must be an object");
    refused("{\"linux\":{},\"hostname\":1}", "\"hostname\" must be a string");
    refused("{\"linux\":{},\"process\":{\"terminal\":\"yes\"}}", "\"terminal\" must be true or false");
    refused("{\"linux\":{},\"annotations\":{\"a\":1}}", "annotation \"a\" must be a string");
    refused("{\"linux\":{},\"annotations\":{\"io.kubernetes.cri.container-type\":\"pod\"}}", "\"pod\"");
    refused("{\"linux\":{},\"annotations\":{\"io.kubernetes.cri.container-type\":\"sandbox\"}}",
            "sandbox-id is missing");
    refused("{\"linux\":{},\"annotations\":{\"io.kubernetes.cri.container-type\":\"container\","
            "\"io.kubernetes.cri.sandbox-id\":\"../x\"}}",
            "\"../x\" is not valid");
    refused("{\"linux\":{\"namespaces\":[{\"type\":\"network\",\"path\":\"ns\"}]}}", "not absolute");
}

static void test_fields(void **state)
{
    static const char text[] =
        "{\"hostname\":\"h\",\"domainname\":\"d\",\"root\":{\"readonly\":true},\"process\":{\"terminal\":"
        "true},"
        "\"annotations\":{\"io.kubernetes.cri.container-type\":\"container\","
        "\"io.kubernetes.cri.sandbox-id\":\"sb\",\"k\":\"v\"},"
        "\"linux\":{\"cgroupsPath\":\"/x\",\"resources\":{},\"namespaces\":[{\"type\":\"network\","
        "\"path\":\"/run/netns/x\"}]}}";
    _cleanup_bundle_ Bundle *b = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(bundle_parse(text, strlen(text), "x", &b, &e), 0);
    assert_int_equal(b->kind, BUNDLE_CONTAINER);
    assert_string_equal(b->sandbox_id, "sb");
    assert_string_equal(b->hostname, "h");
    assert_string_equal(b->domainname, "d");
    assert_string_equal(b->cgroups_path, "/x");
    assert_string_equal(b->netns_path, "/run/netns/x");
    assert_true(b->own_netns && b->terminal && b->root_readonly);
    assert_non_null(b->resources);
    assert_string_equal(bundle_annotation(b, "k"), "v");
    assert_null(bundle_annotation(b, "l"));
}

static void test_load(void **state)
{
    char directory[] = "/tmp/test-bundle.XXXXXX";
    _cleanup_free_ char *path = NULL, *large = calloc(1, BUNDLE_CONFIG_MAX + 1);
    _cleanup_bundle_ Bundle *b = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_non_null(mkdtemp(directory));
    path = fs_join(directory, "config.json");
    assert_int_equal(bundle_load(directory, &b, &e), -ENOENT);
    assert_non_null(strstr(error_message(&e), path));
    memset(large, ' ', BUNDLE_CONFIG_MAX + 1);
    assert_int_equal(fs_write_file_atomic(path, large, BUNDLE_CONFIG_MAX + 1, 0600), 0);
    assert_int_equal(bundle_load(directory, &b, &e), -EFBIG);
    assert_int_equal(fs_write_file_atomic(path, "{\"linux\":{}}", 12, 0600), 0);
    assert_int_equal(bundle_load(directory, &b, &e), 0);
    assert_int_equal(b->kind, BUNDLE_PLAIN);
    assert_false(b->own_netns);
    assert_int_equal(fs_remove_tree(directory), 0);
}

/* Unsigned 64-bit integers, and strings that look like them. */
static void test_large_numbers(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"[1,9223372036854775807]", "[1,9223372036854775807]"},
        {"[9223372036854775808]", "[9223372036854775808e0]"},
        {"{\"9223372036854775808\":18446744073709551615}",
         "{\"9223372036854775808\":18446744073709551615e0}"},
        {"[\"a\\\"9223372036854775808\"]", "[\"a\\\"9223372036854775808\"]"},
        {"[-9223372036854775809,1.9223372036854775808]", "[-9223372036854775809,1.9223372036854775808]"},
        {"\"open 9223372036854775808", "\"open 9223372036854775808"},
        {"\"\\", "\"\\"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_free_ char *out = NULL;
        size_t n;

        assert_int_equal(bigint_widen(cases[i].in, strlen(cases[i].in), &out, &n), 0);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(n, strlen(out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_large_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
