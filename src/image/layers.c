/* SPDX-License-Identifier: MIT */

#include "image/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "base/fd.h"
#include "image/scratch.h"

#define DEPTH_MAX 1000

void layers_clear(Layers *layers)
{
    for (size_t i = 0; i < layers->n_lower; i++)
        free(layers->lower[i]);
    free(layers->lower);
    free(layers->upper);
    *layers = (Layers){0};
}

static int add_lower(Layers *layers, const char *path, size_t n, Error *e)
{
    char **p, *copy, *to;

    if (layers->n_lower == LAYERS_MAX)
        return error_set(e, -E2BIG, "the image has more than %i layers", LAYERS_MAX);
    p = reallocarray(layers->lower, layers->n_lower + 1, sizeof(*p));
    if (!p)
        return error_set_errno(e, -ENOMEM, "cannot read the layers of an image");
    layers->lower = p;
    copy = malloc(n + 1);
    if (!copy)
        return error_set_errno(e, -ENOMEM, "cannot read the layers of an image");
    /* overlayfs takes a backslash before what would end the name. */
    to = copy;
    for (size_t i = 0; i < n; i++) {
        if (path[i] == '\\' && i + 1 < n)
            i++;
        *to++ = path[i];
    }
    *to = 0;
    layers->lower[layers->n_lower++] = copy;
    if (copy[0] != '/')
        return error_set(e, -EINVAL, "the layer \"%s\" is no absolute path", copy);
    return 0;
}

static int parse_lowerdir(Layers *layers, const char *value, Error *e)
{
    while (*value) {
        const char *end = value;
        int r;

        while (*end && *end != ':')
            end += *end == '\\' && end[1] ? 2 : 1;
        r = add_lower(layers, value, (size_t)(end - value), e);
        if (r < 0)
            return r;
        value = *end ? end + 1 : end;
    }
    return 0;
}

static int parse_overlay(const ImageMount *mount, Layers *layers, Error *e)
{
    for (size_t i = 0; i < mount->n_options; i++) {
        const char *o = mount->options[i];
        int r = 0;

        if (strncmp(o, "lowerdir=", 9) == 0)
            r = parse_lowerdir(layers, o + 9, e);
        else if (strncmp(o, "upperdir=", 9) == 0 && !layers->upper) {
            layers->upper = strdup(o + 9);
            if (!layers->upper)
                r = error_set_errno(e, -ENOMEM, "cannot read the layers of an image");
            else if (layers->upper[0] != '/')
                r = error_set(e, -EINVAL, "the upper directory \"%s\" is no absolute path", layers->upper);
        }
        if (r < 0)
            return r;
    }
    if (layers->n_lower == 0)
        return error_set(e, -EINVAL, "an overlay mount without lowerdir");
    return 0;
}

static int parse_bind(const ImageMount *mount, Layers *layers, Error *e)
{
    bool read_only = false;

    for (size_t i = 0; i < mount->n_options; i++)
        if (strcmp(mount->options[i], "ro") == 0)
            read_only = true;
    if (read_only)
        return add_lower(layers, mount->source, strlen(mount->source), e);
    /* A snapshot without a parent: what it holds is the container's own. */
    if (mount->source[0] != '/')
        return error_set(e, -EINVAL, "the root \"%s\" is no absolute path", mount->source);
    layers->upper = strdup(mount->source);
    return layers->upper ? 0 : error_set_errno(e, -ENOMEM, "cannot read the layers of an image");
}

int layers_parse(const ImageMount *mounts, size_t n_mounts, Layers *ret, Error *e)
{
    _cleanup_layers_ Layers layers = {0};
    int r;

    if (n_mounts != 1)
        return error_set(e, -EOPNOTSUPP, "a root file system of %zu mounts is not supported, only of one",
                         n_mounts);
    if (strcmp(mounts->type, "overlay") == 0)
        r = parse_overlay(mounts, &layers, e);
    else if (strcmp(mounts->type, "bind") == 0 || strcmp(mounts->type, "rbind") == 0)
        r = parse_bind(mounts, &layers, e);
    else
        return error_set(e, -EOPNOTSUPP,
                         "a root file system of type \"%.40s\" is not supported, only overlay and bind",
                         mounts->type);
    if (r < 0)
        return r;
    *ret = layers;
    layers = (Layers){0};
    return 0;
}

