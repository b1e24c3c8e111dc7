/* SPDX-License-Identifier: MIT */
#pragma once

/* Annotations of a pod: io.cloudhv.config.hypervisor.X, which wins over
 * io.katacontainers.config.hypervisor.X, and io.cloudhv.warm. Parsing does no I/O. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Zero and NULL mean: no such annotation. */
typedef struct Annotations {
    uint64_t default_memory_mb;
    uint64_t memory_limit_mb;
    uint64_t default_vcpus;
    uint64_t default_max_vcpus;
    char *kernel_params; /* printable words, none of them a parameter that cloudhv itself sets */
    bool enable_virtio_mem, enable_virtio_mem_set;
    bool warm;
    char **warnings; /* what was wrong and therefore ignored: only with `warn` */
    size_t n_warnings;
} Annotations;

/* Reads `annotations`, the object of an OCI spec (NULL: none). A bad value is an error that names annotation,
 * value and reason, or, with `warn`, a warning and no annotation. */
int annotations_parse(json_t *annotations, bool warn, Annotations **ret, Error *e);
Annotations *annotations_free(Annotations *annotations);
DEFINE_CLEANUP_FUNC(Annotations *, annotations_free)
#define _cleanup_annotations_ _cleanup_(annotations_freep)
