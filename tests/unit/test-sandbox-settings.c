/* SPDX-License-Identifier: MIT */

/* How VMs are run here: which VMM, with KVM or without, or why not at all. */

#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "config/field.h"
#include "sandbox/sandbox.h"

static ShimConfig config;

static int setup(void **state)
{
    config = (ShimConfig){0};
    return config_set_defaults(config_shim_fields, &config);
}

static int teardown(void **state)
{
    config_release(config_shim_fields, &config);
    return 0;
}

static void set(char **string, const char *value)
{
    free(*string);
    *string = strdup(value);
}

static void init(SandboxSettings *s)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (sandbox_settings_init(s, &config.vmm, "/state", &e) < 0)
        fail_msg("%s", error_message(&e));
}

static void test_values(void **state)
{
    _cleanup_sandbox_settings_ SandboxSettings s = {0};

    set(&config.vmm.vmm, "qemu");
    set(&config.vmm.qemu_binary, "/opt/qemu");
    config.vmm.boot_timeout_secs = 7;
    config.vmm.operation_timeout_secs = 3;
    config.vmm.vmm_uid_base = 5000;
    config.vmm.vmm_uid_count = 10;
    init(&s);
    assert_string_equal(s.state_dir, "/state");
    assert_string_equal(s.vmm_binary, "/opt/qemu");
    assert_string_equal(vmm_driver_name(s.driver), "qemu");
    assert_int_equal(s.boot_timeout_usec, 7 * USEC_PER_SEC);
    assert_int_equal(s.operation_timeout_usec, 3 * USEC_PER_SEC);
    assert_int_equal(s.uid_base, 5000);
    assert_int_equal(s.uid_count, 10);
}

/* With KVM there is nothing to allow; without, emulation must have been, and only QEMU can. */
static void test_emulation(void **state)
{
    _cleanup_sandbox_settings_ SandboxSettings allowed = {0}, refused = {0};

    set(&config.vmm.vmm, "qemu");
    config.vmm.allow_emulation = true;
    init(&allowed);
    config.vmm.allow_emulation = false;
    init(&refused);
    assert_null(allowed.no_vmm_reason);
    assert_false(refused.emulate);
    if (!allowed.emulate) {
        assert_null(allowed.no_kvm_reason);
        assert_null(refused.no_vmm_reason);
        return;
    }
    assert_non_null(allowed.no_kvm_reason);
    assert_non_null(strstr(refused.no_vmm_reason, refused.no_kvm_reason));
    assert_non_null(strstr(refused.no_vmm_reason, "emulation is not allowed (\"allow_emulation\""));
}

static void test_unknown_driver(void **state)
{
    _cleanup_sandbox_settings_ SandboxSettings s = {0};

    set(&config.vmm.vmm, "other");
    init(&s);
    assert_null(s.driver);
    assert_string_equal(s.no_vmm_reason,
                        "no VM can be run: there is no driver for the VMM \"other\" here; without the daemon, there is "
                        "QEMU's only");
}

static void test_auto(void **state)
{
    _cleanup_sandbox_settings_ SandboxSettings absent = {0}, present = {0}, emulated = {0};

    set(&config.vmm.vmm, "auto");
    set(&config.vmm.cloud_hypervisor_binary, "/nowhere/cloud-hypervisor");
    init(&absent);
    assert_string_equal(vmm_driver_name(absent.driver), "qemu");
    assert_string_equal(absent.vmm_binary, config.vmm.qemu_binary);
    set(&config.vmm.cloud_hypervisor_binary, "/bin/sh");
    init(&present);
    assert_string_equal(vmm_driver_name(present.driver), "cloud-hypervisor");
    assert_string_equal(present.vmm_binary, "/bin/sh");
    /* Installed or not, it can't emulate; QEMU can. */
    config.vmm.allow_emulation = true;
    init(&emulated);
    assert_null(emulated.no_vmm_reason);
    assert_string_equal(vmm_driver_name(emulated.driver), emulated.emulate ? "qemu" : "cloud-hypervisor");
    assert_string_equal(emulated.vmm_binary, emulated.emulate ? config.vmm.qemu_binary : "/bin/sh");
}

static void test_cloud_hypervisor_without_kvm(void **state)
{
    _cleanup_sandbox_settings_ SandboxSettings s = {0};

    set(&config.vmm.vmm, "cloud-hypervisor");
    set(&config.vmm.cloud_hypervisor_binary, "/bin/sh");
    config.vmm.allow_emulation = true;
    init(&s);
    assert_string_equal(vmm_driver_name(s.driver), "cloud-hypervisor");
    assert_false(s.emulate);
    if (s.no_kvm_reason)
        assert_non_null(strstr(s.no_vmm_reason, "and this VMM cannot emulate"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_emulation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_driver, setup, teardown),
        cmocka_unit_test_setup_teardown(test_auto, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cloud_hypervisor_without_kvm, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
