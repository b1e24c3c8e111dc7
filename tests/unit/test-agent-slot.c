/* SPDX-License-Identifier: MIT */

/* Against a tree that looks like /sys on arm64: a disk in a root port's slot, one in the slot of a bridge behind such a
 * port (as x86-64 has them), and one in no slot at all. */

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/slot.h"
#include "base/fs.h"

static char root[64];

static void write_file(const char *name, const char *text)
{
    _cleanup_free_ char *path = fs_join(root, name);

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

static void make_directory(const char *name)
{
    _cleanup_free_ char *path = fs_join(root, name);

    assert_int_equal(fs_mkdir_p(path, 0755), 0);
}

static void make_disk(const char *device, const char *number)
{
    _cleanup_free_ char *link = string_printf("%s/dev/block/%s", root, number);
    _cleanup_free_ char *target = string_printf("../../devices/%s", device);
    _cleanup_free_ char *directory = string_printf("devices/%s", device);

    make_directory(directory);
    assert_int_equal(symlink(target, link), 0);
}

static void make_slot(const char *name, const char *address)
{
    _cleanup_free_ char *directory = string_printf("bus/pci/slots/%s", name);
    _cleanup_free_ char *file = string_printf("%s/address", directory), *power = string_printf("%s/power", directory);

    make_directory(directory);
    write_file(file, address);
    write_file(power, "1\n");
}

static char power_of(const char *slot)
{
    _cleanup_free_ char *path = string_printf("%s/bus/pci/slots/%s/power", root, slot), *text = NULL;

    assert_int_equal(fs_read_file(path, 16, &text, NULL), 0);
    return text[0];
}

static int setup(void **state)
{
    snprintf(root, sizeof(root), "/tmp/test-slot-XXXXXX");
    assert_non_null(mkdtemp(root));
    make_directory("dev/block");
    make_directory("bus/pci/slots");
    make_disk("platform/4010000000.pcie/pci0000:00/0000:00:10.1/0000:02:00.0/virtio5/block/vdb", "254:16");
    make_directory("devices/platform/4010000000.pcie/pci0000:00/0000:00:10.1/0000:00:10.1:pcie004/driver");
    make_disk("pci0000:00/0000:00:11.0/0000:03:00.0/0000:04:01.0/virtio6/block/vdc", "254:32");
    make_directory("devices/pci0000:00/0000:00:11.0/0000:00:11.0:pcie004/driver");
    make_disk("virtual/block/loop0", "7:0");
    make_slot("1", "0000:01:00\n");
    make_slot("2", "0000:02:00\n");
    make_slot("1-1", "0000:04:01\n");
    return 0;
}

static int teardown(void **state)
{
    return fs_remove_tree(root);
}

static void test_disk_of_a_port(void **state)
{
    assert_int_equal(slot_power_off(root, makedev(254, 16)), 1);
    assert_int_equal(power_of("2"), '0');
    assert_int_equal(power_of("1"), '1');
    assert_int_equal(power_of("1-1"), '1');
}

static void test_others_are_left_alone(void **state)
{
    assert_int_equal(slot_power_off(root, makedev(254, 32)), 0);
    assert_int_equal(slot_power_off(root, makedev(7, 0)), 0);
    assert_int_equal(slot_power_off(root, makedev(0, 42)), 0);
    assert_int_equal(slot_power_off("/nonexistent", makedev(254, 16)), 0);
    assert_int_equal(power_of("2"), '1');
    assert_int_equal(power_of("1-1"), '1');
}

static void test_no_slot(void **state)
{
    _cleanup_free_ char *slot = fs_join(root, "bus/pci/slots/2");

    assert_int_equal(fs_remove_tree(slot), 0);
    assert_int_equal(slot_power_off(root, makedev(254, 16)), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_disk_of_a_port, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others_are_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_slot, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
