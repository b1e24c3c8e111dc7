/* SPDX-License-Identifier: MIT */
#pragma once

/* The cache of images on disk. All functions block and are called in the job's child.
 *
 *   CACHE/images/DIGEST.erofs    an image, named by the SHA-256 of its content
 *   CACHE/images/.tmp-XXXXXX     one that is being made, locked by its maker
 *   CACHE/index/IDENTITY         which image the layers of that identity are, and what the file was when
 *                                it was verified; its time of modification is that of the last use
 *   CACHE/locks/NN               one conversion at a time of the identities that begin with NN
 *   CACHE/locks/gc               see lock_file()
 *   CACHE/scratch/SIZE.ext4      templates of scratch disks */

#include "base/sha256.h"
#include "image/image.h"

typedef struct CachedImage {
    int fd; /* O_RDONLY */
    char digest[SHA256_HEX_SIZE];
    uint64_t size;
    char *path; /* owned; NULL for an image that is not kept */
} CachedImage;

#define CACHED_IMAGE_INIT ((CachedImage){.fd = -EBADF})
void cached_image_clear(CachedImage *image);
#define _cleanup_cached_image_ _cleanup_(cached_image_clear)

/* Makes the directories. */
int cache_prepare(const ImageConfig *config, Error *e);

/* Waits for the lock of an identity; the descriptor's closing releases it. */
int cache_lock(const ImageConfig *config, const char *identity, Error *e);

/* Finds the image of an identity: 1 and the image, 0 when there is none, or none that is undamaged. */
int cache_find(const ImageConfig *config, const char *identity, CachedImage *ret, Error *e);

/* Makes a file for a new image, and its name, which the caller frees. */
int cache_new_file(const ImageConfig *config, int *ret_fd, char **ret_path, Error *e);

/* Takes a finished file into the cache, under its digest, and enters it for `identity` (NULL: not entered,
 * and the file keeps no name). The file is made read-only and synced before it gets its name. */
int cache_add(const ImageConfig *config, const char *identity, int fd, const char *path, CachedImage *ret,
              Error *e);
