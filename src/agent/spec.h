/* SPDX-License-Identifier: MIT */
#pragma once

/* The last touch to a container's OCI spec: what only the agent knows. All else in it, the host has decided.
 * Pure: text in, text out. */

#include <stddef.h>

#include "base/error.h"

enum { AGENT_SPEC_MAX = 2 * 1024 * 1024 };

typedef struct SpecPlaces {
    const char *root_path;     /* replaces root.path */
    const char *cgroups_path;  /* replaces linux.cgroupsPath */
    const char *pid_namespace; /* the path that a "pid" namespace joins; NULL: left as the spec has it */
} SpecPlaces;

/* Checks the process object of an exec: -EINVAL, or -EOPNOTSUPP for one that wants a terminal. */
int spec_check_process(const void *text, size_t n, Error *e);

/* Gives config.json for crun; the caller frees it. -EINVAL for what is not a spec, -EOPNOTSUPP for one that
 * wants a terminal. */
int spec_place(const void *text, size_t n, const SpecPlaces *places, char **ret, Error *e);
