/* SPDX-License-Identifier: MIT */

#include "image/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "image/confine.h"

#define MKE2FS_TIMEOUT_USEC (60 * USEC_PER_SEC)

static int format(const ImageConfig *config, int fd, uint64_t size, Error *e)
{
    uid_t uid = config->converter_uid ?: IMAGE_CONVERTER_UID;
    int r;

    if (ftruncate(fd, (off_t)size) < 0 || fchown(fd, uid, uid) < 0)
        return error_set_errno(e, -errno, "cannot make a scratch disk");
    r = confined_mke2fs(config->mke2fs, fd,
                        &(ConfinedLimits){.file_size = size, .timeout_usec = MKE2FS_TIMEOUT_USEC, .uid = uid},
                        e);
    if (r < 0)
        return r;
    if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0400) < 0 || fsync(fd) < 0)
        return error_set_errno(e, -errno, "cannot keep the template of scratch disks");
    return 0;
}

/* Opens the template of a size, which is made when it is first needed: under a temporary name, by one process
 * at a time. */
static int open_template(const ImageConfig *config, uint64_t size, Error *e)
{
    _cleanup_free_ char *path = NULL, *temporary = NULL, *lock_path = NULL;
    _cleanup_close_ int fd = -EBADF, lock = -EBADF;
    struct stat st;
    int r;

    path = string_printf("%s/scratch/%llu.ext4", config->cache_dir, (unsigned long long)size);
    lock_path = string_printf("%s/locks/scratch", config->cache_dir);
    temporary = string_printf("%s/scratch/.new", config->cache_dir);
    if (!path || !lock_path || !temporary)
        return error_set_errno(e, -ENOMEM, "cannot make a scratch disk");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &st) >= 0 && (uint64_t)st.st_size == size)
        return TAKE_FD(fd);
    fd = fd_close(fd);
    lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return error_set_errno(e, -errno, "cannot lock %s", lock_path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW); /* made while we waited */
    if (fd >= 0 && fstat(fd, &st) >= 0 && (uint64_t)st.st_size == size)
        return TAKE_FD(fd);
    fd = fd_close(fd);
    (void)unlink(temporary);
    fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot make %s", temporary);
    r = format(config, fd, size, e);
    if (r >= 0 && rename(temporary, path) < 0)
        r = error_set_errno(e, -errno, "cannot keep %s", path);
    if (r < 0) {
        (void)unlink(temporary);
        return r;
    }
    return TAKE_FD(fd);
}

/* Copies what is not a hole. */
static int copy_sparse(int from, int to, uint64_t size)
{
    off_t position = 0;

    if (ioctl(to, FICLONE, from) >= 0)
        return 0;
    if (ftruncate(to, (off_t)size) < 0)
        return -errno;
    for (;;) {
        off_t data = lseek(from, position, SEEK_DATA), end;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        end = lseek(from, data, SEEK_HOLE);
        if (end < 0)
            return -errno;
        while (data < end) {
            char buffer[65536];
            size_t want = (size_t)(end - data) < sizeof(buffer) ? (size_t)(end - data) : sizeof(buffer);
            ssize_t n = pread(from, buffer, want, data), k;

            if (n <= 0)
                return n < 0 ? -errno : -EIO;
            k = pwrite(to, buffer, (size_t)n, data);
            if (k < 0)
                return -errno;
            data += k;
        }
        position = end;
    }
}

int scratch_create(const ImageConfig *config, const ImageScratch *scratch, int *ret_fd, char **ret_path,
                   Error *e)
{
    _cleanup_close_ int template = -EBADF, fd = -EBADF;
    _cleanup_free_ char *path = NULL;
    int r;

    if (scratch->size < (uint64_t)SCRATCH_SIZE_MIN_MB << 20 || scratch->size > (uint64_t)SCRATCH_SIZE_MAX_MB
                                                                                   << 20)
        return error_set(e, -ERANGE, "a scratch disk of %llu MiB is not possible (scratch_size_mb): %i to %i",
                         (unsigned long long)scratch->size >> 20, SCRATCH_SIZE_MIN_MB, SCRATCH_SIZE_MAX_MB);
    path = fs_join(scratch->directory, SCRATCH_FILE_NAME);
    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot make a scratch disk");
    template = open_template(config, scratch->size, e);
    if (template < 0)
        return template;
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set_errno(e, -errno, "cannot remove the old scratch disk %s", path);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot make the scratch disk %s", path);
    r = copy_sparse(template, fd, scratch->size);
    if (r >= 0 && fchown(fd, scratch->uid, scratch->gid) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(path);
        return error_set_errno(e, r, "cannot make the scratch disk %s", path);
    }
    *ret_fd = TAKE_FD(fd);
    *ret_path = TAKE_PTR(path);
    return 0;
}

int scratch_remove(const char *path)
{
    _cleanup_free_ char *directory = strdup(path);
    char *slash = directory ? strrchr(directory, '/') : NULL, *name;

    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    if (!directory)
        return -ENOMEM;
    if (!slash)
        return 0;
    *slash = 0;
    name = strrchr(directory, '/');
    if (name && strncmp(name + 1, SCRATCH_DIRECTORY_PREFIX, strlen(SCRATCH_DIRECTORY_PREFIX)) == 0 &&
        rmdir(directory) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}
