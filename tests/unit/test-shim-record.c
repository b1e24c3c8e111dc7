/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "shim/record.h"

static int make_directory(void **state)
{
    char *path = strdup("/tmp/test-shim-record.XXXXXX");

    *state = mkdtemp(path);
    return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
    int r = fs_remove_tree(*state);

    free(*state);
    return r;
}

static void test_round_trip(void **state)
{
    _cleanup_record_ Record *r = calloc(1, sizeof(*r)), *again = NULL;
    _cleanup_free_ char *path = fs_join(*state, RECORD_FILE);
    struct stat st;

    r->socket = strdup("/run/containerd/s/abc");
    r->daemon_socket = strdup("");
    r->state_dir = strdup("/run/cloudhv/daemon");
    r->netns = strdup("/run/netns/\"odd\"");
    r->pid = 4711;
    r->start_time = 123456789012ULL;
    assert_int_equal(record_add_disk(r, "one", "/a/one"), 0);
    assert_int_equal(record_add_disk(r, "two", "/a/two"), 0);
    assert_int_equal(record_add_disk(r, "three", "/a/three"), 0);
    record_remove_disk(r, "one");
    record_remove_disk(r, "unknown");
    assert_int_equal(record_write(r, *state, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(record_read(*state, &again, NULL), 0);
    assert_string_equal(again->socket, r->socket);
    assert_string_equal(again->daemon_socket, "");
    assert_string_equal(again->state_dir, r->state_dir);
    assert_string_equal(again->netns, r->netns);
    assert_int_equal(again->pid, 4711);
    assert_true(again->start_time == r->start_time);
    assert_int_equal(again->n_disks, 2);
    assert_string_equal(again->disks[0].container, "three");
    assert_string_equal(again->disks[0].path, "/a/three");
    assert_string_equal(again->disks[1].path, "/a/two");
}

static void test_no_netns_yet(void **state)
{
    _cleanup_record_ Record *r = calloc(1, sizeof(*r)), *again = NULL;

    assert_int_equal(record_write(r, *state, NULL), 0);
    assert_int_equal(record_read(*state, &again, NULL), 0);
    assert_null(again->netns);
    assert_int_equal(again->n_disks, 0);
}

static void write_and_fail(const char *directory, const char *text)
{
    _cleanup_free_ char *path = fs_join(directory, RECORD_FILE);
    _cleanup_error_ Error e = ERROR_INIT;
    Record *r = NULL;

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0600), 0);
    assert_true(record_read(directory, &r, &e) < 0);
    assert_null(r);
    assert_non_null(strstr(e.message, RECORD_FILE));
}

static void test_damaged(void **state)
{
    _cleanup_free_ char *path = fs_join(*state, RECORD_FILE);
    Record *r = NULL;

    unlink(path);
    assert_int_equal(record_read(*state, &r, NULL), -ENOENT);
    write_and_fail(*state, "");
    write_and_fail(*state, "{}");
    write_and_fail(*state, "[1,2]");
    write_and_fail(*state, "\"version\"");
    write_and_fail(*state, "{\"version\":0}");
    write_and_fail(*state, "{\"pid\":5}");
    write_and_fail(*state, "{\"version\":1,\"pid\":");
    write_and_fail(*state, "{\"version\":1,\"pid\":\"x\"}");
    write_and_fail(*state, "{\"version\":1,\"pid\":-5}");
    write_and_fail(*state, "{\"version\":1,\"disks\":[{\"container\":\"a\",\"path\":\"relative\"}]}");
    write_and_fail(*state, "{\"version\":1,\"disks\":[7]}");
}

/* A key of a later release does no harm. */
static void test_unknown_key(void **state)
{
    static const char text[] = "{\"version\":2,\"pid\":3,\"later\":{}}";
    _cleanup_free_ char *path = fs_join(*state, RECORD_FILE);
    _cleanup_record_ Record *r = NULL;

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0600), 0);
    assert_int_equal(record_read(*state, &r, NULL), 0);
    assert_int_equal(r->pid, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_no_netns_yet),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_unknown_key),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
