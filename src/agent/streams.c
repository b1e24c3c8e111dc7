/* SPDX-License-Identifier: MIT */

#include "agent/streams.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"

struct OutputStream {
    Loop *loop;
    int fd; /* -EBADF once the end was seen */
    LoopSource *source;
    bool finished;

    /* Bytes read and not acknowledged; the first is at `position` of the stream. */
    char *held;
    size_t n_held;
    uint64_t position;

    OutputFn callback; /* of the read that waits, or NULL */
    void *userdata;
    size_t max;
};

static void output_watch(OutputStream *s, bool on)
{
    if (s->source)
        (void)loop_source_set_io_events(s->source, on ? EPOLLIN | EPOLLONESHOT : EPOLLONESHOT);
}

static void output_end(OutputStream *s)
{
    s->source = loop_source_free(s->source);
    s->fd = fd_close(s->fd);
}

/* Reads one piece into an empty `held`. 0 when there is data or the end was reached, -EAGAIN, or an error. */
static int output_fill(OutputStream *s)
{
    int available = 0;
    size_t want;
    ssize_t n;

    if (s->fd < 0)
        return 0;
    /* What is there decides the size of the buffer, so that an idle stream holds nothing. */
    if (ioctl(s->fd, FIONREAD, &available) < 0)
        return -errno;
    want = available > 0 ? (size_t)available : 1;
    if (want > s->max)
        want = s->max;
    s->held = malloc(want);
    if (!s->held)
        return -ENOMEM;
    do
        n = read(s->fd, s->held, want);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        s->n_held = (size_t)n;
        return 0;
    }
    n = n < 0 ? -errno : 0;
    free(TAKE_PTR(s->held));
    if (n == -EAGAIN && !s->finished)
        return -EAGAIN;
    if (n < 0 && n != -EAGAIN)
        return (int)n;
    output_end(s);
    return 0;
}

static void output_complete(OutputStream *s, int number)
{
    OutputFn callback = TAKE_PTR(s->callback);
    size_t n = s->n_held < s->max ? s->n_held : s->max;

    if (number < 0)
        callback(number, NULL, 0, false, s->userdata);
    else
        callback(0, s->held, n, s->fd < 0 && n == s->n_held, s->userdata);
}

/* Answers the read that waits, if it can be. */
static void output_pump(OutputStream *s)
{
    int r = s->n_held > 0 ? 0 : output_fill(s);

    if (r == -EAGAIN)
        output_watch(s, true);
    else
        output_complete(s, r);
}

static void on_output(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    OutputStream *s = userdata;

    if (s->callback)
        output_pump(s);
}

int output_stream_new(Loop *loop, int fd, OutputStream **ret)
{
    OutputStream *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        fd_close(fd);
        return -ENOMEM;
    }
    *s = (OutputStream){.loop = loop, .fd = fd};
    r = fd_set_nonblock(fd, true);
    /* One shot at a time, armed by a read that waits: a pipe with data that nobody wants wakes nobody. */
    if (r >= 0)
        r = loop_add_io(loop, fd, EPOLLONESHOT, on_output, s, &s->source);
    if (r < 0) {
        output_stream_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

OutputStream *output_stream_free(OutputStream *s)
{
    if (!s)
        return NULL;
    if (s->callback)
        output_complete(s, -ECANCELED);
    output_end(s);
    free(s->held);
    free(s);
    return NULL;
}

int output_stream_read(OutputStream *s, uint64_t offset, size_t max, OutputFn callback, void *userdata)
{
    size_t acknowledged;

    if (offset < s->position || offset - s->position > s->n_held)
        return -ERANGE;
    if (s->callback)
        output_complete(s, -ECANCELED);
    acknowledged = (size_t)(offset - s->position);
    s->position = offset;
    s->n_held -= acknowledged;
    if (s->n_held > 0)
        memmove(s->held, s->held + acknowledged, s->n_held);
    else
        free(TAKE_PTR(s->held));
    s->callback = callback;
    s->userdata = userdata;
    s->max = max == 0 || max > AGENT_STREAM_PIECE_MAX ? AGENT_STREAM_PIECE_MAX : max;
    output_pump(s);
    return 0;
}

void output_stream_cancel(OutputStream *s)
{
    s->callback = NULL;
    output_watch(s, false);
}

void output_stream_finish(OutputStream *s)
{
    s->finished = true;
    if (s->callback)
        output_pump(s);
}

struct InputStream {
    int fd; /* -EBADF once closed */
    LoopSource *source;
    bool closing;      /* close when the write that waits is done */
    uint64_t position; /* bytes taken so far */

    InputFn callback; /* of the write that waits, or NULL */
    void *userdata;
    const char *data;
    size_t n;
};

static void input_shut(InputStream *s)
{
    s->source = loop_source_free(s->source);
    s->fd = fd_close(s->fd);
}

static void input_complete(InputStream *s, int number)
{
    InputFn callback = TAKE_PTR(s->callback);

    /* A write that is cut short is repeated by the one that follows, so the end waits for that. */
    if ((s->closing && number == 0) || number == -EPIPE)
        input_shut(s);
    callback(number, s->userdata);
}

static void input_pump(InputStream *s)
{
    while (s->n > 0) {
        ssize_t k = s->fd < 0 ? -1 : write(s->fd, s->data, s->n);

        if (s->fd < 0) {
            input_complete(s, -EPIPE);
            return;
        }
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0 && errno == EAGAIN) {
            (void)loop_source_set_io_events(s->source, EPOLLOUT | EPOLLONESHOT);
            return;
        }
        if (k < 0) {
            input_complete(s, -errno);
            return;
        }
        s->data += k;
        s->n -= (size_t)k;
        s->position += (uint64_t)k;
    }
    input_complete(s, 0);
}

static void on_input(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    InputStream *s = userdata;

    if (s->callback)
        input_pump(s);
}

int input_stream_new(Loop *loop, int fd, InputStream **ret)
{
    InputStream *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        fd_close(fd);
        return -ENOMEM;
    }
    s->fd = fd;
    r = fd_set_nonblock(fd, true);
    if (r >= 0)
        r = loop_add_io(loop, fd, EPOLLONESHOT, on_input, s, &s->source);
    if (r < 0) {
        input_stream_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

InputStream *input_stream_free(InputStream *s)
{
    if (!s)
        return NULL;
    if (s->callback)
        input_complete(s, -ECANCELED);
    input_shut(s);
    free(s);
    return NULL;
}

int input_stream_write(InputStream *s, uint64_t offset, const void *data, size_t n, InputFn callback,
                       void *userdata)
{
    uint64_t known;

    if (offset > s->position)
        return -ERANGE;
    if (s->callback)
        input_complete(s, -ECANCELED);
    known = s->position - offset;
    s->callback = callback;
    s->userdata = userdata;
    s->data = known < n ? (const char *)data + known : NULL;
    s->n = known < n ? n - (size_t)known : 0;
    input_pump(s);
    return 0;
}

void input_stream_cancel(InputStream *s)
{
    s->callback = NULL;
    (void)loop_source_set_io_events(s->source, EPOLLONESHOT);
}

void input_stream_close(InputStream *s)
{
    s->closing = true;
    if (!s->callback)
        input_shut(s);
}
