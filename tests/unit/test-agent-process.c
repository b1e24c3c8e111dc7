/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "agent/process.h"

typedef struct Fixture {
    Loop *loop;
    Process *process;
    int ended, forgotten;
    ProcessExit exit;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(process_new(f->loop, &f->process), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    process_free(f->process);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void on_end(const ProcessExit *exit, void *userdata)
{
    Fixture *f = userdata;

    if (exit) {
        f->ended++;
        f->exit = *exit;
    } else {
        f->forgotten++;
    }
}

static void test_exit_status(void **state)
{
    assert_int_equal(process_exit_status(0), 0);
    assert_int_equal(process_exit_status(7 << 8), 7);
    assert_int_equal(process_exit_status(255 << 8), 255);
    assert_int_equal(process_exit_status(SIGKILL), 137);
    assert_int_equal(process_exit_status(SIGSEGV | 0x80), 139);
}

static void test_waiters(void **state)
{
    Fixture *f = *state;
    ProcessWait *a, *b, *c;

    assert_int_equal(process_wait(f->process, on_end, f, &a), 0);
    assert_int_equal(process_wait(f->process, on_end, f, &b), 0);
    assert_int_equal(process_wait(f->process, on_end, f, &c), 0);
    b = process_wait_cancel(b);
    assert_null(process_exit(f->process));
    process_ended(f->process, SIGTERM, 42, true);
    assert_int_equal(f->ended, 2);
    assert_int_equal(f->exit.status, 143);
    assert_int_equal(f->exit.nsec, 42);
    assert_true(f->exit.oom_killed);
    assert_non_null(process_exit(f->process));
}

static void test_forgotten(void **state)
{
    Fixture *f = *state;
    ProcessWait *wait;

    assert_int_equal(process_wait(f->process, on_end, f, &wait), 0);
    f->process = process_free(f->process);
    assert_int_equal(f->forgotten, 1);
}

static void test_signal(void **state)
{
    Fixture *f = *state;
    pid_t pid = fork();
    int status;

    if (pid == 0)
        for (;;)
            pause();
    assert_int_equal(process_signal(f->process, SIGTERM), -ESRCH);
    assert_int_equal(process_set_pid(f->process, pid, NULL), 0);
    assert_int_equal(process_pid(f->process), pid);
    assert_int_equal(process_signal(f->process, SIGTERM), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WTERMSIG(status), SIGTERM);
    process_ended(f->process, status, 1, false);
    assert_int_equal(process_signal(f->process, SIGTERM), -ESRCH);
}

static void test_pipes(void **state)
{
    _cleanup_(process_pipes_close) ProcessPipes pipes = PROCESS_PIPES_INIT;
    Fixture *f = *state;

    assert_int_equal(process_make_pipes(f->process, true, true, false, &pipes, NULL), 0);
    assert_non_null(process_stdin(f->process));
    assert_non_null(process_stdout(f->process));
    assert_null(process_stderr(f->process));
    assert_true(pipes.stdin_fd >= 0 && pipes.stdout_fd >= 0);
    assert_true(pipes.stderr_fd < 0);
    /* The container's ends block, as programs expect. */
    assert_int_equal(fcntl(pipes.stdout_fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(pipes.stdin_fd, F_GETFL) & O_NONBLOCK, 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_status), TEST(test_waiters), TEST(test_forgotten), TEST(test_signal),
        TEST(test_pipes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
