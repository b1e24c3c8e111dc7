/* SPDX-License-Identifier: MIT */

#include "base/error.h"

#include <errno.h>
#include <string.h>

void error_clear(Error *e)
{
    free(e->message);
    *e = ERROR_INIT;
}

int error_setv(Error *e, int number, const char *format, va_list ap)
{
    char *message;

    if (!e)
        return number;
    /* The arguments may point into the old message, so it goes last. */
    if (vasprintf(&message, format, ap) < 0)
        message = NULL;
    error_clear(e);
    e->number = number;
    e->message = message;
    return number;
}

int error_set(Error *e, int number, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    error_setv(e, number, format, ap);
    va_end(ap);
    return number;
}

int error_set_errno(Error *e, int number, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
    va_list ap;
    int n;

    if (!e)
        return number;
    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0) {
        text = NULL;
        error_clear(e);
        e->number = number;
        return number;
    }
    return error_set(e, number, "%s: %s", text, strerrordesc_np(-number) ?: "unknown error");
}

int error_prefix(Error *e, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
    va_list ap;
    int n;

    if (!e || e->number == 0)
        return 0;
    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0) {
        text = NULL;
        return e->number;
    }
    return error_set(e, e->number, "%s: %s", text, error_message(e));
}

int error_move(Error *to, Error *from)
{
    int number = from->number;

    if (to) {
        error_clear(to);
        *to = *from;
        *from = ERROR_INIT;
    } else
        error_clear(from);
    return number;
}

const char *error_message(const Error *e)
{
    if (e->message)
        return e->message;
    if (e->number == 0)
        return "no error";
    return strerrordesc_np(-e->number) ?: "unknown error";
}
