/* SPDX-License-Identifier: MIT */
#pragma once

/* The shim's server process, from its fork to its exit. */

#include <stdbool.h>

#include "base/error.h"

typedef struct ServerSpec {
    const char *namespace;
    const char *id;            /* of the sandbox, or of a plain container */
    const char *bundle;        /* absolute; the working directory */
    const char *socket;        /* path */
    const char *ttrpc_address; /* of containerd's events service */
    bool debug;
    int starter_fd; /* to the process that runs `start`, which gets a NUL byte or an error's text */
} ServerSpec;

/* Serves until containerd shuts it down. Returns 0, or a negative errno when it could not start. */
int server_run(const ServerSpec *spec);
