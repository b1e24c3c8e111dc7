/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "agent/stats.h"
#include "base/fs.h"

static void test_memory(void **state)
{
    Io__Containerd__Cgroups__V2__MemoryStat m = IO__CONTAINERD__CGROUPS__V2__MEMORY_STAT__INIT;

    stats_parse_memory("anon 4096\nfile 18446744073709551615\nunknown_key 7\nslab\npgfault 12\nbase 9\n"
                       "workingset_refault_anon 2\nworkingset_refault_file 3\nthp_fault_alloc 1",
                       &m);
    assert_int_equal(m.anon, 4096);
    assert_true(m.file == UINT64_MAX);
    assert_int_equal(m.slab, 0);
    assert_int_equal(m.pgfault, 12);
    assert_int_equal(m.workingset_refault, 5);
    assert_int_equal(m.thp_fault_alloc, 1);
}

static void test_io(void **state)
{
    Io__Containerd__Cgroups__V2__IOEntry entries[STATS_DISKS_MAX];
    char many[4096] = "";

    assert_int_equal(stats_parse_io("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\nbad\n254:16 \n"
                                    "8:1 rbytes=7 odd =1 wios=3\n",
                                    entries),
                     3);
    assert_int_equal(entries[0].major, 254);
    assert_int_equal(entries[0].rbytes, 10);
    assert_int_equal(entries[0].wios, 2);
    assert_int_equal(entries[1].minor, 16);
    assert_int_equal(entries[1].rbytes, 0);
    assert_int_equal(entries[2].rbytes, 7);
    assert_int_equal(entries[2].wios, 3);
    for (int i = 0; i < STATS_DISKS_MAX + 10; i++)
        strcat(many, "1:1 rios=1\n");
    assert_int_equal(stats_parse_io(many, entries), STATS_DISKS_MAX);
}

static void write_file(const char *directory, const char *name, const char *text)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

static void test_read(void **state)
{
    char top[] = "/tmp/test-stats.XXXXXX";
    _cleanup_free_ uint8_t *bytes = NULL;
    StatsMetrics *m;
    size_t n;

    assert_int_equal(stats_read("/no/such/cgroup", &bytes, &n, NULL), -ENOENT);
    assert_non_null(mkdtemp(top));
    write_file(top, "pids.current", "3\n");
    write_file(top, "pids.max", "max\n");
    write_file(top, "cpu.stat", "usage_usec 100\nuser_usec 60\nnr_throttled 2\n");
    write_file(top, "memory.current", "8192\n");
    write_file(top, "memory.max", "65536\n");
    write_file(top, "memory.stat", "anon 1\n");
    write_file(top, "memory.events", "oom 1\noom_kill 2\n");
    write_file(top, "io.stat", "254:0 rbytes=5\n");
    assert_int_equal(stats_read(top, &bytes, &n, NULL), 0);
    m = io__containerd__cgroups__v2__metrics__unpack(NULL, n, bytes);
    assert_non_null(m);
    assert_int_equal(m->pids->current, 3);
    assert_true(m->pids->limit == UINT64_MAX);
    assert_int_equal(m->cpu->usage_usec, 100);
    assert_int_equal(m->cpu->nr_throttled, 2);
    assert_int_equal(m->memory->usage, 8192);
    assert_int_equal(m->memory->usage_limit, 65536);
    assert_int_equal(m->memory->anon, 1);
    assert_int_equal(m->memory->swap_usage, 0);
    assert_int_equal(m->memory_events->oom_kill, 2);
    assert_int_equal(m->io->n_usage, 1);
    assert_int_equal(m->io->usage[0]->rbytes, 5);
    io__containerd__cgroups__v2__metrics__free_unpacked(m, NULL);
    assert_int_equal(fs_remove_tree(top), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_io),
        cmocka_unit_test(test_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
