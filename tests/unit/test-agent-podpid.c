/* SPDX-License-Identifier: MIT */

/* The pod's process namespace, whose first process is this program, started again. */

#include "unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/podpid.h"
#include "base/fs.h"

static pid_t pid_of(const char *path)
{
    return (pid_t)atoi(path + strlen("/proc/"));
}

/* Whether a process here can be protected from the OOM killer. */
static bool may_protect(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(fs_write_existing("/proc/self/oom_score_adj", "-998") < 0 || geteuid() != 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status == 0;
}

static void test_namespace(void **state)
{
    _cleanup_free_ char *words = NULL, *path = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    const char *first = NULL, *again = NULL;
    struct stat ours, theirs;
    Reaper *reaper;
    PodPid *pod;
    Loop *loop;
    pid_t pid;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(reaper_new(loop, &reaper), 0);
    assert_int_equal(podpid_new(reaper, &pod), 0);
    if (podpid_get(pod, &first, &e) < 0) {
        /* Where oom_score_adj cannot be lowered (CAP_SYS_RESOURCE), or no namespace made, it says so, and
         * leaves nothing. */
        assert_non_null(strstr(e.message, "the pod"));
        assert_null(first);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        podpid_free(pod);
        reaper_free(reaper);
        loop_free(loop);
        assert_false(may_protect());
        return;
    }
    pid = pid_of(first);
    assert_int_equal(stat(first, &theirs), 0);
    assert_int_equal(stat("/proc/self/ns/pid", &ours), 0);
    assert_int_not_equal(theirs.st_ino, ours.st_ino);
    assert_int_equal(podpid_get(pod, &again, NULL), 0);
    assert_string_equal(first, again);
    path = string_printf("/proc/%i/cmdline", pid);
    assert_int_equal(fs_read_file(path, 100, &words, NULL), 0);
    assert_string_equal(words, "pod");
    assert_string_equal(words + 4, PODPID_ARGUMENT);
    /* A signal that would end another process does not end it. */
    assert_int_equal(kill(pid, SIGTERM), 0);
    usleep(20000);
    assert_int_equal(kill(pid, 0), 0);
    /* When it ends nevertheless, the next one who asks gets a new one. */
    assert_int_equal(kill(pid, SIGKILL), 0);
    for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
        assert_true(loop_run_once(loop, 50000) >= 0);
    assert_int_equal(podpid_get(pod, &again, NULL), 0);
    assert_int_not_equal(pid_of(again), pid);
    pid = pid_of(again);
    podpid_free(pod);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    reaper_free(reaper);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namespace),
    };

    if (argc == 2 && strcmp(argv[1], PODPID_ARGUMENT) == 0)
        podpid_main();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
