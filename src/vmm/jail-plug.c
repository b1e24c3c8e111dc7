/* SPDX-License-Identifier: MIT */

/* Files for a VMM that opens what it gets by path, after it was put into its jail. */

#include "vmm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* What the child does in the jail; it answers by its exit status. */
typedef struct Plug {
    int pidfd;
    int tree; /* negative: only take away */
    bool directory;
    const char *target;
} Plug;

static int make_target(const Plug *p)
{
    int fd;

    if (p->directory)
        return mkdir(p->target, 0755) < 0 ? -errno : 0;
    fd = open(p->target, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int take_away(const char *target)
{
    if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return -errno;
    if (unlink(target) < 0 && errno != ENOENT && (errno != EISDIR || rmdir(target) < 0))
        return -errno;
    return 0;
}

static int in_jail(const Plug *p)
{
    int r;

    if (setns(p->pidfd, CLONE_NEWNS) < 0)
        return -errno;
    r = take_away(p->target);
    if (r < 0 || p->tree < 0)
        return r;
    r = make_target(p);
    if (r < 0)
        return r;
    if (move_mount(p->tree, "", AT_FDCWD, p->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

/* Another mount namespace can only be entered by a process that shares no root directory with anybody. */
static int run_in_jail(const Plug *p)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        umask(0);
        _exit(-in_jail(p));
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (!WIFEXITED(status))
        return -ECHILD;
    return -WEXITSTATUS(status);
}

/* The mount that the descriptor was opened in may be of another namespace (it came from a shim outside of the
 * daemon's), and then can't be copied: so by its path, which must lead to the same file. */
static int clone_by_path(int fd, const char **ret_step)
{
    char proc[64], path[PATH_MAX];
    _cleanup_close_ int tree = -EBADF;
    struct stat a, b;
    ssize_t k;

    *ret_step = "find its path";
    snprintf(proc, sizeof(proc), "/proc/self/fd/%i", fd);
    k = readlink(proc, path, sizeof(path) - 1);
    if (k < 0)
        return -errno;
    path[k] = 0;
    *ret_step = "reach it by its path";
    tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
    if (tree < 0 || fstat(tree, &a) < 0 || fstat(fd, &b) < 0)
        return -errno;
    if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
        return -ESTALE;
    return TAKE_FD(tree);
}

static int clone_file(int fd, bool writable, const char **ret_step)
{
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | (writable ? 0 : MOUNT_ATTR_RDONLY),
    };
    _cleanup_close_ int tree = -EBADF;

    *ret_step = "copy its mount";
    tree = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0 && errno != EINVAL)
        return -errno;
    if (tree < 0)
        tree = clone_by_path(fd, ret_step);
    if (tree < 0)
        return tree;
    *ret_step = "confine its mount";
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return -errno;
    return TAKE_FD(tree);
}

int jail_plug(int pidfd, int fd, const char *target, bool writable, Error *e)
{
    _cleanup_close_ int tree = -EBADF;
    const char *step = "";
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot put a file into the VMM's jail");
    tree = clone_file(fd, writable, &step);
    if (tree < 0)
        return error_set_errno(e, tree, "cannot put a file into the VMM's jail as %s: cannot %s", target, step);
    r = run_in_jail(&(const Plug){.pidfd = pidfd, .tree = tree, .directory = S_ISDIR(st.st_mode), .target = target});
    return r < 0 ? error_set_errno(e, r, "cannot put a file into the VMM's jail as %s", target) : 0;
}

int jail_unplug(int pidfd, const char *target, Error *e)
{
    int r = run_in_jail(&(const Plug){.pidfd = pidfd, .tree = -EBADF, .target = target});

    return r < 0 ? error_set_errno(e, r, "cannot take %s out of the VMM's jail", target) : 0;
}

int jail_let_open(int fd, bool writable, uid_t uid, gid_t gid)
{
    char proc[64];
    struct stat st;
    mode_t mode;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    mode = st.st_mode & 0777;
    /* By way of /proc, for descriptors that were opened with O_PATH. */
    snprintf(proc, sizeof(proc), "/proc/self/fd/%i", fd);
    if (writable) {
        if ((st.st_uid != uid || st.st_gid != gid) && chown(proc, uid, gid) < 0)
            return -errno;
        return (mode & 0600) != 0600 && chmod(proc, mode | 0600) < 0 ? -errno : 0;
    }
    if ((mode & 0004) || (st.st_gid == gid && (mode & 0040)))
        return 0;
    if (st.st_gid != gid && chown(proc, (uid_t)-1, gid) < 0)
        return -errno;
    return !(mode & 0040) && chmod(proc, mode | 0040) < 0 ? -errno : 0;
}
