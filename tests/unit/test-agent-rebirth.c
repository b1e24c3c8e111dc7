/* SPDX-License-Identifier: MIT */

/* What an agent leaves to the one that it becomes, and the VM's preparation for being frozen as far as it goes without
 * a VM. That all of it works is for tests/tools/clones.py. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "agent/quiesce.h"
#include "agent/rebirth.h"
#include "base/fd.h"

/* A note as rebirth.c writes it, with `n` bytes of frame, in a descriptor that the reader closes. */
static void make_note(char argument[static 16], uint32_t size, const char *frame, size_t n)
{
    const struct {
        int32_t fd;
        uint32_t size;
        uint64_t nonce;
    } note = {.fd = -EBADF, .size = size, .nonce = 42};
    int fd = memfd_create("note", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, &note, sizeof(note)), 0);
    assert_int_equal(fd_write_full(fd, frame, n), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    snprintf(argument, 16, "%i", fd);
}

static void test_note(void **state)
{
    TtrpcHandover h = {0};
    char argument[16];

    make_note(argument, 5, "hello", 5);
    assert_int_equal(rebirth_read(argument, &h, NULL), 0);
    assert_int_equal(h.fd, -EBADF);
    assert_int_equal(h.nonce, 42);
    assert_int_equal(h.size, 5);
    assert_memory_equal(h.frame, "hello", 5);
    ttrpc_handover_clear(&h);
    /* Nobody else is to have it. */
    assert_int_equal(fcntl((int)strtol(argument, NULL, 10), F_GETFD), -1);
}

static void test_bad_notes(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TtrpcHandover h = {0};
    char argument[16];

    assert_int_equal(rebirth_read("none", &h, &e), -EINVAL);
    assert_int_equal(rebirth_read("0", &h, &e), -EINVAL);
    assert_int_equal(rebirth_read("7x", &h, &e), -EINVAL);
    assert_int_equal(rebirth_read("987654", &h, &e), -EBADMSG);
    make_note(argument, 6, "hello", 5);
    assert_int_equal(rebirth_read(argument, &h, &e), -EBADMSG);
    make_note(argument, UINT32_MAX, "hello", 5);
    assert_int_equal(rebirth_read(argument, &h, &e), -EBADMSG);
    assert_null(h.frame);
    assert_non_null(strstr(error_message(&e), "agent"));
}

static void on_done(int number, const char *message, void *userdata)
{
    *(int *)userdata = number;
}

static void test_quiesce(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Containers *containers;
    Quiesce *quiesce;
    int result = 1;

    assert_int_equal(containers_new(&(const ContainersContext){0}, &containers), 0);
    assert_int_equal(quiesce_new(containers, &quiesce), 0);
    /* A refusal leaves it ready for the next call. */
    assert_int_equal(quiesce_begin(quiesce, "no/serial", on_done, &result, &e), -EINVAL);
    assert_non_null(strstr(error_message(&e), "no/serial"));
    assert_int_equal(result, 1);
    assert_int_equal(quiesce_begin(quiesce, "", on_done, &result, &e), 0);
    assert_int_equal(result, 0);
    assert_int_equal(containers_count(containers), 0);
    quiesce_free(quiesce);
    containers_free(containers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_note),
        cmocka_unit_test(test_bad_notes),
        cmocka_unit_test(test_quiesce),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
