/* SPDX-License-Identifier: MIT */

/* Waiting for disks; finding them is in test-agent-devices.c. */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/disks.h"

typedef struct Result {
    unsigned calls;
    int number;
    DiskWait *cancel; /* another wait, to be given up by the callback */
} Result;

static void on_disk(int number, const char *path, void *userdata)
{
    Result *r = userdata;

    r->calls++;
    r->number = number;
    assert_true(number == 0 ? path != NULL : path == NULL);
    r->cancel = disk_wait_cancel(r->cancel);
}

static void test_wait(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    UeventMonitor *monitor;
    Result a = {0}, b = {0}, c = {0};
    DiskWait *first, *second, *third;
    Disks *disks;
    Loop *loop;

    assert_int_equal(loop_new(&loop), 0);
    if (uevent_monitor_new(loop, &monitor, &e) < 0) {
        print_message("%s\n", error_message(&e));
        error_clear(&e);
        loop_free(loop);
        skip();
    }
    assert_int_equal(disks_new(loop, monitor, &disks), 0);
    assert_int_equal(disks_wait(disks, "there is none of that name", 20 * USEC_PER_MSEC, on_disk, &a, &first),
                     0);
    assert_int_equal(disks_wait(disks, "nor of that", 60 * USEC_PER_SEC, on_disk, &b, &second), 0);
    assert_int_equal(disks_wait(disks, "nor this", 60 * USEC_PER_SEC, on_disk, &c, &third), 0);
    assert_int_equal(a.calls, 0);
    a.cancel = second;
    for (int i = 0; i < 100 && a.calls == 0; i++)
        assert_true(loop_run_once(loop, 100 * USEC_PER_MSEC) >= 0);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.number, -ETIMEDOUT);
    assert_null(disk_wait_cancel(NULL));
    /* One that still waits goes with its owner, and nobody is called. */
    disks_free(disks);
    assert_int_equal(b.calls + c.calls, 0);
    uevent_monitor_free(monitor);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
