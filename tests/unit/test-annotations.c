/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "config/annotations.h"
#include "config/sizing.h"

#define OURS "io.cloudhv.config.hypervisor."
#define KATA "io.katacontainers.config.hypervisor."

static int parse(const char *text, bool warn, Annotations **ret, Error *e)
{
    _cleanup_json_ json_t *json = json_loads(text, 0, NULL);

    assert_non_null(json);
    return annotations_parse(json, warn, ret, e);
}

static void test_values(void **state)
{
    _cleanup_annotations_ Annotations *a = NULL, *none = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(parse("{\"" KATA "default_memory\":\"512\",\"" OURS "default_memory\":\"256\",\"" KATA
                           "memory_limit\":\"1024\",\"" OURS "default_vcpus\":\"2\",\"" KATA
                           "default_max_vcpus\":\"4\",\"" OURS
                           "kernel_params\":\" mitigations=off a.b=c \",\"" KATA
                           "enable_virtio_mem\":\"true\",\"io.cloudhv.warm\":\"true\",\"other\":\"x\"}",
                           false, &a, &e),
                     0);
    assert_int_equal(a->default_memory_mb, 256);
    assert_int_equal(a->memory_limit_mb, 1024);
    assert_int_equal(a->default_vcpus, 2);
    assert_int_equal(a->default_max_vcpus, 4);
    assert_string_equal(a->kernel_params, "mitigations=off a.b=c ");
    assert_true(a->enable_virtio_mem && a->enable_virtio_mem_set && a->warm);
    assert_int_equal(a->n_warnings, 0);

    assert_int_equal(annotations_parse(NULL, false, &none, &e), 0);
    assert_int_equal(none->default_memory_mb, 0);
    assert_null(none->kernel_params);
    assert_false(none->warm);
}

/* Each is an error that names annotation and reason; with `warn` a warning, and no more. */
static void test_bad_values(void **state)
{
    static const char *const cases[][3] = {
        {OURS "default_memory", "lots", "\"lots\", but must be a whole number"},
        {OURS "default_memory", "", "whole number"},
        {OURS "default_memory", "-1", "whole number"},
        {OURS "default_memory", "+128", "whole number"},
        {OURS "default_memory", " 128", "whole number"},
        {OURS "default_memory", "0x80", "whole number"},
        {OURS "default_memory", "128MiB", "whole number"},
        {OURS "default_memory", "99999999999999999999999", "whole number"},
        {OURS "default_memory", "63", "between 64 and 1048576"},
        {KATA "memory_limit", "1048577", "between 64 and 1048576"},
        {OURS "default_vcpus", "0", "between 1 and 32"},
        {KATA "default_max_vcpus", "33", "between 1 and 32"},
        {OURS "enable_virtio_mem", "yes", "true or false"},
        {"io.cloudhv.warm", "1", "true or false"},
        {OURS "kernel_params", "a\nb", "printable"},
        {OURS "kernel_params", "a\tb", "printable"},
        {OURS "kernel_params", "a=\"b init=/x\"", "quotes"},
        {OURS "kernel_params", "\xc3\xa4", "printable"},
        {OURS "kernel_params", "init=/bin/sh", "init= is set by cloudhv"},
        {OURS "kernel_params", "quiet rdinit=/bin/sh", "rdinit="},
        {OURS "kernel_params", "x  root=/dev/vdb", "root="},
        {OURS "kernel_params", "rootfstype=ext4", "rootfstype="},
        {OURS "kernel_params", "console=ttyS1", "console="},
        {OURS "kernel_params", "panic=0", "panic="},
        {OURS "kernel_params", "rw", "rw"},
        {OURS "kernel_params", "a -- b", "-- is set by cloudhv"},
        {OURS "kernel_params", "tsc-early-khz=1", "tsc_early_khz="},
        {OURS "kernel_params", "net.ifnames=1", "net.ifnames="},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_annotations_ Annotations *a = NULL, *b = NULL;
        _cleanup_json_ json_t *json = json_object();
        _cleanup_error_ Error e = ERROR_INIT;

        assert_int_equal(json_object_set_new(json, cases[i][0], json_string(cases[i][1])), 0);
        if (annotations_parse(json, false, &a, &e) != -EINVAL)
            fail_msg("%s: \"%s\" was accepted", cases[i][0], cases[i][1]);
        assert_null(a);
        if (!strstr(error_message(&e), cases[i][0]) || !strstr(error_message(&e), cases[i][2]))
            fail_msg("%s: \"%s\": %s", cases[i][0], cases[i][1], error_message(&e));
        assert_int_equal(annotations_parse(json, true, &b, &e), 0);
        assert_int_equal(b->n_warnings, 1);
        assert_non_null(strstr(b->warnings[0], cases[i][2]));
        assert_true(!b->default_memory_mb && !b->memory_limit_mb && !b->default_vcpus &&
                    !b->default_max_vcpus && !b->kernel_params && !b->enable_virtio_mem_set && !b->warm);
    }
}

