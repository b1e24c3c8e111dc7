/* SPDX-License-Identifier: MIT */

/* The same checks for both implementations of the loop: included by test-loop-sd.c and test-loop-epoll.c. */

#include "unit.h"

#include <fcntl.h>
#include <signal.h>

#include "base/loop.h"

typedef struct Seen {
    Loop *loop;
    LoopSource *other;
    unsigned count;
} Seen;

static void on_timer(LoopSource *source, void *userdata)
{
    Seen *seen = userdata;

    if (++seen->count < 3)
        assert_int_equal(loop_source_set_timer(source, 1000), 0);
    else
        loop_exit(seen->loop, 42);
}

static void test_timer_rearms(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    LoopSource *timer;
    Seen seen = {0};
    uint64_t start = loop_now();

    assert_int_equal(loop_new(&loop), 0);
    seen.loop = loop;
    assert_int_equal(loop_add_timer(loop, 1000, on_timer, &seen, &timer), 0);
    assert_int_equal(loop_run(loop), 42);
    assert_int_equal(seen.count, 3);
    assert_true(loop_now() - start >= 3000);
    loop_source_free(timer);
}

static void on_readable(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Seen *seen = userdata;
    char c;

    assert_true(revents & EPOLLIN);
    assert_int_equal(read(fd, &c, 1), 1);
    seen->count++;
    seen->other = loop_source_free(seen->other);
    loop_source_free(source); /* in its own callback */
}

static void test_io_and_free_while_dispatching(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    LoopSource *a, *b;
    Seen seen = {0};
    int p[2], q[2];

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(pipe2(q, O_CLOEXEC), 0);
    assert_int_equal(loop_add_io(loop, p[0], EPOLLIN, on_readable, &seen, &a), 0);
    assert_int_equal(loop_add_io(loop, q[0], EPOLLIN, on_readable, &seen, &b), 0);
    assert_int_equal(loop_run_once(loop, 0), 0);
    seen.other = b;
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_int_equal(loop_run_once(loop, 1000000), 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(write(q[1], "x", 1), 1);
    assert_int_equal(loop_run_once(loop, 1000), 0);
    for (int i = 0; i < 2; i++) {
        close(p[i]);
        close(q[i]);
    }
}

static void on_count(LoopSource *source, void *userdata)
{
    Seen *seen = userdata;

    seen->count++;
}

static void test_defer_runs_once(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    LoopSource *a, *b;
    Seen seen = {0};

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(loop_add_defer(loop, on_count, &seen, &a), 0);
    assert_int_equal(loop_add_defer(loop, on_count, &seen, &b), 0);
    loop_source_free(b);
    assert_int_equal(loop_run_once(loop, 1000000), 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(loop_run_once(loop, 1000), 0);
    assert_int_equal(seen.count, 1);
    loop_source_free(a);
}

static void test_signal(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    LoopSource *s;
    Seen seen = {0};

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(loop_add_signal(loop, SIGUSR1, on_count, &seen, &s), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(loop_run_once(loop, 1000000), 1);
    assert_int_equal(seen.count, 1);
    loop_source_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timer_rearms),
        cmocka_unit_test(test_io_and_free_while_dispatching),
        cmocka_unit_test(test_defer_runs_once),
        cmocka_unit_test(test_signal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
