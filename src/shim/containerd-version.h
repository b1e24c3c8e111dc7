/* SPDX-License-Identifier: MIT */
#pragma once

/* The version of the containerd that started us. Releases from 1.7 to 2.2 give a shim the same flags and
 * environment, yet only 2.x understands the answer that offers the task service in version 3; so its binary is
 * asked, once, and the answer remembered by the binary's device, inode and time of change. */

#include "base/error.h"

/* Gives the major version, 0 when it could not be found out (with the reason in `e`, for a log line). */
unsigned containerd_version_major(const char *cache_dir, const char *binary, Error *e);
