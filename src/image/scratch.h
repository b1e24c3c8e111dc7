/* SPDX-License-Identifier: MIT */
#pragma once

/* Scratch disks: the writable layer of a container, as a sparse file with an empty ext4 of bounded size.
 *
 * mke2fs runs once for each size, without privileges; its result is kept as a template in the cache and
 * copied sparsely (or cloned, where the file system can), some hundred kilobytes, for each container. The
 * file system has no journal: it never outlives its VM's power-off, so there is nothing to recover. */

#include "image/image.h"

/* The file's name in the directory it is made in; the conversion leaves it out of images. */
#define SCRATCH_FILE_NAME ".cloudhv-scratch.ext4"

/* Begins the name of a directory that was made for one disk alone. */
#define SCRATCH_DIRECTORY_PREFIX "of-"

enum {
    SCRATCH_SIZE_MIN_MB = 8,
    SCRATCH_SIZE_MAX_MB = 16 * 1024 * 1024,
};

/* Makes the disk in scratch->directory, replacing an older one. Blocks: some milliseconds, or some ten for
 * the first one of a size. Gives a CLOEXEC descriptor (O_RDWR) and the path, which the caller frees. */
int scratch_create(const ImageConfig *config, const ImageScratch *scratch, int *ret_fd, char **ret_path,
                   Error *e);

/* Removes a disk by the path that scratch_create() gave, and the directory that was made for it alone. What is gone
 * already is fine. */
int scratch_remove(const char *path);
