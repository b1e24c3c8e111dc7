/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>

#include "agent/uevent.h"

#define MESSAGE(text) text, sizeof(text)

static void test_parse(void **state)
{
    Uevent u;

    assert_int_equal(uevent_parse(MESSAGE("add@/devices/x/block/vdb\0ACTION=add\0DEVPATH=/devices/x/block/vdb\0"
                                          "SUBSYSTEM=block\0MAJOR=254\0SEQNUM=7"),
                                  &u),
                     0);
    assert_string_equal(u.action, "add");
    assert_string_equal(u.subsystem, "block");
    assert_string_equal(u.devpath, "/devices/x/block/vdb");
}

static void test_refused(void **state)
{
    Uevent u = {.action = "untouched"};

    assert_int_equal(uevent_parse("", 0, &u), -EBADMSG);
    assert_int_equal(uevent_parse(MESSAGE(""), &u), -EBADMSG);
    assert_int_equal(uevent_parse(MESSAGE("libudev\0ACTION=add\0SUBSYSTEM=block"), &u), -EBADMSG);
    assert_int_equal(uevent_parse(MESSAGE("add@/x\0SUBSYSTEM=block"), &u), -EBADMSG);
    assert_int_equal(uevent_parse(MESSAGE("add@/x\0ACTION=add"), &u), -EBADMSG);
    /* Not ended by a NUL. */
    assert_int_equal(uevent_parse("add@/x\0ACTION=add\0SUBSYSTEM=block", 33, &u), -EBADMSG);
    assert_string_equal(u.action, "untouched");
}

static void on_event(void *userdata)
{
    (*(int *)userdata)++;
}

static void test_subscriptions(void **state)
{
    UeventSubscription *a, *b;
    UeventMonitor *monitor;
    Loop *loop;
    int n = 0;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(uevent_monitor_new(loop, &monitor, NULL), 0);
    assert_int_equal(uevent_subscribe(monitor, "block", on_event, &n, &a), 0);
    assert_int_equal(uevent_subscribe(monitor, "net", on_event, &n, &b), 0);
    assert_int_equal(loop_run_once(loop, 0), 0);
    assert_int_equal(n, 0);
    a = uevent_unsubscribe(a);
    b = uevent_unsubscribe(b);
    uevent_unsubscribe(NULL);
    uevent_monitor_free(monitor);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_subscriptions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
