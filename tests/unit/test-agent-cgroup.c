/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/cgroup.h"
#include "base/fs.h"

static void test_event_values(void **state)
{
    static const char text[] = "low 0\nhigh 12\noom 1\noom_kill 18446744073709551615\nbad x\nhuge 99999999999999999999\n";
    uint64_t value = 77;

    assert_int_equal(cgroup_event_value(text, "high", &value), 0);
    assert_int_equal(value, 12);
    assert_int_equal(cgroup_event_value(text, "oom", &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(cgroup_event_value(text, "oom_kill", &value), 0);
    assert_true(value == UINT64_MAX);
    value = 77;
    assert_int_equal(cgroup_event_value(text, "none", &value), -ENOENT);
    assert_int_equal(cgroup_event_value(text, "bad", &value), -EBADMSG);
    assert_int_equal(cgroup_event_value(text, "huge", &value), -EBADMSG);
    assert_int_equal(cgroup_event_value("", "oom", &value), -ENOENT);
    assert_int_equal(cgroup_event_value("oom", "oom", &value), -ENOENT);
    assert_int_equal(value, 77);
}

static void write_file(const char *directory, const char *name, const char *text)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

/* A directory that looks like a cgroup with another one in it. */
static void test_processes(void **state)
{
    char top[] = "/tmp/test-cgroup.XXXXXX";
    _cleanup_free_ char *inner = NULL;
    pid_t *pids;
    size_t n;

    assert_non_null(mkdtemp(top));
    inner = fs_join(top, "inner");
    assert_int_equal(mkdir(inner, 0755), 0);
    write_file(top, "cgroup.procs", "11\n12\n");
    write_file(inner, "cgroup.procs", "13\n");
    assert_int_equal(cgroup_processes(top, 100, &pids, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(pids[0] + pids[1] + pids[2], 36);
    free(pids);
    assert_int_equal(cgroup_processes(top, 2, &pids, &n), 0);
    assert_int_equal(n, 2);
    free(pids);
    write_file(top, "cgroup.events", "populated 1\nfrozen 0\n");
    assert_int_equal(cgroup_is_populated(top), 1);
    write_file(top, "cgroup.events", "populated 0\nfrozen 0\n");
    assert_int_equal(cgroup_is_populated(top), 0);
    write_file(top, "memory.events", "oom 1\noom_kill 3\n");
    assert_int_equal(cgroup_oom_kills(top), 3);
    assert_int_equal(fs_remove_tree(top), 0);
}

static void test_missing_cgroup(void **state)
{
    static const char path[] = "/sys/fs/cgroup/there/is/none";
    pid_t *pids;
    size_t n;

    assert_int_equal(cgroup_kill(path), 0);
    assert_int_equal(cgroup_signal(path, 15), 0);
    assert_int_equal(cgroup_is_populated(path), 0);
    assert_int_equal(cgroup_oom_kills(path), 0);
    assert_int_equal(cgroup_remove(path), 0);
    assert_int_equal(cgroup_processes(path, 10, &pids, &n), -ENOENT);
}

static void test_remove(void **state)
{
    char top[] = "/tmp/test-cgroup.XXXXXX";
    _cleanup_free_ char *deep = NULL;

    assert_non_null(mkdtemp(top));
    deep = fs_join(top, "a/b/c");
    assert_int_equal(fs_mkdir_p(deep, 0755), 0);
    assert_int_equal(cgroup_remove(top), 0);
    assert_int_equal(access(top, F_OK), -1);
}

static void test_names(void **state)
{
    _cleanup_free_ char *spec = cgroup_spec_path("cgroup.procs"), *directory = cgroup_directory("x");

    assert_string_equal(spec, "/cloudhv/ctr-cgroup.procs");
    assert_string_equal(directory, "/sys/fs/cgroup/cloudhv/ctr-x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_values),   cmocka_unit_test(test_processes),
        cmocka_unit_test(test_missing_cgroup), cmocka_unit_test(test_remove),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
