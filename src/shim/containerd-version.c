/* SPDX-License-Identifier: MIT */

#include "shim/containerd-version.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/process.h"
#include "shim/bootstrap.h"

enum {
    OUTPUT_MAX = 4096,
    TIMEOUT_MSEC = 5000,
};

/* Reads what the program prints until it closes its output or the deadline passes. */
static int read_output(int fd, char *buffer, size_t size)
{
    uint64_t deadline = loop_now() + TIMEOUT_MSEC * USEC_PER_MSEC;
    size_t n = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = loop_now();
        ssize_t k;

        if (now >= deadline || poll(&p, 1, (int)((deadline - now) / USEC_PER_MSEC) + 1) == 0)
            return -ETIMEDOUT;
        k = read(fd, buffer + n, size - 1 - n);
        if (k < 0 && errno != EINTR)
            return -errno;
        if (k == 0 || n + (size_t)(k > 0 ? k : 0) == size - 1) {
            buffer[n + (size_t)(k > 0 ? k : 0)] = 0;
            return 0;
        }
        n += (size_t)(k > 0 ? k : 0);
    }
}

static int ask(const char *binary, unsigned *ret, Error *e)
{
    const char *argv[] = {binary, "--version", NULL};
    _cleanup_close_ int out = -EBADF, pidfd = -EBADF;
    ProcessSpec spec = {.argv = argv, .stdin_fd = -1, .stderr_fd = -1};
    char buffer[OUTPUT_MAX];
    struct pollfd p;
    int fds[2], r;
    int status;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot make a pipe");
    out = fds[0];
    spec.stdout_fd = fds[1];
    r = process_spawn(&spec, &pid, &pidfd, e);
    close(fds[1]);
    if (r < 0)
        return r;
    r = read_output(out, buffer, sizeof(buffer));
    (void)process_kill(pidfd, SIGKILL);
    p = (struct pollfd){.fd = pidfd, .events = POLLIN};
    (void)poll(&p, 1, TIMEOUT_MSEC);
    (void)process_reap(pidfd, &status);
    if (r < 0)
        return error_set_errno(e, r, "cannot ask %s for its version", binary);
    if (bootstrap_parse_version(buffer, ret) < 0)
        return error_set(e, -EINVAL, "%s --version names no version", binary);
    return 0;
}

unsigned containerd_version_major(const char *cache_dir, const char *binary, Error *e)
{
    _cleanup_free_ char *path = NULL, *text = NULL, *line = NULL;
    unsigned major = 0;
    struct stat st;

    if (!binary || binary[0] != '/' || stat(binary, &st) < 0) {
        error_set(e, -ENOENT, "containerd's binary \"%s\" is not known by an absolute path", binary ?: "");
        return 0;
    }
    path = string_printf("%s/%llx-%llx-%llx.%09lx", cache_dir, (unsigned long long)st.st_dev,
                         (unsigned long long)st.st_ino, (unsigned long long)st.st_mtim.tv_sec,
                         (unsigned long)st.st_mtim.tv_nsec);
    if (path && fs_read_file(path, 64, &text, NULL) >= 0 && sscanf(text, "%u", &major) == 1)
        return major;
    if (ask(binary, &major, e) < 0)
        return 0;
    line = string_printf("%u\n", major);
    /* Not remembered is not wrong, only slower. */
    if (path && line && fs_mkdir_p(cache_dir, 0700) >= 0)
        (void)fs_write_file_atomic(path, line, strlen(line), 0600);
    return major;
}
