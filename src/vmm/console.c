/* SPDX-License-Identifier: MIT */

#include "vmm/console.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

#define RING_SIZE (16 * 1024)

/* A Unix socket holds a few hundred single bytes, which is what a UART sends: about 27 kB/s with the short
 * pause, more than twice a line of 115,200 bit/s, which is enough for a verbose boot; then a tenth of it. */
#define PAUSE_USEC (10 * USEC_PER_MSEC)
#define LONG_PAUSE_USEC (100 * USEC_PER_MSEC)
#define LONG_PAUSE_AFTER (256 * 1024)

struct Console {
    int fd;
    LoopSource *io, *timer;
    char *ring; /* NULL until something is printed: most guests print little, late, or nothing */
    uint64_t total;
};

static void keep(Console *c, const char *data, size_t n)
{
    if (!c->ring)
        c->ring = malloc(RING_SIZE);
    if (!c->ring)
        return;
    for (size_t i = 0; i < n; i++)
        c->ring[(c->total + i) % RING_SIZE] = data[i];
    c->total += n;
}

/* One read: true while there may be more. */
static bool read_once(Console *c)
{
    char buffer[4096];
    ssize_t k = read(c->fd, buffer, sizeof(buffer));

    if (k > 0) {
        keep(c, buffer, (size_t)k);
        return true;
    }
    if (k < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    c->io = loop_source_free(c->io);
    c->timer = loop_source_free(c->timer);
    c->fd = fd_close(c->fd);
    return false;
}

static void on_io(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Console *c = userdata;
    bool more = true;

    for (int i = 0; i < 16 && more; i++)
        more = read_once(c);
    if (c->fd < 0)
        return;
    if (loop_source_set_timer(c->timer, c->total < LONG_PAUSE_AFTER ? PAUSE_USEC : LONG_PAUSE_USEC) >= 0)
        (void)loop_source_set_io_events(c->io, 0);
}

static void on_timer(LoopSource *source, void *userdata)
{
    Console *c = userdata;

    (void)loop_source_set_io_events(c->io, EPOLLIN);
}

void console_drain(Console *c)
{
    for (int i = 0; i < 1024 && c->fd >= 0; i++)
        if (!read_once(c))
            break;
}

int console_new(Loop *loop, int fd, Console **ret)
{
    _cleanup_(console_freep) Console *c = calloc(1, sizeof(*c));
    int r;

    if (!c) {
        fd_close(fd);
        return -ENOMEM;
    }
    c->fd = fd;
    r = fd_set_nonblock(fd, true);
    if (r < 0)
        return r;
    r = loop_add_io(loop, fd, EPOLLIN, on_io, c, &c->io);
    if (r < 0)
        return r;
    r = loop_add_timer(loop, UINT64_MAX, on_timer, c, &c->timer);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(c);
    return 0;
}

Console *console_free(Console *c)
{
    if (!c)
        return NULL;
    loop_source_free(c->io);
    loop_source_free(c->timer);
    fd_close(c->fd);
    free(c->ring);
    free(c);
    return NULL;
}

/* Skips an escape sequence of a terminal; gives the offset of its last byte. SeaBIOS and shells send them. */
static size_t skip_escape(const char *text, size_t n, size_t i)
{
    if (i + 1 >= n || text[i + 1] != '[')
        return i + 1 < n ? i + 1 : i;
    for (i += 2; i < n; i++)
        if (text[i] >= 0x40 && text[i] <= 0x7e)
            return i;
    return n - 1;
}

/* Appends " | " once between lines that have text. */
static char *flatten(const char *text, size_t n, size_t *ret_size)
{
    char *out = malloc(3 * n + 1);
    size_t k = 0;
    bool line_end = false;

    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == 0x1b) {
            i = skip_escape(text, n, i);
            continue;
        }
        if (c == '\n' || c == '\r') {
            line_end = k > 0;
            continue;
        }
        if (c < ' ' || c == 0x7f)
            continue;
        if (line_end) {
            memcpy(out + k, " | ", 3);
            k += 3;
            line_end = false;
        }
        out[k++] = c < 0x80 ? (char)c : '?';
    }
    out[k] = 0;
    *ret_size = k;
    return out;
}

char *console_text_tail(const char *text, size_t n, size_t max)
{
    size_t size = 0;
    char *flat = flatten(text, n, &size), *begin, *cut;

    if (!flat || size <= max)
        return flat;
    begin = flat + size - max;
    cut = strstr(begin, " | ");
    if (cut && cut[3])
        begin = cut + 3;
    memmove(flat, begin, strlen(begin) + 1);
    return flat;
}

char *console_tail(const Console *c, size_t max)
{
    size_t n = c->total < RING_SIZE ? (size_t)c->total : RING_SIZE;
    _cleanup_free_ char *linear = malloc(n + 1);

    if (!linear)
        return NULL;
    for (size_t i = 0; i < n; i++)
        linear[i] = c->ring[(c->total - n + i) % RING_SIZE];
    return console_text_tail(linear, n, max);
}