int layers_upper_is_used(const Layers *layers, Error *e)
{
    _cleanup_closedir_ DIR *dir = NULL;
    struct dirent *de;

    if (!layers->upper)
        return 0;
    dir = opendir(layers->upper);
    if (!dir)
        return error_set_errno(e, -errno, "cannot read the snapshot's directory %s", layers->upper);
    while ((errno = 0, de = readdir(dir)))
        if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0 &&
            strcmp(de->d_name, SCRATCH_FILE_NAME) != 0)
            return 1;
    return errno == 0 ? 0
                      : error_set_errno(e, -errno, "cannot read the snapshot's directory %s", layers->upper);
}

int layers_identity(const Layers *layers, char ret[static SHA256_HEX_SIZE], Error *e)
{
    bool complete = true;
    Sha256 s;

    sha256_init(&s);
    sha256_add_string(&s, "cloudhv image, erofs without compression, 1");
    sha256_add(&s, &layers->n_lower, sizeof(layers->n_lower));
    for (size_t i = 0; i < layers->n_lower; i++) {
        struct statx stx;
        struct statfs fs;

        if (statx(AT_FDCWD, layers->lower[i], 0, STATX_INO | STATX_BTIME, &stx) < 0 ||
            statfs(layers->lower[i], &fs) < 0)
            return error_set_errno(e, -errno, "cannot read the layer %s of the image", layers->lower[i]);
        if (!S_ISDIR(stx.stx_mode))
            return error_set(e, -ENOTDIR, "the layer %s of the image is no directory", layers->lower[i]);
        if (!(stx.stx_mask & STATX_BTIME))
            complete = false;
        sha256_add(&s, &fs.f_fsid, sizeof(fs.f_fsid));
        sha256_add(&s, &stx.stx_dev_major, sizeof(stx.stx_dev_major));
        sha256_add(&s, &stx.stx_dev_minor, sizeof(stx.stx_dev_minor));
        sha256_add(&s, &stx.stx_ino, sizeof(stx.stx_ino));
        sha256_add(&s, &stx.stx_btime.tv_sec, sizeof(stx.stx_btime.tv_sec));
        sha256_add(&s, &stx.stx_btime.tv_nsec, sizeof(stx.stx_btime.tv_nsec));
    }
    sha256_finish_hex(&s, ret);
    return complete;
}

/* Takes `dir_fd`. `path` names it in errors. */
static int check_directory(int dir_fd, const char *path, uint64_t max, unsigned depth, Error *e)
{
    _cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
    struct dirent *de;

    if (!dir) {
        int r = -errno;

        fd_close(dir_fd);
        return error_set_errno(e, r, "cannot read %s", path);
    }
    if (depth > DEPTH_MAX)
        return error_set(e, -ELOOP, "%s lies more than %i directories deep", path, DEPTH_MAX);
    while ((errno = 0, de = readdir(dir))) {
        struct stat st;

        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return error_set_errno(e, -errno, "cannot read %s/%s", path, de->d_name);
        if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max && strcmp(de->d_name, SCRATCH_FILE_NAME) != 0)
            return error_set(e, -EFBIG, "%s/%s has %llu MiB, but an image may have %llu (image_max_mb)", path,
                             de->d_name, (unsigned long long)st.st_size >> 20, (unsigned long long)max >> 20);
        if (S_ISDIR(st.st_mode)) {
            int child = openat(dirfd(dir), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;
            char *name;

            if (child < 0)
                return error_set_errno(e, -errno, "cannot read %s/%s", path, de->d_name);
            if (asprintf(&name, "%s/%s", path, de->d_name) < 0) {
                fd_close(child);
                return error_set_errno(e, -ENOMEM, "cannot read %s", path);
            }
            r = check_directory(child, name, max, depth + 1, e);
            free(name);
            if (r < 0)
                return r;
        }
    }
    return errno == 0 ? 0 : error_set_errno(e, -errno, "cannot read %s", path);
}

static int check_layer(const char *path, uint64_t max, Error *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set_errno(e, -errno, "cannot read the layer %s of the image", path);
    return check_directory(fd, path, max, 0, e);
}

int layers_check_sizes(const Layers *layers, uint64_t max, Error *e)
{
    int r;

    for (size_t i = 0; i < layers->n_lower; i++) {
        r = check_layer(layers->lower[i], max, e);
        if (r < 0)
            return r;
    }
    return layers->upper ? check_layer(layers->upper, max, e) : 0;
}
