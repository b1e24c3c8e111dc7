/* SPDX-License-Identifier: MIT */
#pragma once

/* Copies a directory's contents with all that makes up the files: owners, modes, times, extended attributes,
 * symbolic links (hard links become separate files). For filling a volume with what
 * the image has at its place. Blocking: runs in a worker. */

#include "base/error.h"

/* Copies what is in the open directory `source_fd` into the open, empty directory `target_fd`, and gives that
 * the attributes of the source. The descriptors stay the caller's. */
int copy_directory(int source_fd, int target_fd, Error *e);