static void test_allowed_kernel_params(void **state)
{
    static const char *const allowed[] = {"initcall_debug", "rootless=1", "rwx", "systemd.unit=x",
                                          "transparent_hugepage=never"};

    for (size_t i = 0; i < ELEMENTSOF(allowed); i++) {
        _cleanup_annotations_ Annotations *a = NULL;
        _cleanup_json_ json_t *json = json_pack("{s:s}", OURS "kernel_params", allowed[i]);
        _cleanup_error_ Error e = ERROR_INIT;

        if (annotations_parse(json, false, &a, &e) < 0)
            fail_msg("%s", error_message(&e));
        assert_string_equal(a->kernel_params, allowed[i]);
    }
}

static void test_long_kernel_params(void **state)
{
    _cleanup_annotations_ Annotations *a = NULL;
    _cleanup_json_ json_t *json = json_object();
    _cleanup_error_ Error e = ERROR_INIT;
    char text[1026];

    memset(text, 'a', sizeof(text));
    text[1025] = 0;
    assert_int_equal(json_object_set_new(json, OURS "kernel_params", json_string(text)), 0);
    assert_int_equal(annotations_parse(json, false, &a, &e), -EINVAL);
    assert_non_null(strstr(error_message(&e), "more than 1024"));
}

static void test_limits(void **state)
{
    _cleanup_json_ json_t *annotations =
        json_pack("{s:s, s:s, s:s, s:s}", "io.kubernetes.cri.sandbox-cpu-quota", "150000",
                  "io.kubernetes.cri.sandbox-cpu-period", "100000", "io.kubernetes.cri.sandbox-cpu-shares",
                  "0", "io.kubernetes.cri.sandbox-memory", "268435456");
    _cleanup_json_ json_t *resources =
        json_pack("{s:{s:I, s:I}, s:{s:I}}", "cpu", "quota", (json_int_t)-1, "period", (json_int_t)100000,
                  "memory", "limit", (json_int_t)1048576);
    _cleanup_json_ json_t *bad = json_pack("{s:s}", "io.kubernetes.cri.sandbox-memory", "much");
    _cleanup_error_ Error e = ERROR_INIT;
    PodLimits limits;

    assert_int_equal(pod_limits_read(annotations, resources, &limits, &e), 0);
    assert_int_equal(limits.cpu_quota, 150000);
    assert_int_equal(limits.cpu_period, 100000);
    assert_int_equal(limits.memory, 268435456);
    assert_int_equal(pod_limits_read(NULL, resources, &limits, &e), 0);
    assert_int_equal(limits.cpu_quota, 0);
    assert_int_equal(limits.memory, 1048576);
    assert_int_equal(pod_limits_read(NULL, NULL, &limits, &e), 0);
    assert_int_equal(limits.memory, 0);
    assert_int_equal(pod_limits_read(bad, NULL, &limits, &e), -EINVAL);
    assert_non_null(strstr(error_message(&e), "io.kubernetes.cri.sandbox-memory"));
}

static char acpi[] = "acpi", virtio_mem[] = "virtio-mem";
#define CONFIG                                                                                               \
    {                                                                                                        \
        .default_vcpus = 1, .default_memory_mb = 128, .hotplug_method = acpi                                 \
    }

static Sizing size(const VmmConfig *config, const Annotations *a, PodLimits limits, unsigned host_cpus)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sizing s;

    if (sizing_compute(config, a, &limits, host_cpus, &s, &e) < 0)
        fail_msg("%s", error_message(&e));
    return s;
}

