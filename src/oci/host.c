/* SPDX-License-Identifier: MIT */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "oci/plan.h"

static void set_type(OciHostFile *file, mode_t mode)
{
    file->type = OCI_HOST_OTHER;
    switch (mode & S_IFMT) {
    case S_IFREG:
        file->type = OCI_HOST_REGULAR;
        file->type_name = "a file";
        break;
    case S_IFDIR:
        file->type = OCI_HOST_DIRECTORY;
        file->type_name = "a directory";
        break;
    case S_IFBLK:
        file->type_name = "a block device";
        break;
    case S_IFCHR:
        file->type_name = "a character device";
        break;
    case S_IFSOCK:
        file->type_name = "a socket";
        break;
    case S_IFIFO:
        file->type_name = "a FIFO";
        break;
    case S_IFLNK:
        file->type_name = "a symbolic link";
        break;
    default:
        file->type_name = "of an unknown type";
    }
}

/* Whether a directory has no entries; the descriptor is used up. */
static int is_empty(int fd)
{
    _cleanup_closedir_ DIR *d = fdopendir(fd);
    struct dirent *entry;
    int n = 0;

    if (!d) {
        int r = -errno;

        close(fd);
        return r;
    }
    errno = 0;
    while (n < 3 && (entry = readdir(d)))
        n++;
    return errno ? -errno : n <= 2; /* "." and ".." */
}

/* The last component is not followed; what is before it is containerd's and the kubelet's own. */
int oci_host_inspect(const char *path, OciHostFile *ret, void *userdata, Error *e)
{
    _cleanup_close_ int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    OciHostFile file = {};
    struct statfs fs;
    struct stat st;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        *ret = (OciHostFile){.type = OCI_HOST_MISSING, .type_name = "missing"};
        return 0;
    }
    if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return error_set_errno(e, -errno, "cannot look at %s", path);
    set_type(&file, st.st_mode);
    file.mode = st.st_mode & 07777;
    file.uid = st.st_uid;
    file.gid = st.st_gid;
    file.memory = fs.f_type == TMPFS_MAGIC;
    file.memory_size = file.memory ? (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize : 0;
    if (file.type == OCI_HOST_DIRECTORY) {
        int directory = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

        if (directory < 0)
            return error_set_errno(e, -errno, "cannot open %s", path);
        r = is_empty(directory);
        if (r < 0)
            return error_set_errno(e, r, "cannot read %s", path);
        file.empty = r;
    }
    *ret = file;
    return 0;
}
