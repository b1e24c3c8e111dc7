/* SPDX-License-Identifier: MIT */

#include "vmm/program-version.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/process.h"

/* Reads until the end, or until the time is over. */
static int read_answer(int fd, uint64_t timeout_usec, char answer[static PROGRAM_VERSION_MAX])
{
    uint64_t deadline = loop_now() + timeout_usec;
    size_t n = 0;

    while (n < PROGRAM_VERSION_MAX - 1) {
        uint64_t now = loop_now();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t k;
        int r;

        if (now >= deadline)
            return -ETIMEDOUT;
        r = poll(&p, 1, (int)((deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC));
        if (r < 0 && errno != EINTR)
            return -errno;
        if (r <= 0)
            continue;
        k = read(fd, answer + n, PROGRAM_VERSION_MAX - 1 - n);
        if (k < 0 && errno != EINTR)
            return -errno;
        if (k == 0)
            break;
        n += k > 0 ? (size_t)k : 0;
    }
    answer[n] = 0;
    return 0;
}

int program_version(const char *binary, uint64_t timeout_usec, char answer[static PROGRAM_VERSION_MAX], Error *e)
{
    const char *const argv[] = {binary, "--version", NULL};
    _cleanup_close_ int pidfd = -EBADF, read_fd = -EBADF;
    int fds[2], r;
    siginfo_t si;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot make a pipe");
    read_fd = fds[0];
    r = process_spawn(&(ProcessSpec){.argv = argv, .stdin_fd = -EBADF, .stdout_fd = fds[1], .stderr_fd = fds[1]},
                      &pid, &pidfd, e);
    close(fds[1]);
    if (r < 0)
        return r;
    r = read_answer(read_fd, timeout_usec, answer);
    (void)process_kill(pidfd, SIGKILL);
    (void)waitid((idtype_t)P_PIDFD, (id_t)pidfd, &si, WEXITED);
    return r < 0 ? error_set_errno(e, r, "no answer to \"%s --version\"", binary) : 0;
}
