/* SPDX-License-Identifier: MIT */
#pragma once

/* The last words of a guest: reads its serial console from a socket of the VMM and keeps the last 16 KiB.
 *
 * The guest decides how much it prints, so reading pauses after each read: the VMM's socket buffer then fills
 * and slows the guest's UART, as a real line would, and a guest that prints for ever costs the host ten
 * wake-ups a second. With nobody connected, QEMU drops the output: a restart of the daemon holds no guest
 * back. */

#include <stddef.h>

#include "base/loop.h"

typedef struct Console Console;

/* Takes `fd`, a connected socket or the reading end of a pipe, also on failure. */
int console_new(Loop *loop, int fd, Console **ret);
Console *console_free(Console *console);
DEFINE_CLEANUP_FUNC(Console *, console_free)

/* Reads what has arrived until now: for the last words of a VMM that has ended. */
void console_drain(Console *console);

/* The end of what was printed, for a message: at most `max` bytes, whole lines where possible, lines
 * separated by " | ", without control characters and escape sequences. An empty string when there is nothing.
 * The caller frees it; NULL when out of memory. */
char *console_tail(const Console *console, size_t max);

/* The same for any text that comes from a VMM or its guest. */
char *console_text_tail(const char *text, size_t n, size_t max);
