/* SPDX-License-Identifier: MIT */

#include "agent/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "agent/slot.h"
#include "base/fd.h"
#include "base/fs.h"

static int make_directory(const char *base, const char *name, char **ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(base, name);

    if (!path)
        return error_set(e, -ENOMEM, "out of memory");
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set_errno(e, -errno, "cannot make %s", path);
    *ret = TAKE_PTR(path);
    return 0;
}

static int mount_image(const RootfsSpec *spec, Error *e)
{
    _cleanup_free_ char *target = NULL;
    int r;

    r = make_directory(spec->directory, "image", &target, e);
    if (r < 0)
        return r;
    if (mount(spec->image_device, target, "erofs", MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOATIME, NULL) < 0)
        return error_set_errno(e, -errno, "cannot mount the image disk %s as erofs", spec->image_device);
    return 0;
}

static int mount_scratch(const RootfsSpec *spec, char **ret, Error *e)
{
    _cleanup_free_ char *target = NULL, *options = NULL;
    unsigned long flags = MS_NODEV | MS_NOSUID | MS_NOATIME;
    int r;

    r = make_directory(spec->directory, "scratch", &target, e);
    if (r < 0)
        return r;
    if (spec->scratch_device) {
        /* Inode tables are left as the host made them: filling them in the background would write to a disk
         * that is sparse on purpose. */
        if (mount(spec->scratch_device, target, "ext4", flags, "errors=remount-ro,noinit_itable") < 0)
            return error_set_errno(e, -errno, "cannot mount the scratch disk %s as ext4", spec->scratch_device);
    } else {
        options = spec->memory_limit
                      ? string_printf("mode=0755,size=%llu", (unsigned long long)spec->memory_limit)
                      : strdup("mode=0755,size=50%");
        if (!options)
            return error_set(e, -ENOMEM, "out of memory");
        if (mount("cloudhv-scratch", target, "tmpfs", flags, options) < 0)
            return error_set_errno(e, -errno, "cannot mount a tmpfs (%s) for the writable layer", options);
    }
    *ret = TAKE_PTR(target);
    return 0;
}

/* The root directory that the container sees is the upper one: it must look like the image's. */
static int copy_root_attributes(const char *image, const char *upper, Error *e)
{
    struct timespec times[2];
    struct stat st;

    if (stat(image, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the attributes of the image's root directory");
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    if (chown(upper, st.st_uid, st.st_gid) < 0 || chmod(upper, st.st_mode & 07777) < 0 ||
        utimensat(AT_FDCWD, upper, times, 0) < 0)
        return error_set_errno(e, -errno, "cannot set the attributes of the root directory");
    return 0;
}

static int mount_overlay(const RootfsSpec *spec, const char *scratch, Error *e)
{
    _cleanup_free_ char *target = NULL, *image = NULL, *upper = NULL, *work = NULL, *old_work = NULL;
    int r;

    image = fs_join(spec->directory, "image");
    old_work = fs_join(scratch, "work");
    if (!image || !old_work)
        return error_set(e, -ENOMEM, "out of memory");
    /* A volatile overlay leaves a mark that forbids to mount it again, which a repeated creation has to. */
    r = fs_remove_tree(old_work);
    if (r < 0)
        return error_set_errno(e, r, "cannot empty the overlay's work directory");
    r = make_directory(spec->directory, "rootfs", &target, e);
    if (r >= 0)
        r = make_directory(scratch, "upper", &upper, e);
    if (r >= 0)
        r = make_directory(scratch, "work", &work, e);
    if (r >= 0)
        r = copy_root_attributes(image, upper, e);
    if (r < 0)
        return r;
    /* Relative paths: a ':' or ',' in the container's id would end an absolute one. */
    if (chdir(spec->directory) < 0)
        return error_set_errno(e, -errno, "cannot enter %s", spec->directory);
    /* volatile: the layer does not outlive the VM, so nobody needs to wait for it to reach the disk. */
    r = mount("overlay", target, "overlay", 0,
              "lowerdir=image,upperdir=scratch/upper,workdir=scratch/work,volatile") < 0
            ? -errno
            : 0;
    (void)!chdir("/");
    return r < 0 ? error_set_errno(e, r, "cannot mount the container's overlay") : 0;
}

int rootfs_mount(const RootfsSpec *spec, Error *e)
{
    _cleanup_free_ char *scratch = NULL;
    int r;

    r = mount_image(spec, e);
    if (r >= 0)
        r = mount_scratch(spec, &scratch, e);
    return r < 0 ? r : mount_overlay(spec, scratch, e);
}

int rootfs_unmount_one(const char *path)
{
    if (umount2(path, UMOUNT_NOFOLLOW) >= 0)
        return 0;
    if (errno == EINVAL || errno == ENOENT)
        return 0;
    if (errno == EBUSY && umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) >= 0)
        return 0;
    return -errno;
}

int rootfs_unmount(const char *directory, Error *e)
{
    static const char *const places[] = {"rootfs", "scratch", "image"};
    dev_t devices[ELEMENTSOF(places)] = {0};

    for (size_t i = 0; i < ELEMENTSOF(places); i++) {
        _cleanup_free_ char *path = fs_join(directory, places[i]);
        struct stat st;
        int r;

        if (path && stat(path, &st) >= 0)
            devices[i] = st.st_dev;
        r = path ? rootfs_unmount_one(path) : -ENOMEM;
        if (r < 0)
            return error_set_errno(e, r, "cannot unmount %s/%s", directory, places[i]);
    }
    /* Where this is not possible, the host's request to let go of the disk does it. */
    for (size_t i = 0; i < ELEMENTSOF(places); i++)
        (void)slot_power_off("/sys", devices[i]);
    return 0;
}
