/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fs.h"
#include "base/process.h"
#include "sandbox/owner.h"

typedef struct Seen {
    unsigned ended, lost;
} Seen;

static void on_event(Owner *owner, OwnerEvent event, void *userdata)
{
    Seen *seen = userdata;

    if (event == OWNER_SHIM_ENDED)
        seen->ended++;
    else
        seen->lost++;
}

static void run_for(Loop *loop, uint64_t usec)
{
    uint64_t end = loop_now() + usec;

    while (loop_now() < end)
        assert_true(loop_run_once(loop, end - loop_now()) >= 0);
}

static pid_t spawn_sleep(uint64_t *start)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        execlp("sleep", "sleep", "1000", NULL);
        _exit(1);
    }
    assert_int_equal(process_start_time(pid, start), 0);
    return pid;
}

static void end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_shim_ends_then_bundle_goes(void **state)
{
    char bundle[] = "/tmp/test-owner.XXXXXX";
    _cleanup_loop_ Loop *loop = NULL;
    Seen seen = {0};
    uint64_t start;
    Owner *owner;
    pid_t pid;

    assert_non_null(mkdtemp(bundle));
    assert_int_equal(loop_new(&loop), 0);
    pid = spawn_sleep(&start);
    assert_int_equal(owner_new(loop, pid, start, bundle, on_event, &seen, &owner, NULL), 0);
    run_for(loop, 20000);
    assert_int_equal(seen.ended + seen.lost, 0);
    end(pid);
    run_for(loop, 100000);
    assert_int_equal(seen.ended, 1);
    assert_int_equal(seen.lost, 0);
    assert_int_equal(rmdir(bundle), 0);
    run_for(loop, 100000);
    assert_int_equal(seen.lost, 1);
    owner_free(owner);
}

static void test_bundle_gone_before_the_shim(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    Seen seen = {0};
    uint64_t start;
    Owner *owner;
    pid_t pid;

    assert_int_equal(loop_new(&loop), 0);
    pid = spawn_sleep(&start);
    assert_int_equal(owner_new(loop, pid, start, "/nonexistent/bundle", on_event, &seen, &owner, NULL), 0);
    end(pid);
    run_for(loop, 100000);
    assert_int_equal(seen.ended, 0);
    assert_int_equal(seen.lost, 1);
    owner_free(owner);
}

static void test_shim_that_has_ended_already(void **state)
{
    _cleanup_loop_ Loop *loop = NULL;
    Seen seen = {0};
    uint64_t start;
    Owner *owner;
    pid_t pid = spawn_sleep(&start);

    end(pid);
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(owner_new(loop, pid, start, "/", on_event, &seen, &owner, NULL), 0);
    assert_int_equal(seen.ended, 0); /* from the loop, not from inside */
    run_for(loop, 50000);
    assert_int_equal(seen.ended, 1);
    owner_free(owner);
    /* The number is in use, but by a later process. */
    assert_int_equal(owner_new(loop, getpid(), 1, "/", on_event, &seen, &owner, NULL), 0);
    run_for(loop, 50000);
    assert_int_equal(seen.ended, 2);
    owner_free(owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shim_ends_then_bundle_goes),
        cmocka_unit_test(test_bundle_gone_before_the_shim),
        cmocka_unit_test(test_shim_that_has_ended_already),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
