/* SPDX-License-Identifier: MIT */
#pragma once

/* File descriptors: complete reads and writes, flags, sockets with descriptors attached. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/* Closes a valid descriptor, keeps errno; always returns -EBADF: fd = fd_close(fd). */
int fd_close(int fd);

/* Reads until `n` bytes or end of file. Returns the number of bytes read, or a negative errno. */
ssize_t fd_read_full(int fd, void *buffer, size_t n);

/* Writes all `n` bytes. Returns 0 or a negative errno; for blocking descriptors. */
int fd_write_full(int fd, const void *buffer, size_t n);

int fd_set_nonblock(int fd, bool nonblock);
int fd_set_cloexec(int fd, bool cloexec);

/* Reads a whole descriptor into a NUL-terminated buffer that the caller frees. More than `max` bytes: -EFBIG.
 */
int fd_read_all(int fd, size_t max, char **ret, size_t *ret_size);

/* Makes a listening Unix stream socket (CLOEXEC, non-blocking) at `path` with `mode`, replacing a stale one.
 * Returns the descriptor or a negative errno; -ENAMETOOLONG when the path does not fit into sockaddr_un. */
int fd_listen_unix(const char *path, mode_t mode);

/* Connects (CLOEXEC, non-blocking) to a Unix stream socket. Returns the descriptor or a negative errno. */
int fd_connect_unix(const char *path);
