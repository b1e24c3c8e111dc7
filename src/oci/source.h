/* SPDX-License-Identifier: MIT */
#pragma once

/* What the source of a bind mount is, as far as its path says: containerd and the kubelet keep what they make
 * for a pod in places of known form. Does no I/O. */

#include <stdbool.h>
#include <stddef.h>

typedef enum SourceKind {
    SOURCE_OTHER,
    SOURCE_SHM,          /* the pod's /dev/shm, made by containerd */
    SOURCE_IMAGE_VOLUME, /* for a VOLUME of the image, made by containerd */
    SOURCE_EMPTY_DIR,    /* made by the kubelet */
    SOURCE_CONFIG,       /* the kubelet's copy of a ConfigMap, Secret, projected or downward API volume */
    SOURCE_SUBPATH,      /* the kubelet's mount of a part of some volume */
    SOURCE_SYSTEM,       /* the node's /, /dev, /proc, /sys or something in them */
} SourceKind;

/* `ret_name` (into `path`) and `ret_size`: the volume's name, for SOURCE_EMPTY_DIR. */
SourceKind source_kind(const char *path, const char *sandbox_id, const char *container_id,
                       const char **ret_name, size_t *ret_size);
