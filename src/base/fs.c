/* SPDX-License-Identifier: MIT */

#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"

int fs_read_file(const char *path, size_t max, char **ret, size_t *ret_size)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return -errno;
    return fd_read_all(fd, max, ret, ret_size);
}

int fs_write_file_atomic(const char *path, const void *data, size_t n, mode_t mode)
{
    _cleanup_free_ char *temporary = string_printf("%s.XXXXXX", path);
    _cleanup_close_ int fd = -EBADF;
    int r;

    if (!temporary)
        return -ENOMEM;
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = fd_write_full(fd, data, n);
    if (r >= 0 && fchmod(fd, mode) < 0)
        r = -errno;
    if (r >= 0 && fsync(fd) < 0)
        r = -errno;
    if (r >= 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r < 0)
        unlink(temporary);
    return r;
}

int fs_write_existing(const char *path, const char *text)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    size_t n = strlen(text);
    ssize_t k;

    if (fd < 0)
        return -errno;
    k = write(fd, text, n);
    if (k < 0)
        return -errno;
    return (size_t)k == n ? 0 : -EIO;
}

int fs_mkdir_p(const char *path, mode_t mode)
{
    _cleanup_free_ char *copy = strdup(path);
    struct stat st;

    if (!copy)
        return -ENOMEM;
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(copy, 0755) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    if (mkdir(copy, mode) >= 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (stat(copy, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* Removes the contents of an open directory; takes the descriptor. */
static int remove_children(int dir_fd, dev_t device)
{
    _cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
    struct dirent *de;
    int r = 0;

    if (!dir) {
        r = -errno;
        close(dir_fd);
        return r;
    }
    while ((errno = 0, de = readdir(dir))) {
        struct stat st;

        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno != ENOENT)
                r = r ?: -errno;
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            int child, k;

            if (st.st_dev != device) {
                r = r ?: -EBUSY;
                continue;
            }
            child = openat(dirfd(dir), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (child < 0) {
                r = r ?: -errno;
                continue;
            }
            k = remove_children(child, device);
            if (k < 0)
                r = r ?: k;
        }
        if (unlinkat(dirfd(dir), de->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
            r = r ?: -errno;
    }
    return r ?: -errno;
}

int fs_remove_tree(const char *path)
{
    struct stat st;
    int fd, r;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISDIR(st.st_mode))
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    r = remove_children(fd, st.st_dev);
    if (r < 0)
        return r;
    return rmdir(path) < 0 && errno != ENOENT ? -errno : 0;
}

char *fs_join(const char *a, const char *b)
{
    size_t n = strlen(a);

    while (n > 0 && a[n - 1] == '/')
        n--;
    while (*b == '/')
        b++;
    return string_printf("%.*s/%s", (int)n, a, b);
}

char *string_printf(const char *format, ...)
{
    char *s;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vasprintf(&s, format, ap);
    va_end(ap);
    return n < 0 ? NULL : s;
}
