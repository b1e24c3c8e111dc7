/* SPDX-License-Identifier: MIT */
#pragma once

/* The two questions that containerd, or a person, asks without a container: -v and -info. */

#include "base/error.h"

#define SHIM_RUNTIME_NAME "io.containerd.cloudhv.v1"

/* Prints the version for people. */
int info_print_version(void);

/* Reads the runtime's options (an Any, may be empty) and prints containerd.types.RuntimeInfo, with the annotation
 * that says which mounts of a snapshotter reach the shim unmounted: none yet. */
int info_print(Error *e);
