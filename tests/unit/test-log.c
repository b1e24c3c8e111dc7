/* SPDX-License-Identifier: MIT */

/* Log lines and trace points. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/trace.h"

static int pipe_fds[2];

static int setup(void **state)
{
    return pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK);
}

static int teardown(void **state)
{
    log_setup(STDERR_FILENO, LOG_INFO, false, NULL);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return 0;
}

static void assert_logged(const char *text)
{
    char buffer[4096] = "";
    ssize_t n = read(pipe_fds[0], buffer, sizeof(buffer) - 1);

    assert_true(n >= 0 || errno == EAGAIN);
    assert_string_equal(buffer, text);
}

static void test_lines(void **state)
{
    log_setup(pipe_fds[1], LOG_INFO, false, NULL);
    log_info("plain %i", 5);
    assert_logged("plain 5\n");
    log_setup(pipe_fds[1], LOG_INFO, true, "k8s.io/pod");
    log_warning("with all");
    assert_logged("<4>k8s.io/pod: with all\n");
}

static void test_levels(void **state)
{
    log_setup(pipe_fds[1], LOG_WARNING, false, NULL);
    assert_int_equal(log_get_max_level(), LOG_WARNING);
    log_info("not this");
    log_debug("nor this");
    log_error("but this");
    assert_logged("but this\n");
    log_set_max_level(LOG_DEBUG);
    log_debug("now");
    assert_logged("now\n");
}

/* A guest's words cannot begin a line of their own. */
static void test_one_line(void **state)
{
    log_setup(pipe_fds[1], LOG_INFO, true, "pod");
    log_error("no: %s", "x\n<0>kernel: forged\r\x1b[2J\x7f");
    assert_logged("<3>pod: no: x <0>kernel: forged  [2J \n");
}

static void test_long_line(void **state)
{
    char text[5000], buffer[6000] = "";
    ssize_t n;

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    log_setup(pipe_fds[1], LOG_INFO, false, "t");
    log_info("%s", text);
    n = read(pipe_fds[0], buffer, sizeof(buffer));
    assert_in_range(n, 1000, 2048);
    assert_memory_equal(buffer, "t: xxx", 6);
    assert_int_equal(buffer[n - 1], '\n');
}

static void test_errno(void **state)
{
    log_setup(pipe_fds[1], LOG_INFO, false, NULL);
    assert_int_equal(log_error_errno(-ENOENT, "cannot open %s", "/x"), -ENOENT);
    assert_logged("cannot open /x: No such file or directory\n");
    assert_int_equal(log_error_errno(-99999, "odd"), -99999);
    assert_logged("odd: unknown error\n");
    errno = EXDEV;
    log_info("keeps errno: %m");
    assert_int_equal(errno, EXDEV);
    assert_logged("keeps errno: Invalid cross-device link\n");
}

/* A reader that takes nothing holds nobody back. */
static void test_full(void **state)
{
    static const char block[4096];

    while (write(pipe_fds[1], block, sizeof(block)) > 0)
        continue;
    log_setup(pipe_fds[1], LOG_INFO, false, NULL);
    errno = EXDEV;
    log_info("lost");
    assert_int_equal(errno, EXDEV);
}

static void test_trace(void **state)
{
    char buffer[200] = "", *end;

    log_setup(pipe_fds[1], LOG_DEBUG, false, NULL);
    TRACE("test.trace.reached");
    assert_true(read(pipe_fds[0], buffer, sizeof(buffer) - 1) > 0);
    assert_int_equal(strncmp(buffer, "trace test.trace.reached ", 25), 0);
    assert_true(strtoull(buffer + 25, &end, 10) > 0);
    assert_string_equal(end, "\n");
}

static int status_of_fault(const char *point, const char *action)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        setenv("CLOUDHV_FAULT_POINT", point, 1);
        setenv("CLOUDHV_FAULT_ACTION", action, 1);
        TRACE("test.trace.fault");
        _exit(7);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return status;
}

/* Only what is named is hit, and only in builds that are made for it. */
static void test_faults(void **state)
{
    int killed = status_of_fault("test.trace.fault", "kill"),
        stopped = status_of_fault("test.trace.fault", "stop");
    int other = status_of_fault("test.trace.other", "kill"),
        unknown = status_of_fault("test.trace.fault", "dance");

    assert_true(WIFEXITED(other) && WEXITSTATUS(other) == 7);
    assert_true(WIFEXITED(unknown) && WEXITSTATUS(unknown) == 7);
#if CLOUDHV_FAULT_INJECTION
    assert_true(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
    assert_true(WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGSTOP);
#else
    assert_true(WIFEXITED(killed) && WEXITSTATUS(killed) == 7);
    assert_true(WIFEXITED(stopped) && WEXITSTATUS(stopped) == 7);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errno, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
