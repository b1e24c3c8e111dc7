/* SPDX-License-Identifier: MIT */

#include "base/log.h"

#include <errno.h>
#include <string.h>

static int log_fd = STDERR_FILENO;
static int log_max_level = LOG_INFO;
static bool log_level_prefix;
static char log_tag[128];

void log_setup(int fd, int max_level, bool level_prefix, const char *tag)
{
    log_fd = fd;
    log_max_level = max_level;
    log_level_prefix = level_prefix;
    snprintf(log_tag, sizeof(log_tag), "%s", tag ?: "");
}

void log_set_max_level(int level)
{
    log_max_level = level;
}

int log_get_max_level(void)
{
    return log_max_level;
}

/* A message is one line: control characters, which a guest might have put into an error text, would let it
 * forge further lines. */
static size_t line_sanitize(char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    return n;
}

void log_write(int level, const char *format, ...)
{
    char line[2048];
    size_t n = 0, start;
    va_list ap;
    int saved_errno = errno, k;

    if (level > log_max_level)
        return;
    if (log_level_prefix)
        n += (size_t)snprintf(line, sizeof(line), "<%i>", level);
    start = n;
    if (log_tag[0])
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%s: ", log_tag);
    va_start(ap, format);
    k = vsnprintf(line + n, sizeof(line) - n, format, ap);
    va_end(ap);
    if (k < 0)
        return;
    n += (size_t)k;
    if (n > sizeof(line) - 2)
        n = sizeof(line) - 2;
    line_sanitize(line + start, n - start);
    line[n++] = '\n';
    /* Nobody could be told that a log line was lost. */
    if (write(log_fd, line, n) < 0)
        errno = saved_errno;
    errno = saved_errno;
}

int log_error_errno(int number, const char *format, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    if (vsnprintf(text, sizeof(text), format, ap) < 0)
        text[0] = 0;
    va_end(ap);
    log_error("%s: %s", text, strerrordesc_np(-number) ?: "unknown error");
    return number;
}
