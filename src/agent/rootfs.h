/* SPDX-License-Identifier: MIT */
#pragma once

/* A container's root file system: the image's erofs, read-only, under an overlay whose upper layer is a
 * scratch disk (ext4) or memory (tmpfs). All of it lies in the container's directory:
 *
 *     image/    the erofs          scratch/  the upper layer's file system, with upper/, work/, volumes/
 *     rootfs/   the overlay
 *
 * Blocking: these functions run in a worker. */

#include <stdint.h>

#include "base/error.h"

typedef struct RootfsSpec {
    const char *directory;      /* the container's; exists */
    const char *image_device;   /* "/dev/vdb" */
    const char *scratch_device; /* NULL: memory */
    uint64_t memory_limit;      /* bytes of that; 0: half of the guest's memory */
} RootfsSpec;

/* Mounts it all. What was mounted before a failure stays, for rootfs_unmount(). */
int rootfs_mount(const RootfsSpec *spec, Error *e);

/* Unmounts in the opposite order whatever is mounted; nothing mounted is fine. */
int rootfs_unmount(const char *directory, Error *e);

/* Unmounts one place: 0 also when nothing is mounted there or it does not exist. A file system that is in
 * use is taken out of the tree at once and released by its last user. */
int rootfs_unmount_one(const char *path);
