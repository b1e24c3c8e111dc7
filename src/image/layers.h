/* SPDX-License-Identifier: MIT */
#pragma once

/* The directories that a container's root file system is made of, and their identity. */

#include <stdbool.h>

#include "base/sha256.h"
#include "image/image.h"

#define LAYERS_MAX 500

typedef struct Layers {
    char **lower; /* from the top down; owned */
    size_t n_lower;
    char *upper; /* the writable directory, NULL without one; owned */
} Layers;

void layers_clear(Layers *layers);
#define _cleanup_layers_ _cleanup_(layers_clear)

/* Reads one mount of type overlay or bind. Pure: looks at nothing but its arguments. `ret` must be zeroed. */
int layers_parse(const ImageMount *mounts, size_t n_mounts, Layers *ret, Error *e);

/* Whether the upper directory holds anything but our scratch disk: 1, 0, or a negative errno. */
int layers_upper_is_used(const Layers *layers, Error *e);

/* The key of the cache: a digest of each lower directory's file system, inode and time of birth, which a
 * directory of the same name in a refilled store does not share. Returns 1, or 0 where the file system knows
 * no birth. */
int layers_identity(const Layers *layers, char ret[static SHA256_HEX_SIZE], Error *e);

/* Refuses a file that is larger than an image may be, by name, before it is converted. */
int layers_check_sizes(const Layers *layers, uint64_t max, Error *e);
