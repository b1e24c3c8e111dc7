/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "shim/options.h"

static int parse(ShimOptions *o, Error *e, const char *const *argv)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    return shim_options_parse(argc, (char **)argv, o, e);
}

#define ARGS(...) ((const char *const[]){"shim", __VA_ARGS__, NULL})

static void test_containerds_line(void **state)
{
    ShimOptions o;

    assert_int_equal(parse(&o, NULL, ARGS("-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary",
                                          "/usr/bin/containerd", "-id", "abc", "-bundle", "/b", "-debug", "start")),
                     0);
    assert_string_equal(o.namespace, "k8s.io");
    assert_string_equal(o.address, "/run/c.sock");
    assert_string_equal(o.publish_binary, "/usr/bin/containerd");
    assert_string_equal(o.id, "abc");
    assert_string_equal(o.bundle, "/b");
    assert_string_equal(o.action, "start");
    assert_true(o.debug);
    assert_false(o.version);
}

static void test_other_ways_to_write_flags(void **state)
{
    ShimOptions o;

    assert_int_equal(parse(&o, NULL, ARGS("--namespace=ns", "-id=x.y-z", "-debug=false", "delete")), 0);
    assert_string_equal(o.namespace, "ns");
    assert_string_equal(o.id, "x.y-z");
    assert_false(o.debug);
    assert_null(o.bundle);
    assert_int_equal(parse(&o, NULL, ARGS("-v")), 0);
    assert_true(o.version);
    assert_int_equal(parse(&o, NULL, ARGS("-info")), 0);
    assert_true(o.info);
}

static void refused(const char *message, const char *const *argv)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ShimOptions o = {.id = "untouched"};

    assert_int_equal(parse(&o, &e, argv), -EINVAL);
    assert_non_null(strstr(e.message, message));
    assert_string_equal(o.id, "untouched");
}

static void test_refused(void **state)
{
    char long_id[78];

    memset(long_id, 'a', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = 0;
    refused("an action is needed", (const char *const[]){"shim", NULL});
    refused("unknown action \"run\"", ARGS("-namespace", "n", "-id", "i", "run"));
    refused("unknown flag -what", ARGS("-what", "start"));
    refused("-id needs a value", ARGS("-namespace", "n", "-id"));
    refused("-debug is a switch", ARGS("-debug=7", "start"));
    refused("unexpected argument", ARGS("-namespace", "n", "-id", "i", "start", "delete"));
    refused("-id", ARGS("-namespace", "n", "start"));
    refused("../i", ARGS("-namespace", "n", "-id", "../i", "start"));
    refused("-namespace", ARGS("-namespace", "a/b", "-id", "i", "start"));
    refused("-id", ARGS("-namespace", "n", "-id", long_id, "start"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_containerds_line),
        cmocka_unit_test(test_other_ways_to_write_flags),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
