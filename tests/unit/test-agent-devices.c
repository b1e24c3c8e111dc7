/* SPDX-License-Identifier: MIT */

/* What the agent finds in sysfs and on the kernel's command line: disks.c, ports.c, boot.c; and service.c's
 * table of methods. */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "agent/boot.h"
#include "agent/disks.h"
#include "agent/ports.h"
#include "agent/service.h"
#include "base/fs.h"

static void make(const char *top, const char *device, const char *file, const char *text)
{
    _cleanup_free_ char *directory = fs_join(top, device), *path = fs_join(directory, file);

    assert_int_equal(fs_mkdir_p(directory, 0755), 0);
    if (text)
        assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0444), 0);
}

static void test_find_disk(void **state)
{
    char top[] = "/tmp/test-disks.XXXXXX", *name = NULL;

    assert_non_null(mkdtemp(top));
    make(top, "vda", "serial", "\n");
    make(top, "loop0", "size", "0\n");
    make(top, "vdb", "serial", "i0123456789abcdef01\n");
    make(top, "vdc", "serial", "i0123456789abcdef");
    assert_int_equal(disk_find(top, "i0123456789abcdef01", &name), 0);
    assert_string_equal(name, "vdb");
    free(name);
    assert_int_equal(disk_find(top, "i0123456789abcdef", &name), 0);
    assert_string_equal(name, "vdc");
    free(name);
    assert_int_equal(disk_find(top, "i0123456789abcde", &name), -ENOENT);
    assert_int_equal(disk_find("/no/such/directory", "x", &name), -ENOENT);
    assert_int_equal(fs_remove_tree(top), 0);
}

static void test_find_port(void **state)
{
    char top[] = "/tmp/test-ports.XXXXXX", *name = NULL;

    assert_non_null(mkdtemp(top));
    make(top, "vport1p1", "name", "cloudhv.control\n");
    make(top, "vport1p2", "name", "cloudhv.task\n");
    make(top, "vport1p3", "name", NULL);
    assert_int_equal(port_find(top, PORTS_TASK_NAME, &name), 0);
    assert_string_equal(name, "vport1p2");
    free(name);
    assert_int_equal(port_find(top, "cloudhv", &name), -ENOENT);
    assert_int_equal(fs_remove_tree(top), 0);
}

typedef struct Result {
    int calls, number;
} Result;

static void on_disk(int number, const char *path, void *userdata)
{
    Result *r = userdata;

    r->calls++;
    r->number = number;
}

static void test_wait_for_disks(void **state)
{
    DiskWait *a, *b, *c;
    UeventMonitor *monitor;
    Result ra = {0}, rb = {0}, rc = {0};
    Disks *disks;
    Loop *loop;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(uevent_monitor_new(loop, &monitor, NULL), 0);
    assert_int_equal(disks_new(loop, monitor, &disks), 0);
    assert_int_equal(disks_wait(disks, "none", 20 * USEC_PER_MSEC, on_disk, &ra, &a), 0);
    assert_int_equal(disks_wait(disks, "none", 20 * USEC_PER_MSEC, on_disk, &rb, &b), 0);
    assert_int_equal(disks_wait(disks, "none", 100 * USEC_PER_SEC, on_disk, &rc, &c), 0);
    b = disk_wait_cancel(b);
    while (ra.calls == 0)
        assert_int_equal(loop_run_once(loop, 5 * USEC_PER_SEC), 1);
    assert_int_equal(ra.number, -ETIMEDOUT);
    assert_int_equal(rb.calls, 0);
    assert_int_equal(rc.calls, 0);
    disks_free(disks); /* with a wait left */
    uevent_monitor_free(monitor);
    loop_free(loop);
}

static void test_command_line(void **state)
{
    assert_true(boot_has_word("a cloudhv.debug b\n", "cloudhv.debug"));
    assert_true(boot_has_word("cloudhv.debug\n", "cloudhv.debug"));
    assert_true(boot_has_word("quiet  cloudhv.debug", "cloudhv.debug"));
    assert_false(boot_has_word("cloudhv.debugger xcloudhv.debug cloudhv.debug=1\n", "cloudhv.debug"));
    assert_false(boot_has_word("", "cloudhv.debug"));
}

static void handler(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
}

static void test_methods(void **state)
{
    static const ServiceMethod methods[] = {{"Identity", handler}, {"Shutdown", handler}};
    static const ServiceMethod wrong[] = {{"NoSuchMethod", handler}};
    const ProtobufCServiceDescriptor *d = &cloudhv__agent__v1__control__descriptor;
    TtrpcHandler handlers[AGENT_METHODS_MAX] = {0};

    assert_int_equal(service_fill(d, methods, ELEMENTSOF(methods), handlers), 0);
    for (unsigned i = 0; i < d->n_methods; i++) {
        bool named = strcmp(d->methods[i].name, "Identity") == 0 || strcmp(d->methods[i].name, "Shutdown") == 0;

        assert_true(named ? handlers[i] == handler : !handlers[i]);
    }
    assert_int_equal(service_fill(d, wrong, ELEMENTSOF(wrong), handlers), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find_disk),    cmocka_unit_test(test_find_port),
        cmocka_unit_test(test_wait_for_disks), cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_methods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
