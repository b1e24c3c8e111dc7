/* SPDX-License-Identifier: MIT */
#pragma once

/* Trees: small directories and single files that the host copies into the guest (ConfigMap, Secret,
 * resolv.conf …) and that containers' mounts name as their source. They lie on a tmpfs of limited size, since
 * containers may write to those that are mounted writable. A container may also have put symbolic links or
 * FIFOs there: no path is ever followed through one, or out of its tree. */

#include <stdbool.h>
#include <stddef.h>

#include "agent.pb-c.h"
#include "base/error.h"

enum {
    AGENT_TREES_MAX = 1024,
    AGENT_TREE_READ_MAX = 1024 * 1024,
};

typedef struct Trees Trees;

/* `directory` must exist; the agent's is AGENT_TREES_DIR. */
int trees_new(const char *directory, Trees **ret, Error *e);
Trees *trees_free(Trees *trees);
DEFINE_CLEANUP_FUNC(Trees *, trees_free)

/* Adds or replaces entries, in order; those before one that fails stay. -EINVAL for names and paths that are
 * not allowed, -ENOSPC at a limit. */
int trees_add(Trees *trees, const Cloudhv__Agent__V1__AddFilesRequest *request, Error *e);

/* Reads a regular file, from its start, at most `max` bytes (0: the limit). -ENOENT. The caller frees the
 * data. */
int trees_read(Trees *trees, const char *tree, const char *path, size_t max, void **ret, size_t *ret_n,
               bool *ret_truncated, Error *e);

/* Removes the trees that came with a container. */
void trees_remove_container(Trees *trees, const char *container_id);
