/* SPDX-License-Identifier: MIT */
#pragma once

/* The action `delete`: containerd runs it in the bundle when it has lost the connection to a shim, also after a
 * task was deleted in the usual way. It works from names alone where the shim left no record, is harmless when
 * there is nothing to do, and prints a task.DeleteResponse. */

#include "shim/options.h"

int delete_run(const ShimOptions *options, Error *e);
