/* SPDX-License-Identifier: MIT */
#pragma once

/* Files and directories. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/* Reads a regular file into a NUL-terminated buffer that the caller frees. Larger than `max` bytes: -EFBIG.
 */
int fs_read_file(const char *path, size_t max, char **ret, size_t *ret_size);

/* Writes a file under a temporary name beside it, syncs it and renames it over `path`. */
int fs_write_file_atomic(const char *path, const void *data, size_t n, mode_t mode);

/* Writes to a file that exists (sysfs, cgroup) in one write(). */
int fs_write_existing(const char *path, const char *text);

/* Makes a directory and its parents (0755 for the parents). An existing directory is fine. */
int fs_mkdir_p(const char *path, mode_t mode);

/* Removes a tree without following symbolic links or crossing mount points. What is already gone is fine. */
int fs_remove_tree(const char *path);

/* Joins with one slash and returns a new string, NULL when out of memory. */
char *fs_join(const char *a, const char *b);

/* asprintf that returns the new string, NULL when out of memory. */
char *string_printf(const char *format, ...) _printf_(1, 2);
