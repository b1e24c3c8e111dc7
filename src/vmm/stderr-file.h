/* SPDX-License-Identifier: MIT */
#pragma once

/* A VMM's standard error: a memory file that cannot grow beyond 64 KiB, so that a guest that provokes messages for
 * ever fills no disk, and that can be read after a restart, through /proc/PID/fd/2. */

#include <sys/types.h>

/* Makes one: the descriptor or a negative errno. */
int stderr_file_new(void);

/* That of a process that has one; -1 when it can't be had, which costs its last words only. */
int stderr_file_open(pid_t pid);

/* Its end, for a message (console_text_tail()): at most `max` bytes. NULL when there is nothing. The caller frees
 * it. */
char *stderr_file_tail(int fd, size_t max);