static void test_vcpus(void **state)
{
    VmmConfig config = CONFIG;
    Annotations a = {};

    /* The pod's limit, rounded up; without one all CPUs of the host, as many as a guest can have. */
    assert_int_equal(size(&config, NULL, (PodLimits){.cpu_quota = 100000, .cpu_period = 100000}, 8).vcpus, 1);
    assert_int_equal(size(&config, NULL, (PodLimits){.cpu_quota = 100001, .cpu_period = 100000}, 8).vcpus, 2);
    assert_int_equal(size(&config, NULL, (PodLimits){.cpu_quota = 1000, .cpu_period = 100000}, 8).vcpus, 1);
    assert_int_equal(size(&config, NULL, (PodLimits){.cpu_quota = 9900000, .cpu_period = 100000}, 8).vcpus,
                     32);
    assert_int_equal(size(&config, NULL, (PodLimits){}, 6).vcpus, 6);
    assert_int_equal(size(&config, NULL, (PodLimits){}, 128).vcpus, 32);
    config.max_default_vcpus = 3;
    assert_int_equal(size(&config, NULL, (PodLimits){}, 6).vcpus, 3);
    config.default_vcpus = 2;
    assert_int_equal(size(&config, NULL, (PodLimits){.cpu_quota = 1000, .cpu_period = 100000}, 8).vcpus, 2);
    a.default_vcpus = 1;
    assert_int_equal(size(&config, &a, (PodLimits){}, 6).vcpus, 1);
    assert_int_equal(size(&config, &a, (PodLimits){}, 6).max_vcpus, 1);
    a.default_max_vcpus = 4;
    assert_int_equal(size(&config, &a, (PodLimits){}, 6).vcpus, 1);
    assert_int_equal(size(&config, &a, (PodLimits){}, 6).max_vcpus, 4);
    a.default_vcpus = 0;
    assert_int_equal(size(&config, &a, (PodLimits){.cpu_quota = 600000, .cpu_period = 100000}, 6).vcpus, 4);
    assert_int_equal(size(&config, &a, (PodLimits){.cpu_quota = 250000, .cpu_period = 100000}, 6).vcpus, 3);
    a.default_vcpus = 5;
    {
        PodLimits limits = {};
        _cleanup_error_ Error e = ERROR_INIT;
        Sizing s;

        assert_int_equal(sizing_compute(&config, &a, &limits, 6, &s, &e), -ERANGE);
        assert_non_null(strstr(error_message(&e), "default_max_vcpus"));
    }
    assert_true(sizing_host_cpus() >= 1);
}

static void test_memory(void **state)
{
    VmmConfig config = CONFIG;
    Annotations a = {};
    Sizing s;

    assert_int_equal(size(&config, NULL, (PodLimits){}, 1).memory_mb, 128);
    assert_int_equal(size(&config, NULL, (PodLimits){.memory = (256 << 20) + 1}, 1).memory_mb, 128 + 257);
    assert_int_equal(size(&config, NULL, (PodLimits){.memory = UINT64_MAX}, 1).memory_mb, 1 << 20);
    config.hotplug_memory_mb = 512;
    s = size(&config, NULL, (PodLimits){}, 1);
    assert_int_equal(s.memory_limit_mb, 640);
    assert_string_equal(s.kernel_params, "");
    assert_false(s.enable_virtio_mem);
    a.default_memory_mb = 256;
    a.memory_limit_mb = 300;
    s = size(&config, &a, (PodLimits){.memory = 256 << 20}, 1);
    assert_int_equal(s.memory_mb, 300);
    assert_int_equal(s.memory_limit_mb, 300);
    config.hotplug_method = virtio_mem;
    assert_true(size(&config, &a, (PodLimits){}, 1).enable_virtio_mem);
    a.enable_virtio_mem_set = true;
    assert_false(size(&config, &a, (PodLimits){}, 1).enable_virtio_mem);
    a.memory_limit_mb = 200;
    {
        PodLimits limits = {};
        _cleanup_error_ Error e = ERROR_INIT;

        assert_int_equal(sizing_compute(&config, &a, &limits, 1, &s, &e), -ERANGE);
        assert_non_null(strstr(error_message(&e), "memory_limit"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_allowed_kernel_params),
        cmocka_unit_test(test_long_kernel_params),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_vcpus),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
