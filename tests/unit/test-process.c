/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/process.h"

static void wait_for(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, 10000), 1);
}

static void test_output_and_status(void **state)
{
    const char *argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    _cleanup_close_ int pidfd = -EBADF;
    int out[2], status = 0;
    char buffer[16];
    pid_t pid;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    ProcessSpec spec = {.argv = argv, .stdin_fd = -1, .stdout_fd = out[1], .stderr_fd = -1};
    assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
    close(out[1]);
    assert_int_equal(fd_read_full(out[0], buffer, sizeof(buffer)), 4);
    assert_memory_equal(buffer, "out\n", 4);
    close(out[0]);
    wait_for(pidfd);
    assert_int_equal(process_reap(pidfd, &status), 1);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    _cleanup_free_ char *text = process_status_string(status);
    assert_string_equal(text, "exit status 3");
}

static void test_missing_program(void **state)
{
    const char *argv[] = {"/nonexistent/program", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    int pidfd = -EBADF;
    pid_t pid = 0;
    ProcessSpec spec = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};

    assert_int_equal(process_spawn(&spec, &pid, &pidfd, &e), -ENOENT);
    assert_string_equal(e.message, "cannot execute /nonexistent/program: No such file or directory");
    assert_int_equal(pid, 0);
}

static void test_descriptors_do_not_leak(void **state)
{
    const char *argv[] = {"sh", "-c", "ls /proc/self/fd | tr '\\n' ' '", NULL};
    _cleanup_close_ int pidfd = -EBADF;
    int leaked, passed, out[2], status = 0;
    char buffer[256] = {0}, expected[16];
    pid_t pid;

    /* Without CLOEXEC on purpose, and on a number that the child does not come to use itself. */
    leaked = dup2(STDERR_FILENO, 200);
    passed = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_true(leaked >= 0 && passed >= 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    ProcessSpec spec = {.argv = argv,
                        .stdin_fd = -1,
                        .stdout_fd = out[1],
                        .stderr_fd = -1,
                        .pass_fds = &passed,
                        .n_pass_fds = 1};
    assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
    close(out[1]);
    assert_true(fd_read_full(out[0], buffer, sizeof(buffer) - 1) > 0);
    close(out[0]);
    snprintf(expected, sizeof(expected), " %i ", passed);
    assert_non_null(strstr(buffer, expected));
    snprintf(expected, sizeof(expected), " %i ", leaked);
    assert_null(strstr(buffer, expected));
    close(leaked);
    close(passed);
    wait_for(pidfd);
    assert_int_equal(process_reap(pidfd, &status), 1);
}

static void test_kill_and_identity(void **state)
{
    const char *argv[] = {"sleep", "1000", NULL};
    _cleanup_close_ int pidfd = -EBADF, again = -EBADF;
    uint64_t start = 0;
    int status = 0;
    pid_t pid;
    ProcessSpec spec = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};

    assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
    assert_int_equal(process_start_time(pid, &start), 0);
    assert_true(start > 0);
    assert_int_equal(process_open(pid, start, &again), 0);
    close(again);
    again = -EBADF;
    assert_int_equal(process_open(pid, start + 1, &again), -ESRCH);
    assert_int_equal(process_reap(pidfd, &status), 0);
    assert_int_equal(process_kill(pidfd, SIGKILL), 0);
    wait_for(pidfd);
    assert_int_equal(process_reap(pidfd, &status), 1);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(process_kill(pidfd, SIGKILL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_and_status),
        cmocka_unit_test(test_missing_program),
        cmocka_unit_test(test_descriptors_do_not_leak),
        cmocka_unit_test(test_kill_and_identity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
