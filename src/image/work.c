/* SPDX-License-Identifier: MIT */

#include "image/work.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "image/cache.h"
#include "image/confine.h"
#include "image/scratch.h"

/* Makes the image anew. `identity` is NULL when it must not be kept. */
static int convert(const ImageConfig *config, const Layers *layers, bool with_upper, const char *identity,
                   CachedImage *ret, Error *e)
{
    uid_t uid = config->converter_uid ?: IMAGE_CONVERTER_UID;
    ConfinedLimits limits = {
        .file_size = config->image_max, .timeout_usec = config->timeout_usec, .uid = uid};
    _cleanup_close_ int fd = -EBADF;
    _cleanup_free_ char *path = NULL;
    int r;

    r = layers_check_sizes(layers, config->image_max, e);
    if (r >= 0)
        r = cache_new_file(config, &fd, &path, e);
    if (r < 0)
        return r;
    if (fchown(fd, uid, uid) < 0)
        r = error_set_errno(e, -errno, "cannot hand the file to the converter");
    if (r >= 0)
        r = confined_mkfs_erofs(config->mkfs_erofs, layers, with_upper, path, config->cache_dir, &limits, e);
    if (r < 0 && e)
        error_prefix(e, "cannot convert the image into %s", path);
    if (r >= 0)
        r = cache_add(config, identity, fd, path, ret, e);
    if (r < 0)
        (void)unlink(path);
    return r;
}

static int find_or_convert(const ImageConfig *config, const Layers *layers, bool *ret_cached,
                           CachedImage *ret, Error *e)
{
    char identity[SHA256_HEX_SIZE];
    _cleanup_close_ int lock = -EBADF;
    int r;

    r = layers_upper_is_used(layers, e);
    if (r < 0)
        return r;
    if (r > 0) /* what the container itself has written: nobody else's image */
        return convert(config, layers, true, NULL, ret, e);
    r = layers_identity(layers, identity, e);
    if (r < 0)
        return r;
    if (r == 0)
        return convert(config, layers, false, NULL, ret, e);
    lock = cache_lock(config, identity, e);
    if (lock < 0)
        return lock;
    r = cache_find(config, identity, ret, e);
    if (r != 0) {
        *ret_cached = r > 0;
        return r;
    }
    return convert(config, layers, false, identity, ret, e);
}

/* A snapshot that is only read has no directory of its own: its scratch disk goes into the cache's. */
static int make_scratch(const ImageConfig *config, const Layers *layers, const ImageScratch *scratch,
                        int *ret_fd, char **ret_path, Error *e)
{
    _cleanup_free_ char *directory = NULL;
    ImageScratch here = *scratch;
    int r;

    if (!here.directory)
        here.directory = layers->upper;
    if (!here.directory) {
        directory = string_printf("%s/scratch/" SCRATCH_DIRECTORY_PREFIX "XXXXXX", config->cache_dir);
        if (!directory || !mkdtemp(directory))
            return error_set_errno(e, directory ? -errno : -ENOMEM,
                                   "cannot make a directory for a scratch disk");
        here.directory = directory;
    }
    r = scratch_create(config, &here, ret_fd, ret_path, e);
    if (r < 0 && directory)
        (void)rmdir(directory);
    return r;
}

int image_work(const ImageConfig *config, const Layers *layers, const ImageScratch *scratch,
               ImageResult *result, Error *e)
{
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;
    _cleanup_image_result_ ImageResult made = IMAGE_RESULT_INIT;
    bool cached = false;
    int r;

    r = cache_prepare(config, e);
    if (r >= 0)
        r = find_or_convert(config, layers, &cached, &image, e);
    if (r >= 0 && scratch && scratch->size > 0)
        r = make_scratch(config, layers, scratch, &made.scratch_fd, &made.scratch_path, e);
    if (r < 0)
        return r;
    if (!cached)
        (void)image_gc(config, NULL); /* what could not be removed now is by the next one */
    made.image_fd = TAKE_FD(image.fd);
    made.image_path = TAKE_PTR(image.path);
    memcpy(made.digest, image.digest, sizeof(made.digest));
    made.size = image.size;
    made.cached = cached;
    if (layers->upper) {
        made.upper_dir = strdup(layers->upper);
        if (!made.upper_dir)
            return error_set_errno(e, -ENOMEM, "cannot prepare an image");
    }
    *result = made;
    made = IMAGE_RESULT_INIT;
    return 0;
}
