/* SPDX-License-Identifier: MIT */

#include "base/procfs.h"

#include <errno.h>
#include <unistd.h>

#include "unit.h"

static void test_sum(void **state)
{
    static const char text[] = "Rss:                  64 kB\n"
                               "Private_Clean:        12 kB\n"
                               "Private_Dirty:         7 kB\n"
                               "Private_Dirty:         5 kB\n"
                               "Private_Dirty_Other:  99 kB\n"
                               "plain 8\n"
                               "last:\t3";

    assert_int_equal(procfs_sum(text, "Private_Clean"), 12);
    assert_int_equal(procfs_sum(text, "Private_Dirty"), 12);
    assert_int_equal(procfs_sum(text, "plain"), 8);
    assert_int_equal(procfs_sum(text, "last"), 3);
    assert_int_equal(procfs_sum(text, "missing"), 0);
    assert_int_equal(procfs_sum(text, "Private"), 0);
    assert_int_equal(procfs_sum("", "x"), 0);
    assert_int_equal(procfs_sum("x", "x"), 0);
}

static void test_read(void **state)
{
    static const char *const keys[] = {"VmHWM", "Pid", "no such line"};
    uint64_t values[3] = {1, 1, 1};

    assert_int_equal(procfs_read("/proc/self/status", keys, 3, values), 0);
    assert_true(values[0] > 100);
    assert_int_equal(values[1], getpid());
    assert_int_equal(values[2], 0);
    assert_int_equal(procfs_read("/proc/self/no-such-file", keys, 3, values), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
