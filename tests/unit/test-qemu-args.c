/* SPDX-License-Identifier: MIT */

/* Command lines are compared with files in golden/, an argument a line. CLOUDHV_UPDATE_GOLDEN=1 rewrites
 * them. */

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "vmm/qemu-args.h"

static const VmmNic nics[] = {{.tap_fd = 30, .mac = {2, 0, 0, 0, 0, 7}},
                              {.tap_fd = 31, .mac = {2, 0, 0, 0, 0xab, 8}}};
static const int nic_fds[] = {30, 31};

static VmmSpec spec_new(void)
{
    return (VmmSpec){
        .name = "pod,a=b",
        .binary = "/usr/bin/qemu-system-x86_64",
        .kernel_args = "console=ttyS0 quiet",
        .vcpus = 1,
        .max_vcpus = 1,
        .memory = 128 << 20,
        .emulate = true,
    };
}

static QemuSetup setup_new(const VmmSpec *spec)
{
    return (QemuSetup){
        .spec = spec,
        .kernel = "/vmlinux",
        .qmp_fd = 10,
        .console_fd = 11,
        .control_fd = 12,
        .task_fd = 13,
        .rootfs_fd = 14,
        .state_fd = 15,
        .nic_fds = nic_fds,
        .tsc_khz = 2600000,
    };
}

static void compare(const QemuSetup *setup, const char *name)
{
    _cleanup_(qemu_args_freep) char **args = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *text = NULL, *golden = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    char path[512];

    snprintf(path, sizeof(path), "%s/qemu-args-%s", GOLDEN_DIR, name);
    if (qemu_args_build(setup, &args, &e) < 0)
        fail_msg("%s", error_message(&e));
    for (char **p = args; *p; p++)
        fprintf(f, "%s\n", *p);
    fclose(f);
    if (getenv("CLOUDHV_UPDATE_GOLDEN"))
        assert_int_equal(fs_write_file_atomic(path, text, n, 0644), 0);
    assert_int_equal(fs_read_file(path, 65536, &golden, NULL), 0);
    assert_string_equal(text, golden);
}

static void test_emulated(void **state)
{
    VmmSpec spec = spec_new();
    QemuSetup setup = setup_new(&spec);

    compare(&setup, "emulated");
}

static void test_kvm_with_everything(void **state)
{
    VmmSpec spec = spec_new();
    QemuSetup setup = setup_new(&spec);

    spec.emulate = false;
    spec.vcpus = spec.max_vcpus = 4;
    spec.nics = nics;
    spec.n_nics = 2;
    setup.n_slots = 32;
    setup.rootfs_is_device = true;
    compare(&setup, "kvm");
}

static void test_template_and_clone(void **state)
{
    VmmSpec spec = spec_new();
    QemuSetup setup = setup_new(&spec);

    spec.emulate = false;
    setup.memory = QEMU_MEMORY_FILE;
    setup.memory_path = "/template/ram";
    compare(&setup, "template");
    setup.memory = QEMU_MEMORY_PRIVATE;
    setup.incoming = true;
    compare(&setup, "clone");
}

static void expect_refused(const QemuSetup *setup, int number, const char *word)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char **args = NULL;

    assert_int_equal(qemu_args_build(setup, &args, &e), number);
    assert_null(args);
    assert_non_null(strstr(error_message(&e), word));
}

static void test_refused(void **state)
{
    VmmSpec spec = spec_new();
    QemuSetup setup = setup_new(&spec);

    spec.vcpus = 0;
    expect_refused(&setup, -EINVAL, "vCPUs");
    spec.vcpus = 2;
    expect_refused(&setup, -EINVAL, "vCPUs");
    spec.max_vcpus = 1000;
    expect_refused(&setup, -EINVAL, "vCPUs");
    spec = spec_new();
    spec.memory += 4096;
    expect_refused(&setup, -EINVAL, "memory");
    spec.memory = 0;
    expect_refused(&setup, -EINVAL, "memory");
    spec = spec_new();
    spec.n_nics = QEMU_NICS_MAX + 1;
    expect_refused(&setup, -E2BIG, "network interfaces");
    spec = spec_new();
    setup.n_slots = QEMU_SLOTS_MAX + 1;
    expect_refused(&setup, -E2BIG, "slots");
    setup.n_slots = QEMU_SLOTS_MAX;
    spec.kernel_args = "\xff not UTF-8 is no business of ours";
    compare(&setup, "most-slots");
}

/* The same on arm64's machine; on a host of either architecture. */
static void test_virt(void **state)
{
    VmmSpec spec = spec_new();
    QemuSetup setup = setup_new(&spec);

    spec.binary = "/usr/bin/qemu-system-aarch64";
    spec.kernel_args = "console=ttyAMA0 quiet";
    setup.machine = QEMU_VIRT;
    setup.tsc_khz = 0;
    setup.n_slots = 10;
    spec.nics = nics;
    spec.n_nics = 1;
    compare(&setup, "virt-emulated");
    spec.emulate = false;
    compare(&setup, "virt-kvm");
}

static void test_machine_of_program(void **state)
{
    assert_int_equal(qemu_machine_of("/usr/bin/qemu-system-aarch64"), QEMU_VIRT);
    assert_int_equal(qemu_machine_of("qemu-system-x86_64"), QEMU_Q35);
    assert_int_equal(qemu_machine_of("/usr/libexec/qemu-kvm"), QEMU_MACHINE_OF_HOST);
    assert_int_equal(qemu_machine_of("64"), QEMU_MACHINE_OF_HOST);
    assert_int_equal(qemu_machine_of(""), QEMU_MACHINE_OF_HOST);
}

static void expect_places_differ(QemuMachine machine)
{
    char bus[8], address[8], last[16] = "";

    for (unsigned i = 0; i < QEMU_SLOTS_MAX; i++) {
        char place[17];

        qemu_slot_place(machine, i, bus, address);
        snprintf(place, sizeof(place), "%s %s", bus, address);
        assert_string_not_equal(place, last);
        memcpy(last, place, sizeof(last));
    }
}

static void test_places(void **state)
{
    char bus[8], address[8];

    qemu_slot_place(QEMU_Q35, 0, bus, address);
    assert_string_equal(bus, "hp0");
    assert_string_equal(address, "1");
    qemu_slot_place(QEMU_Q35, QEMU_SLOTS_MAX - 1, bus, address);
    assert_string_equal(bus, "hp3");
    assert_string_equal(address, "1f");
    qemu_slot_place(QEMU_VIRT, QEMU_SLOTS_MAX - 1, bus, address);
    assert_string_equal(bus, "rp123");
    assert_string_equal(address, "0");
    expect_places_differ(QEMU_Q35);
    expect_places_differ(QEMU_VIRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emulated),
        cmocka_unit_test(test_kvm_with_everything),
        cmocka_unit_test(test_template_and_clone),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_virt),
        cmocka_unit_test(test_machine_of_program),
        cmocka_unit_test(test_places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
