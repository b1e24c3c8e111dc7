/* SPDX-License-Identifier: MIT */

#include "ctl/command.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/process.h"

enum { ERRORS_MAX = 4096 };

typedef struct Output {
    int fd;
    char *text;
    size_t n, size;
} Output;

static void output_clear(Output *output)
{
    fd_close(output->fd);
    free(output->text);
}

/* Makes a pipe whose read end is the output's; gives the other end. */
static int output_init(Output *output, size_t max, int *ret_write_fd)
{
    int fds[2];

    output->text = malloc(max + 1);
    if (!output->text)
        return -ENOMEM;
    output->size = max + 1;
    output->text[0] = 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    output->fd = fds[0];
    *ret_write_fd = fds[1];
    return 0;
}

/* Reads what is there. Of more than fits the rest is read and dropped, and `n` then equals `size`. */
static int output_read(Output *output)
{
    char rest[4096];
    bool full = output->n >= output->size - 1;
    ssize_t k = full ? read(output->fd, rest, sizeof(rest))
                     : read(output->fd, output->text + output->n, output->size - 1 - output->n);

    if (k < 0)
        return errno == EINTR ? 0 : -errno;
    if (k == 0) {
        output->fd = fd_close(output->fd);
        return 0;
    }
    if (full) {
        output->n = output->size;
        return 0;
    }
    output->n += (size_t)k;
    output->text[output->n] = 0;
    return 0;
}

/* Until both are at their end, or the deadline. */
static int collect(Output *out, Output *err, uint64_t timeout_usec)
{
    uint64_t deadline = loop_now() + timeout_usec;

    while (out->fd >= 0 || err->fd >= 0) {
        struct pollfd p[2] = {{.fd = out->fd, .events = POLLIN}, {.fd = err->fd, .events = POLLIN}};
        uint64_t now = loop_now();
        int r = 0;

        if (now >= deadline)
            return -ETIMEDOUT;
        if (poll(p, 2, (int)((deadline - now) / USEC_PER_MSEC) + 1) < 0 && errno != EINTR)
            return -errno;
        if (p[0].revents)
            r = output_read(out);
        if (r >= 0 && p[1].revents)
            r = output_read(err);
        if (r < 0)
            return r;
    }
    return 0;
}

static const char *last_line(char *text)
{
    size_t n = strlen(text);
    char *line;

    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = 0;
    line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

int command_output(const char *const *argv, size_t max, uint64_t timeout_usec, char **ret, Error *e)
{
    _cleanup_(output_clear) Output out = {.fd = -EBADF}, err = {.fd = -EBADF};
    _cleanup_close_ int pidfd = -EBADF, out_fd = -EBADF, err_fd = -EBADF;
    ProcessSpec spec = {.argv = argv, .stdin_fd = -1};
    _cleanup_free_ char *status_text = NULL;
    struct pollfd p;
    int r, status = 0;
    pid_t pid;

    r = output_init(&out, max, &out_fd);
    if (r >= 0)
        r = output_init(&err, ERRORS_MAX, &err_fd);
    if (r < 0)
        return error_set_errno(e, r, "cannot run %s", argv[0]);
    spec.stdout_fd = out_fd;
    spec.stderr_fd = err_fd;
    r = process_spawn(&spec, &pid, &pidfd, e);
    if (r < 0)
        return r;
    out_fd = fd_close(out_fd);
    err_fd = fd_close(err_fd);
    r = collect(&out, &err, timeout_usec);
    if (r < 0)
        (void)process_kill(pidfd, SIGKILL);
    p = (struct pollfd){.fd = pidfd, .events = POLLIN};
    if (poll(&p, 1, (int)(timeout_usec / USEC_PER_MSEC)) <= 0) /* closed its output, but goes on */
        (void)process_kill(pidfd, SIGKILL);
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    (void)process_reap(pidfd, &status);
    if (r < 0)
        return error_set_errno(e, r, "cannot read what %s prints", argv[0]);
    if (status != 0) {
        status_text = process_status_string(status);
        return error_set(e, -EIO, "%s ended with %s: %s", argv[0], status_text ?: "a failure",
                         last_line(err.text));
    }
    if (out.n >= out.size)
        return error_set(e, -EFBIG, "%s prints more than %zu bytes", argv[0], max);
    *ret = TAKE_PTR(out.text);
    return 0;
}

char *command_find(const char *program, const char *path)
{
    if (strchr(program, '/'))
        return access(program, X_OK) >= 0 ? strdup(program) : NULL;
    while (*path) {
        size_t n = strcspn(path, ":");
        _cleanup_free_ char *candidate = string_printf("%.*s/%s", (int)n, path, program);

        if (!candidate)
            return NULL;
        if (n > 0 && access(candidate, X_OK) >= 0)
            return TAKE_PTR(candidate);
        path += n + (path[n] == ':');
    }
    return NULL;
}

int version_parse(const char *text, unsigned *ret_major, unsigned *ret_minor)
{
    for (const char *p = text; *p; p++) {
        unsigned major, minor;

        /* Not in the middle of a word, such as the 64 of "x86_64". */
        if (!isdigit((unsigned char)*p))
            continue;
        if (p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '_' || p[-1] == '.') &&
            !(p[-1] == 'v' && (p == text + 1 || !isalnum((unsigned char)p[-2]))))
            continue;
        if (sscanf(p, "%4u.%4u", &major, &minor) == 2) {
            *ret_major = major;
            *ret_minor = minor;
            return 0;
        }
    }
    return -EINVAL;
}
