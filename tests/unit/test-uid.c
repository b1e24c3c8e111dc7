/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fs.h"
#include "base/process.h"
#include "sandbox/uid.h"

/* A range that no installation has. The registry is the host's own: tests need root. */
#define BASE ((uid_t)2013265920)

static void test_taken_once_and_run_out(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    uid_t a = 0, b = 0, c = 0;

    if (geteuid() != 0)
        skip();
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/a", &a, NULL), 0);
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/b", &b, NULL), 0);
    assert_int_not_equal(a, b);
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/c", &c, &e), -EUSERS);
    assert_non_null(strstr(e.message, "all 2 uids"));
    uid_give(a, "/nonexistent/b"); /* not b's to give */
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/c", &c, NULL), -EUSERS);
    uid_give(a, "/nonexistent/a");
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/c", &c, NULL), 0);
    assert_int_equal(c, a);
    uid_give(b, "/nonexistent/b");
    uid_give(c, "/nonexistent/c");
}

static void test_moved(void **state)
{
    uid_t a = 0, b = 0;

    if (geteuid() != 0)
        skip();
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/a", &a, NULL), 0);
    assert_int_equal(uid_move(a, "/nonexistent/b", "/nonexistent/c"), -ESTALE);
    assert_true(uid_belongs(a, "/nonexistent/a"));
    assert_int_equal(uid_move(a, "/nonexistent/a", "/nonexistent/c"), 0);
    assert_false(uid_belongs(a, "/nonexistent/a"));
    assert_int_equal(uid_find("/nonexistent/c", &b), 1);
    assert_int_equal(b, a);
    uid_give(a, "/nonexistent/c");
    assert_int_equal(uid_find("/nonexistent/c", &b), 0);
}

static int become(void *userdata)
{
    const uid_t *uid = userdata;

    return setresuid(*uid, *uid, *uid) < 0 ? -errno : 0;
}

static int start_as(uid_t uid)
{
    const char *argv[] = {"sleep", "1000", NULL};
    ProcessSpec spec = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .prepare = become, .userdata = &uid};
    int pidfd;
    pid_t pid;

    assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
    return pidfd;
}

static void assert_killed(int pidfd)
{
    int status = 0;

    assert_int_equal(process_reap(pidfd, &status), 1);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    close(pidfd);
}

static void test_only_the_owner_kills(void **state)
{
    uid_t uid;
    int pidfd, status;

    if (geteuid() != 0)
        skip();
    assert_int_equal(uid_take(BASE, 2, "/nonexistent/a", &uid, NULL), 0);
    pidfd = start_as(uid);
    assert_int_equal(uid_kill(uid, "/nonexistent/b", 1000000), 0);
    assert_int_equal(process_reap(pidfd, &status), 0);
    assert_int_equal(uid_kill(uid, "/nonexistent/a", 5000000), 1);
    assert_killed(pidfd);
    uid_give(uid, "/nonexistent/a");
}

static void test_reclaim_spares_others_and_the_living(void **state)
{
    char dir[] = "/tmp/test-uid.XXXXXX";
    _cleanup_free_ char *alive = NULL, *dead = NULL, *beside = NULL;
    uid_t uids[3], again;
    int pidfd;

    if (geteuid() != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    alive = fs_join(dir, "alive.json");
    dead = fs_join(dir, "dead.json");
    beside = string_printf("%s-of-another/dead.json", dir);
    assert_int_equal(fs_write_file_atomic(alive, "{}", 2, 0600), 0);
    assert_int_equal(uid_take(BASE, 3, alive, &uids[0], NULL), 0);
    assert_int_equal(uid_take(BASE, 3, dead, &uids[1], NULL), 0);
    assert_int_equal(uid_take(BASE, 3, beside, &uids[2], NULL), 0);
    pidfd = start_as(uids[1]);
    assert_int_equal(uid_reclaim(dir), 0);
    assert_killed(pidfd);
    assert_int_equal(uid_take(BASE, 3, dead, &again, NULL), 0);
    assert_int_equal(again, uids[1]);
    assert_int_equal(uid_take(BASE, 3, dead, &again, NULL), -EUSERS);
    uid_give(uids[0], alive);
    uid_give(uids[1], dead);
    uid_give(uids[2], beside);
    assert_int_equal(fs_remove_tree(dir), 0);
}

static void test_find(void **state)
{
    uid_t uid, found = 0;

    if (geteuid() != 0)
        skip();
    assert_int_equal(uid_find("/no/such/owner.json", &found), 0);
    assert_int_equal(found, 0);
    assert_int_equal(uid_take(BASE, 3, "/tmp/test-uid-find.json", &uid, NULL), 0);
    assert_int_equal(uid_find("/tmp/test-uid-find.json", &found), 1);
    assert_int_equal(found, uid);
    uid_give(uid, "/tmp/test-uid-find.json");
    assert_int_equal(uid_find("/tmp/test-uid-find.json", &found), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken_once_and_run_out),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_only_the_owner_kills),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_reclaim_spares_others_and_the_living),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
