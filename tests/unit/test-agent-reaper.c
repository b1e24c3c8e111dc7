/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "agent/reaper.h"

typedef struct Fixture {
    Loop *loop;
    Reaper *reaper;
    int calls, status;
    pid_t pid;
    uint64_t nsec;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(reaper_new(f->loop, &f->reaper), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    reaper_free(f->reaper);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void on_end(pid_t pid, int status, uint64_t nsec, void *userdata)
{
    Fixture *f = userdata;

    f->calls++;
    f->pid = pid;
    f->status = status;
    f->nsec = nsec;
}

static pid_t spawn(int code)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        if (code >= 0)
            _exit(code);
        for (;;)
            pause();
    }
    return pid;
}

static void run_until(Fixture *f, int calls)
{
    while (f->calls < calls)
        assert_int_equal(loop_run_once(f->loop, 10 * USEC_PER_SEC), 1);
}

/* Waits until a child has ended, without collecting it. */
static void await_end(pid_t pid)
{
    siginfo_t si;

    assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT), 0);
}

static void test_exit(void **state)
{
    Fixture *f = *state;
    uint64_t before = reaper_realtime();
    pid_t pid = spawn(7);

    assert_int_equal(reaper_watch(f->reaper, pid, on_end, f), 0);
    run_until(f, 1);
    assert_int_equal(f->pid, pid);
    assert_true(WIFEXITED(f->status));
    assert_int_equal(WEXITSTATUS(f->status), 7);
    assert_true(f->nsec >= before && f->nsec <= reaper_realtime());
    assert_int_equal(waitpid(pid, NULL, 0), -1);
}

static void test_signal(void **state)
{
    Fixture *f = *state;
    pid_t pid = spawn(-1);

    assert_int_equal(reaper_watch(f->reaper, pid, on_end, f), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    run_until(f, 1);
    assert_true(WIFSIGNALED(f->status));
    assert_int_equal(WTERMSIG(f->status), SIGKILL);
}

static void test_unwatched_is_collected(void **state)
{
    Fixture *f = *state;
    pid_t pid = spawn(0);

    await_end(pid);
    while (loop_run_once(f->loop, 0) > 0)
        ;
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(f->calls, 0);
}

/* While held, one that ended before it was watched is still reported. */
static void test_hold(void **state)
{
    Fixture *f = *state;
    pid_t pid, other;

    reaper_hold(f->reaper);
    pid = spawn(3);
    other = spawn(0);
    await_end(pid);
    await_end(other);
    while (loop_run_once(f->loop, 0) > 0)
        ;
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(reaper_watch(f->reaper, pid, on_end, f), 0);
    reaper_release(f->reaper);
    run_until(f, 1);
    assert_int_equal(WEXITSTATUS(f->status), 3);
    while (loop_run_once(f->loop, 0) > 0)
        ;
    assert_int_equal(kill(other, 0), -1);
}

static void test_forget(void **state)
{
    Fixture *f = *state;
    pid_t pid = spawn(-1);

    assert_int_equal(reaper_watch(f->reaper, pid, on_end, f), 0);
    reaper_forget(f->reaper, pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    await_end(pid);
    while (loop_run_once(f->loop, 0) > 0)
        ;
    assert_int_equal(f->calls, 0);
    assert_int_equal(kill(pid, 0), -1);
}

static void test_not_a_child(void **state)
{
    Fixture *f = *state;

    assert_int_equal(reaper_watch(f->reaper, getpid(), on_end, f), 0);
    run_until(f, 1);
    assert_int_equal(WEXITSTATUS(f->status), 255);
}

static void test_many(void **state)
{
    Fixture *f = *state;

    for (int i = 0; i < 200; i++)
        assert_int_equal(reaper_watch(f->reaper, spawn(i % 100), on_end, f), 0);
    run_until(f, 200);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_exit), TEST(test_signal), TEST(test_unwatched_is_collected), TEST(test_hold),
        TEST(test_forget), TEST(test_not_a_child), TEST(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
