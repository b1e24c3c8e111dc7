/* SPDX-License-Identifier: MIT */

#include "agent/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agent/copy.h"
#include "agent/names.h"
#include "agent/rootfs.h"
#include "base/fd.h"
#include "base/fs.h"

typedef Cloudhv__Agent__V1__GuestVolume GuestVolume;

int volumes_check(GuestVolume *const *volumes, size_t n, Error *e)
{
    if (n > AGENT_VOLUMES_MAX)
        return error_set(e, -EINVAL, "%zu volumes in a container, more than %i", n, AGENT_VOLUMES_MAX);
    for (size_t i = 0; i < n; i++) {
        const GuestVolume *v = volumes[i];

        if (!name_is_valid(v->name))
            return error_set(e, -EINVAL, "not a name for a volume: \"%.140s\"", v->name);
        if (v->copy_up && v->container_path[0] != '/')
            return error_set(e, -EINVAL, "the volume %s has no absolute path in the container", v->name);
        if (v->size_limit && !v->memory && !v->pod)
            return error_set(e, -EINVAL,
                             "the volume %s: a size limit of its own needs memory; on the scratch layer the "
                             "layer's size is the limit",
                             v->name);
    }
    return 0;
}

/* Volumes of several containers may be made at the same time; a pod's must be made by one and only then be
 * seen by the others. Released with the descriptor. */
static int lock_volumes(Error *e)
{
    int fd = open(AGENT_VOLUMES_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open %s", AGENT_VOLUMES_DIR);
    if (flock(fd, LOCK_EX) < 0) {
        int r = error_set_errno(e, -errno, "cannot lock %s", AGENT_VOLUMES_DIR);

        close(fd);
        return r;
    }
    return fd;
}

static int make_tmpfs(const GuestVolume *v, const char *path, Error *e)
{
    _cleanup_free_ char *options = NULL;

    options = v->size_limit ? string_printf("mode=0755,size=%llu", (unsigned long long)v->size_limit)
                            : strdup("mode=0755,size=50%");
    if (!options)
        return error_set(e, -ENOMEM, "out of memory");
    if (mkdir(path, 0755) < 0)
        return error_set_errno(e, -errno, "cannot make the volume %s", v->name);
    if (mount("cloudhv-volume", path, "tmpfs", MS_NODEV | MS_NOSUID, options) < 0) {
        int r = -errno;

        (void)rmdir(path);
        return error_set_errno(e, r, "cannot mount a tmpfs (%s) for the volume %s", options, v->name);
    }
    return 0;
}

static int make_on_scratch(const GuestVolume *v, const char *directory, const char *path, Error *e)
{
    _cleanup_free_ char *target = string_printf("%s/scratch/volumes/%s", directory, v->name);
    int r;

    if (!target)
        return error_set(e, -ENOMEM, "out of memory");
    r = fs_mkdir_p(target, 0755);
    if (r < 0)
        return error_set_errno(e, r, "cannot make the volume %s on the scratch layer", v->name);
    if (symlink(target, path) < 0)
        return error_set_errno(e, -errno, "cannot make the volume %s", v->name);
    return 0;
}

/* Notes that a volume is the container's own. */
static int note_own(const char *directory, const char *name, Error *e)
{
    _cleanup_free_ char *notes = fs_join(directory, "volumes"), *note = NULL;
    _cleanup_close_ int fd = -EBADF;
    int r;

    note = notes ? fs_join(notes, name) : NULL;
    if (!note)
        return error_set(e, -ENOMEM, "out of memory");
    r = fs_mkdir_p(notes, 0700);
    if (r >= 0) {
        fd = open(note, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        r = fd < 0 ? -errno : 0;
    }
    return r < 0 ? error_set_errno(e, r, "cannot note the volume %s", name) : 0;
}

/* Opens a directory of the image, its symbolic links resolved as the container would. */
static int open_in_rootfs(const char *directory, const char *container_path)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    _cleanup_free_ char *root = fs_join(directory, "rootfs");
    _cleanup_close_ int root_fd = -EBADF;
    long fd;

    if (!root)
        return -ENOMEM;
    root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return -errno;
    fd = syscall(SYS_openat2, root_fd, container_path, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

/* Fills a new volume from the image, or gives it the attributes that were asked for. */
static int fill(const GuestVolume *v, const char *directory, const char *path, Error *e)
{
    _cleanup_close_ int target = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), source = -EBADF;

    if (target < 0)
        return error_set_errno(e, -errno, "cannot open the volume %s", v->name);
    if (v->copy_up) {
        source = open_in_rootfs(directory, v->container_path);
        if (source >= 0) {
            int r = copy_directory(source, target, e);

            if (r < 0)
                error_prefix(e, "cannot fill the volume %s from the image's %s", v->name, v->container_path);
            return r;
        }
        if (source != -ENOENT && source != -ENOTDIR)
            return error_set_errno(e, source, "cannot open the image's %s", v->container_path);
    }
    if (fchown(target, v->uid, v->gid) < 0 || fchmod(target, v->mode ? v->mode & 07777 : 0755) < 0)
        return error_set_errno(e, -errno, "cannot set the attributes of the volume %s", v->name);
    return 0;
}

static int make_one(const GuestVolume *v, const char *directory, Error *e)
{
    _cleanup_free_ char *path = fs_join(AGENT_VOLUMES_DIR, v->name);
    struct stat st;
    int r;

    if (!path)
        return error_set(e, -ENOMEM, "out of memory");
    if (lstat(path, &st) >= 0) {
        if (v->pod)
            return 0;
        return error_set(e, -EEXIST, "there is a volume %s already", v->name);
    }
    if (!v->pod) {
        r = note_own(directory, v->name, e);
        if (r < 0)
            return r;
    }
    r = v->pod || v->memory ? make_tmpfs(v, path, e) : make_on_scratch(v, directory, path, e);
    if (r >= 0) {
        r = fill(v, directory, path, e);
        /* Half a volume must not pass for a whole one with the next container of the pod. */
        if (r < 0 && v->pod && rootfs_unmount_one(path) >= 0)
            (void)rmdir(path);
    }
    return r;
}

int volumes_make(const char *directory, GuestVolume *const *volumes, size_t n, Error *e)
{
    _cleanup_close_ int lock = -EBADF;

    if (n == 0)
        return 0;
    lock = lock_volumes(e);
    if (lock < 0)
        return lock;
    for (size_t i = 0; i < n; i++) {
        int r = make_one(volumes[i], directory, e);

        if (r < 0)
            return r;
    }
    return 0;
}

int volumes_remove(const char *directory, Error *e)
{
    _cleanup_free_ char *notes = fs_join(directory, "volumes");
    _cleanup_closedir_ DIR *dir = NULL;
    struct dirent *de;

    if (!notes)
        return error_set(e, -ENOMEM, "out of memory");
    dir = opendir(notes);
    if (!dir)
        return errno == ENOENT ? 0 : error_set_errno(e, -errno, "cannot read %s", notes);
    while ((de = readdir(dir))) {
        _cleanup_free_ char *path = NULL;
        int r;

        if (de->d_name[0] == '.')
            continue;
        path = fs_join(AGENT_VOLUMES_DIR, de->d_name);
        r = path ? rootfs_unmount_one(path) : -ENOMEM;
        if (r >= 0 && remove(path) < 0 && errno != ENOENT)
            r = -errno;
        if (r < 0)
            return error_set_errno(e, r, "cannot remove the volume %s", de->d_name);
    }
    return 0;
}
