/* SPDX-License-Identifier: MIT */
#pragma once

/* Numbers from proc(5). */

#include <stddef.h>
#include <stdint.h>

/* The sum of the lines of `text` that begin with `key`, as in "Private_Dirty:   12 kB" or "key value"; 0 when there
 * is none. In the unit of the file. */
uint64_t procfs_sum(const char *text, const char *key);

/* Reads a file of /proc, of at most 64 KiB, and puts the sum for each of `n` keys into `ret`. Negative errno when it
 * can't be read. */
int procfs_read(const char *path, const char *const *keys, size_t n, uint64_t *ret);
