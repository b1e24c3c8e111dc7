/* SPDX-License-Identifier: MIT */
#pragma once

/* The command line that containerd gives to a shim: Go's flags, one or two dashes, with the value in the same or
 * in the next argument, and the action at the end. */

#include <stdbool.h>

#include "base/error.h"

typedef struct ShimOptions {
    const char *namespace;
    const char *id;
    const char *address;        /* containerd's gRPC socket: only a part of the shim's socket name for us */
    const char *publish_binary; /* containerd itself */
    const char *bundle;         /* NULL: the current directory */
    const char *action;         /* "start", "delete" or NULL */
    bool debug;
    bool version;
    bool info;
} ShimOptions;

/* Strings are those of `argv`. Flags that are not ours (containerd adds some over time) are errors, since whether
 * they take a value can't be known. Checks namespace and id, which an action needs, against containerd's rule for
 * identifiers. */
int shim_options_parse(int argc, char **argv, ShimOptions *ret, Error *e);
