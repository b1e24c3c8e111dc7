/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/crun.h"
#include "base/fs.h"

typedef struct Fixture {
    Loop *loop;
    Reaper *reaper;
    char top[64];
    char *log;
    bool done;
    int number;
    char message[2048];
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(reaper_new(f->loop, &f->reaper), 0);
    snprintf(f->top, sizeof(f->top), "/tmp/test-crun.XXXXXX");
    assert_non_null(mkdtemp(f->top));
    f->log = fs_join(f->top, "log");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    reaper_free(f->reaper);
    loop_free(f->loop);
    assert_int_equal(fs_remove_tree(f->top), 0);
    free(f->log);
    free(f);
    return 0;
}

static void on_done(int number, const char *message, void *userdata)
{
    Fixture *f = userdata;

    f->done = true;
    f->number = number;
    snprintf(f->message, sizeof(f->message), "%s", message ?: "");
}

/* Puts a script in crun's place and runs it. */
static void run(Fixture *f, const char *script, uint64_t timeout_usec)
{
    _cleanup_free_ char *program = fs_join(f->top, "crun"), *text = NULL, *path = NULL;
    const CrunCommand command = {
        .arguments = (const char *const[]){"create", "the-id", NULL},
        .log_path = f->log,
        .stdin_fd = -EBADF,
        .stdout_fd = -EBADF,
        .stderr_fd = -EBADF,
        .timeout_usec = timeout_usec,
    };

    text = string_printf("#!/bin/sh\nlog=$4\n%s\n", script);
    path = string_printf("%s:/usr/bin:/bin", f->top);
    assert_int_equal(fs_write_file_atomic(program, text, strlen(text), 0755), 0);
    assert_int_equal(setenv("PATH", path, 1), 0);
    assert_int_equal(crun_run(f->reaper, &command, on_done, f, NULL), 0);
    while (!f->done)
        assert_int_equal(loop_run_once(f->loop, 10 * USEC_PER_SEC), 1);
}

static void test_success(void **state)
{
    Fixture *f = *state;
    _cleanup_free_ char *text = NULL;

    run(f, "echo \"$@\" > \"$log\"", USEC_PER_SEC * 10);
    assert_int_equal(f->number, 0);
    assert_int_equal(fs_read_file(f->log, 1000, &text, NULL), 0);
    assert_non_null(strstr(text, "--root /run/cloudhv/crun --log"));
    assert_non_null(strstr(text, "--cgroup-manager cgroupfs create the-id\n"));
}

static void test_failure_with_a_reason(void **state)
{
    Fixture *f = *state;

    run(f, "echo first > $log; echo 'cannot find it' >> $log; exit 1", USEC_PER_SEC * 10);
    assert_int_equal(f->number, -EIO);
    assert_string_equal(f->message, "crun create failed: cannot find it");
}

static void test_failure_without_a_reason(void **state)
{
    Fixture *f = *state;

    run(f, "exit 3", USEC_PER_SEC * 10);
    assert_int_equal(f->number, -EIO);
    assert_string_equal(f->message, "crun create failed: exit status 3");
}

static void test_deadline(void **state)
{
    Fixture *f = *state;

    run(f, "exec sleep 100", USEC_PER_SEC / 5);
    assert_int_equal(f->number, -ETIMEDOUT);
}

static void test_log_message(void **state)
{
    char two[] = "one\ntwo\n\n", empty[] = "\n \n", control[] = "a\tb\033[31m", big[4000];

    assert_string_equal(crun_log_message(two), "two");
    assert_string_equal(crun_log_message(empty), "");
    assert_string_equal(crun_log_message(control), "a b [31m");
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = 0;
    assert_int_equal(strlen(crun_log_message(big)), 1024);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_success),
        TEST(test_failure_with_a_reason),
        TEST(test_failure_without_a_reason),
        TEST(test_deadline),
        cmocka_unit_test(test_log_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
