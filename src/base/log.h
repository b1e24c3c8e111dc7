/* SPDX-License-Identifier: MIT */
#pragma once

/* Logging for programs (libraries return errors instead). One line per message, to a file descriptor the
 * program chooses (standard error, the shim's "log" FIFO, the agent's console) with the kernel's "<N>" level
 * prefix when the reader is the journal. Long-lived fields, such as the pod, are put in front of every line.
 */

#include <stdbool.h>
#include <syslog.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Where lines go. `fd` stays the caller's and must outlive logging; `level_prefix` writes "<N>" before each
 * line, as sd-daemon(3) has it; `tag` (copied) is put before the message, NULL for none. A write that would
 * block is dropped: logging never holds a program back. */
void log_setup(int fd, int max_level, bool level_prefix, const char *tag);
void log_set_max_level(int level);
int log_get_max_level(void);

void log_write(int level, const char *format, ...) _printf_(2, 3);

#define log_full(level, ...)                                                                                 \
    ({                                                                                                       \
        if ((level) <= log_get_max_level())                                                                  \
            log_write((level), __VA_ARGS__);                                                                 \
    })
#define log_debug(...) log_full(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_full(LOG_INFO, __VA_ARGS__)
#define log_notice(...) log_full(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) log_full(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_full(LOG_ERR, __VA_ARGS__)

/* Logs "format: description of the errno" at error level and returns the errno (negative). */
int log_error_errno(int number, const char *format, ...) _printf_(2, 3);
