/* SPDX-License-Identifier: MIT */
#pragma once

/* Other programs, asked for what they know. */

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Runs a program (with the fixed PATH of base/process.h) and gives at most `max` bytes of its standard output
 * as a string that the caller frees. Ended by a deadline, a status other than 0, or more output it is an
 * error; the last line on standard error is part of it. */
int command_output(const char *const *argv, size_t max, uint64_t timeout_usec, char **ret, Error *e);

/* The absolute path of a program: `program` itself if it has a slash, otherwise looked up in `path`, a list
 * as in the environment's PATH. NULL when it cannot be executed (or memory ran out). The caller frees it. */
char *command_find(const char *program, const char *path);

/* The first version number ("10.0.2", "v53.0") in a text: two parts of it. Returns 0 or -EINVAL. */
int version_parse(const char *text, unsigned *ret_major, unsigned *ret_minor);
