/* SPDX-License-Identifier: MIT */

#include "agent/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/fd.h"

enum {
    COPY_DEPTH_MAX = 200,
    COPY_XATTR_LIST_MAX = 64 * 1024,
    COPY_XATTR_VALUE_MAX = 64 * 1024,
    COPY_CHUNK = 4 * 1024 * 1024,
};

/* An object by the name of its descriptor, which may be O_PATH (a symbolic link's is). */
typedef struct FdPath {
    char text[40];
} FdPath;

static FdPath fd_path(int fd)
{
    FdPath p;

    snprintf(p.text, sizeof(p.text), "/proc/self/fd/%i", fd);
    return p;
}

/* The file systems that volumes are on take every attribute that erofs can have; one that is refused is an
 * error, not a silent loss, except where the kernel has no such class at all. */
static int copy_xattrs(int from, int to)
{
    _cleanup_free_ char *names = malloc(COPY_XATTR_LIST_MAX), *value = malloc(COPY_XATTR_VALUE_MAX);
    FdPath source = fd_path(from), target = fd_path(to);
    ssize_t n;

    if (!names || !value)
        return -ENOMEM;
    n = listxattr(source.text, names, COPY_XATTR_LIST_MAX);
    if (n < 0)
        return errno == EOPNOTSUPP ? 0 : -errno;
    for (const char *name = names; name < names + n; name += strlen(name) + 1) {
        ssize_t size;

        /* The overlay's own notes about the image's layers. */
        if (strncmp(name, "trusted.overlay.", 16) == 0)
            continue;
        size = getxattr(source.text, name, value, COPY_XATTR_VALUE_MAX);
        if (size < 0)
            return -errno;
        if (setxattr(target.text, name, value, (size_t)size, 0) < 0 && errno != EOPNOTSUPP)
            return -errno;
    }
    return 0;
}

/* Owner before mode and attributes: changing it clears set-user-id bits and file capabilities. */
static int copy_attributes(int from, int to, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    FdPath target = fd_path(to);
    int r;

    if (chown(target.text, st->st_uid, st->st_gid) < 0 || chmod(target.text, st->st_mode & 07777) < 0)
        return -errno;
    r = copy_xattrs(from, to);
    if (r < 0)
        return r;
    return utimensat(AT_FDCWD, target.text, times, 0) < 0 ? -errno : 0;
}

static int copy_contents(int from, int to)
{
    for (;;) {
        ssize_t n = sendfile(to, from, NULL, COPY_CHUNK);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
    }
}

static int copy_regular(int from_dir, int to_dir, const char *name, const struct stat *st)
{
    _cleanup_close_ int from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), to = -EBADF;
    int r;

    if (from < 0)
        return -errno;
    to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return -errno;
    r = copy_contents(from, to);
    return r < 0 ? r : copy_attributes(from, to, st);
}

static int copy_symlink(int from_dir, int to_dir, const char *name, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    char target[4096];
    ssize_t n = readlinkat(from_dir, name, target, sizeof(target) - 1);

    if (n < 0)
        return -errno;
    target[n] = 0;
    if (symlinkat(target, to_dir, name) < 0 ||
        fchownat(to_dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        utimensat(to_dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

static int copy_special(int from_dir, int to_dir, const char *name, const struct stat *st)
{
    _cleanup_close_ int from = openat(from_dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), to = -EBADF;

    if (from < 0)
        return -errno;
    if (mknodat(to_dir, name, st->st_mode & S_IFMT, st->st_rdev) < 0)
        return -errno;
    to = openat(to_dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return to < 0 ? -errno : copy_attributes(from, to, st);
}

static int copy_children(int from_fd, int to_fd, unsigned depth, Error *e);

static int copy_subdirectory(int from_dir, int to_dir, const char *name, const struct stat *st, unsigned depth,
                             Error *e)
{
    _cleanup_close_ int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                        to = -EBADF;
    int r;

    if (from < 0)
        return -errno;
    if (mkdirat(to_dir, name, 0700) < 0)
        return -errno;
    to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (to < 0)
        return -errno;
    r = copy_children(from, to, depth + 1, e);
    return r < 0 ? r : copy_attributes(from, to, st);
}

static int copy_child(int from_dir, int to_dir, const char *name, unsigned depth, Error *e)
{
    struct stat st;

    if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return copy_subdirectory(from_dir, to_dir, name, &st, depth, e);
    if (S_ISREG(st.st_mode))
        return copy_regular(from_dir, to_dir, name, &st);
    if (S_ISLNK(st.st_mode))
        return copy_symlink(from_dir, to_dir, name, &st);
    return copy_special(from_dir, to_dir, name, &st);
}

static int copy_children(int from_fd, int to_fd, unsigned depth, Error *e)
{
    _cleanup_closedir_ DIR *dir = NULL;
    struct dirent *de;
    int fd;

    if (depth > COPY_DEPTH_MAX)
        return error_set(e, -ELOOP, "more than %i directories in each other", COPY_DEPTH_MAX);
    fd = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        fd_close(fd);
        return -errno;
    }
    while ((errno = 0, de = readdir(dir))) {
        int r;

        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        r = copy_child(from_fd, to_fd, de->d_name, depth, e);
        /* The innermost failure says what it was. */
        if (r < 0)
            return e && e->number ? r : error_set_errno(e, r, "cannot copy \"%s\"", de->d_name);
    }
    return -errno;
}

int copy_directory(int source_fd, int target_fd, Error *e)
{
    struct stat st;
    int r;

    if (fstat(source_fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the directory's attributes");
    r = copy_children(source_fd, target_fd, 0, e);
    if (r < 0)
        return e && e->number ? r : error_set_errno(e, r, "cannot read the directory");
    r = copy_attributes(source_fd, target_fd, &st);
    return r < 0 ? error_set_errno(e, r, "cannot set the attributes of the copy") : 0;
}
