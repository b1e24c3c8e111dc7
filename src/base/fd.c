/* SPDX-License-Identifier: MIT */

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

int fd_close(int fd)
{
    int saved_errno = errno;

    if (fd >= 0)
        close(fd);
    errno = saved_errno;
    return -EBADF;
}

ssize_t fd_read_full(int fd, void *buffer, size_t n)
{
    size_t done = 0;

    while (done < n) {
        ssize_t k = read(fd, (char *)buffer + done, n - done);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        if (k == 0)
            break;
        done += (size_t)k;
    }
    return (ssize_t)done;
}

int fd_write_full(int fd, const void *buffer, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, buffer, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        buffer = (const char *)buffer + k;
        n -= (size_t)k;
    }
    return 0;
}

int fd_set_nonblock(int fd, bool nonblock)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    flags = nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

int fd_set_cloexec(int fd, bool cloexec)
{
    return fcntl(fd, F_SETFD, cloexec ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int fd_read_all(int fd, size_t max, char **ret, size_t *ret_size)
{
    _cleanup_free_ char *buffer = NULL;
    size_t size = 0, allocated = 0;

    for (;;) {
        ssize_t k;

        if (allocated - size < 2) {
            size_t want = allocated ? allocated * 2 : 4096;
            char *p = realloc(buffer, want);

            if (!p)
                return -ENOMEM;
            buffer = p;
            allocated = want;
        }
        k = read(fd, buffer + size, allocated - size - 1);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        if (k == 0)
            break;
        size += (size_t)k;
        if (size > max)
            return -EFBIG;
    }
    buffer[size] = 0;
    *ret = TAKE_PTR(buffer);
    if (ret_size)
        *ret_size = size;
    return 0;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
    size_t n = strlen(path);

    if (n >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path, path, n + 1);
    return 0;
}

int fd_listen_unix(const char *path, mode_t mode)
{
    _cleanup_close_ int fd = -EBADF;
    struct sockaddr_un sa;
    mode_t old;
    int r;

    r = unix_address(path, &sa);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    /* The mode must hold from the first moment, so it comes from the umask, not from a later chmod. */
    old = umask(0777 & ~mode);
    r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
    umask(old);
    if (r < 0)
        return r;
    if (listen(fd, SOMAXCONN) < 0)
        return -errno;
    return TAKE_FD(fd);
}

int fd_connect_unix(const char *path)
{
    _cleanup_close_ int fd = -EBADF;
    struct sockaddr_un sa;
    int r;

    r = unix_address(path, &sa);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return -errno;
    return TAKE_FD(fd);
}
