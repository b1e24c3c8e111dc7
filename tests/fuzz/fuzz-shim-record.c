/* SPDX-License-Identifier: MIT */

/* The shim's record, which `delete` may find damaged: what is read has been checked, and is the same after it
 * was written and read again. */

#include <limits.h>

#include "base/fs.h"
#include "fuzz.h"
#include "shim/record.h"

static bool same(const char *a, const char *b)
{
    return strcmp(a ?: "", b ?: "") == 0;
}

static void check(const Record *r)
{
    REQUIRE(r->pid >= 0 && r->start_time <= INT64_MAX);
    for (size_t i = 0; i < r->n_disks; i++)
        REQUIRE(r->disks[i].container && r->disks[i].path && r->disks[i].path[0] == '/');
}

static void check_round_trip(const Record *r, const char *directory)
{
    _cleanup_record_ Record *again = NULL;

    REQUIRE(record_write(r, directory, NULL) == 0);
    REQUIRE(record_read(directory, &again, NULL) == 0);
    REQUIRE(same(r->socket, again->socket) && same(r->daemon_socket, again->daemon_socket) &&
            same(r->state_dir, again->state_dir) && same(r->netns, again->netns));
    REQUIRE(r->pid == again->pid && r->start_time == again->start_time && r->n_disks == again->n_disks);
    for (size_t i = 0; i < r->n_disks; i++)
        REQUIRE(same(r->disks[i].container, again->disks[i].container) &&
                same(r->disks[i].path, again->disks[i].path));
}

/* Disks come off again by the names of their containers. */
static void check_removal(Record *r)
{
    for (size_t n = r->n_disks; n > 0; n--) {
        char *container = strdup(r->disks[n / 2].container);

        REQUIRE(container);
        record_remove_disk(r, container);
        REQUIRE(r->n_disks == n - 1);
        free(container);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *directory = fuzz_directory();
    _cleanup_free_ char *path = fs_join(directory, RECORD_FILE);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_record_ Record *r = NULL;

    fuzz_write_file(path, data, size);
    if (record_read(directory, &r, &e) < 0) {
        REQUIRE(!r && e.number < 0 && e.message);
        return 0;
    }
    check(r);
    check_round_trip(r, directory);
    check_removal(r);
    return 0;
}
