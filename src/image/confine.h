/* SPDX-License-Identifier: MIT */
#pragma once

/* Tools that read what an image supplies or write what a guest will mount run confined: no network, no other
 * file system than they need, a uid of their own, limits, and a deadline. */

#include "base/error.h"
#include "image/layers.h"

typedef struct ConfinedLimits {
    uint64_t file_size;    /* bytes that may be written */
    uint64_t timeout_usec; /* killed afterwards */
    uid_t uid;
} ConfinedLimits;

/* Runs mkfs.erofs on the merged view of the layers, with CAP_DAC_READ_SEARCH only, in a root that holds
 * nothing but the view (read-only), the program and the output. `out` is the file, which exists, that gets
 * the image; `with_upper` puts the upper directory on top of the view. The mount for that is made at `place`,
 * a directory, in a mount namespace of the child. */
int confined_mkfs_erofs(const char *program, const Layers *layers, bool with_upper, const char *out,
                        const char *place, const ConfinedLimits *limits, Error *e);

/* Runs mke2fs on an empty file, without any capability. */
int confined_mke2fs(const char *program, int fd, const ConfinedLimits *limits, Error *e);
