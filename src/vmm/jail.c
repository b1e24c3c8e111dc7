/* SPDX-License-Identifier: MIT */

#include "vmm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"

/* Where programs and their libraries are, with or without a merged /usr. */
static const char *const system_directories[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"};

static const char *const system_files[] = {"/etc/ld.so.cache"};

int jail_init(Jail *jail, uid_t uid, gid_t gid, Error *e)
{
    if (uid == 0 || gid == 0)
        return error_set(e, -EINVAL, "a VMM must not run as root");
    *jail = (Jail){.uid = uid, .gid = gid, .device_gid = JAIL_NO_GID};
    return 0;
}

int jail_add_file(Jail *jail, const JailFile *file, Error *e)
{
    if (jail->n_files == ELEMENTSOF(jail->files))
        return error_set(e, -E2BIG, "too many files in the jail of a VMM, at %s", file->source);
    if (file->source[0] != '/' || strstr(file->source, "/../") || strstr(file->target ?: "", "/../"))
        return error_set(e, -EINVAL, "%s is not an absolute path without \"..\"", file->source);
    jail->files[jail->n_files++] = *file;
    return 0;
}

int jail_add_device(Jail *jail, const char *path, Error *e)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return error_set_errno(e, -errno, "cannot use %s", path);
    if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(e, -ENODEV, "%s is not a device", path);
    if ((st.st_mode & (S_IROTH | S_IWOTH)) != (S_IROTH | S_IWOTH)) {
        if ((st.st_mode & (S_IRGRP | S_IWGRP)) != (S_IRGRP | S_IWGRP))
            return error_set(e, -EACCES, "%s may not be used by its group, so a VMM cannot be let near it",
                             path);
        jail->device_gid = st.st_gid;
    }
    return jail_add_file(jail, &(JailFile){.source = path, .writable = true, .device = true}, e);
}

/* A detached copy of a mount (or of a part of one), with its own flags. */
static int clone_mount(const JailFile *file)
{
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_NOSUID | (file->writable ? 0 : MOUNT_ATTR_RDONLY) |
                    (file->device ? MOUNT_ATTR_NOEXEC : MOUNT_ATTR_NODEV),
    };
    _cleanup_close_ int fd = -EBADF;

    fd = open_tree(AT_FDCWD, file->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (fd < 0)
        return -errno;
    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* Makes a mount point of the right kind, and the directories above it. `path` begins with a slash. */
static int make_mount_point(int root, const char *path, bool directory)
{
    char buffer[PATH_MAX];
    int fd;

    if (snprintf(buffer, sizeof(buffer), "%s", path + 1) >= (int)sizeof(buffer))
        return -ENAMETOOLONG;
    for (char *p = strchr(buffer, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdirat(root, buffer, 0755) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    if (directory)
        return mkdirat(root, buffer, 0755) < 0 && errno != EEXIST ? -errno : 0;
    fd = openat(root, buffer, O_CREAT | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int put_file(int root, const JailFile *file)
{
    const char *target = file->target ?: file->source;
    _cleanup_close_ int tree = clone_mount(file);
    struct stat st;
    int r;

    if (tree < 0)
        return tree;
    if (fstat(tree, &st) < 0)
        return -errno;
    r = make_mount_point(root, target, S_ISDIR(st.st_mode));
    if (r < 0)
        return r;
    if (move_mount(tree, "", root, target + 1, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

static int put_system_directory(int root, const char *path)
{
    char target[64];
    ssize_t k = readlink(path, target, sizeof(target) - 1);

    if (k >= 0) {
        target[k] = 0;
        return symlinkat(target, root, path + 1) < 0 ? -errno : 0;
    }
    if (errno != EINVAL)
        return errno == ENOENT ? 0 : -errno;
    return put_file(root, &(JailFile){.source = path});
}

static bool below_usr(const char *path)
{
    return strncmp(path, "/usr/", 5) == 0;
}

static int new_tmpfs(void)
{
    _cleanup_close_ int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    int fd;

    if (fs < 0)
        return -errno;
    if (fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "size", "64k", 0) < 0 ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return fd < 0 ? -errno : fd;
}

/* A directory where root can make mount points later, as the root directory is read-only by then. */
static int put_plugs(int root, const char *path)
{
    _cleanup_close_ int fs = new_tmpfs();

    if (fs < 0)
        return fs;
    if (mkdirat(root, path + 1, 0755) < 0)
        return -errno;
    return move_mount(fs, "", root, path + 1, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -errno : 0;
}

static int fill_root(int root, const Jail *jail)
{
    int r;

    for (size_t i = 0; i < ELEMENTSOF(system_directories); i++) {
        r = put_system_directory(root, system_directories[i]);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < ELEMENTSOF(system_files); i++) {
        r = put_file(root, &(JailFile){.source = system_files[i]});
        if (r < 0 && r != -ENOENT)
            return r;
    }
    r = put_file(root, &(JailFile){.source = "/dev/null", .writable = true, .device = true});
    if (r < 0)
        return r;
    if (jail->plugs) {
        r = put_plugs(root, jail->plugs);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < jail->n_files; i++) {
        /* What is in /usr is there already. */
        if (below_usr(jail->files[i].target ?: jail->files[i].source))
            continue;
        r = put_file(root, &jail->files[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A root directory of its own: an empty tmpfs with copies of the mounts that are needed. */
static int change_root(const Jail *jail)
{
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    _cleanup_close_ int root = -EBADF;
    int r;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    root = new_tmpfs();
    if (root < 0)
        return root;
    /* Mounts can only be moved below one that is attached. Over "/" it covers nothing for those whose root
     * that is: their lookups begin below it. */
    if (move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    r = fill_root(root, jail);
    if (r < 0)
        return r;
    if (mount_setattr(root, "", AT_EMPTY_PATH, &read_only, sizeof(read_only)) < 0)
        return -errno;
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return -errno;
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return -errno;
    return 0;
}

static int drop_privileges(const Jail *jail)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

    for (unsigned long cap = 0; cap <= 63; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* the kernel has no more */
                break;
            return -errno;
        }
    if (setgroups(jail->device_gid != JAIL_NO_GID, &jail->device_gid) < 0)
        return -errno;
    if (setresgid(jail->gid, jail->gid, jail->gid) < 0 || setresuid(jail->uid, jail->uid, jail->uid) < 0)
        return -errno;
    if (syscall(SYS_capset, &header, none) < 0)
        return -errno;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -errno;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

/* The parent learns the number; which step it was is worth knowing too. */
static int failed(int number, const char *step)
{
    dprintf(STDERR_FILENO, "cannot confine the VMM, %s\n", step);
    return number;
}

int jail_enter(void *userdata)
{
    const Jail *jail = userdata;
    int r;

    if (setsid() < 0)
        return failed(-errno, "new session");
    if (setrlimit(RLIMIT_CORE, &(struct rlimit){0}) < 0)
        return failed(-errno, "no core dumps");
    if (jail->max_fds > 0 &&
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = jail->max_fds, .rlim_max = jail->max_fds}) < 0)
        return failed(-errno, "no more descriptors");
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return failed(-errno, "new namespaces");
    umask(0);
    r = change_root(jail);
    umask(077);
    if (r < 0)
        return failed(r, "new root directory");
    r = drop_privileges(jail);
    return r < 0 ? failed(r, "no privileges") : 0;
}
