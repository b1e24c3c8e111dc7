/* SPDX-License-Identifier: MIT */
#pragma once

/* An error that a user can act on: a negative errno, for the program, and a sentence that says what was
 * tried, on what, and why it failed. Libraries fill it in; only programs log it or send it to a client. */

#include <stdarg.h>

#include "base/cleanup.h"

typedef struct Error {
    int number;    /* negative errno, 0 when nothing is set */
    char *message; /* owned; NULL when nothing is set, or when memory ran out */
} Error;

#define ERROR_INIT ((Error){0})

void error_clear(Error *e);
#define _cleanup_error_ _cleanup_(error_clear)

/* Sets *e, replacing what it held, and returns `number`, so that `return error_set(e, -EINVAL, "…")` reads
 * naturally. `e` may be NULL: then only the number is returned. `number` must be negative. */
int error_set(Error *e, int number, const char *format, ...) _printf_(3, 4);
int error_setv(Error *e, int number, const char *format, va_list ap) _printf_(3, 0);

/* Like error_set(), and appends ": " and the description of `number`. */
int error_set_errno(Error *e, int number, const char *format, ...) _printf_(3, 4);

/* Puts "prefix: " before the message of an error that is set; returns its number (0 if none is set). */
int error_prefix(Error *e, const char *format, ...) _printf_(2, 3);

/* Moves the contents of `from` to `to`, replacing what `to` held, and returns the number. `to` may be NULL.
 */
int error_move(Error *to, Error *from);

/* The message, or the description of the number where there is none; never NULL, owned by `e` or static. */
const char *error_message(const Error *e);
