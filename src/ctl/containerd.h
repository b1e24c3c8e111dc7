/* SPDX-License-Identifier: MIT */
#pragma once

/* The containerd that runs on this host: how it was started, and what its configuration says of our runtime.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

typedef struct Containerd {
    pid_t pid;
    char *binary;
    char *config;    /* of its command line; NULL: the default, /etc/containerd/config.toml */
    char *path;      /* its PATH, where it looks for shims */
    bool has_dropin; /* started by a unit with the generator's drop-in */
} Containerd;

void containerd_clear(Containerd *containerd);
#define _cleanup_containerd_ _cleanup_(containerd_clear)

/* Finds the process that listens on `socket`. -ENOENT or -ECONNREFUSED: none does. */
int containerd_find(const char *socket, Containerd *ret, Error *e);

/* What a command line (`n` bytes, arguments ended by NUL) says by -c, --config and their forms; NULL:
 * nothing. The result points into it. */
const char *containerd_config_argument(const char *cmdline, size_t n);

/* What a dump of a configuration says of a runtime. */
typedef struct ContainerdRuntime {
    bool cri;         /* the CRI plugin is enabled */
    bool found;       /* there is a runtime of that name */
    bool type_ours;   /* with our runtime type */
    bool annotations; /* and gets our annotations of pods */
} ContainerdRuntime;

ContainerdRuntime containerd_dump_runtime(const char *dump, const char *name);

/* Asks the binary for its effective configuration, as it reads it now. */
int containerd_dump(const Containerd *containerd, char **ret, Error *e);
