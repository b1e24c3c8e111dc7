/* SPDX-License-Identifier: MIT */

#include "ttrpc/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "ttrpc/link.h"

/* A server reads no more while this much waits to be written. A client always reads: so two ends never wait
 * for each other. */
#define QUEUE_PAUSE (1u << 20)
/* How often a level-triggered descriptor is read before others get their turn. */
#define READS_PER_EVENT 4
#define READ_SIZE 16384
#define GREETING_MAX 64

typedef struct Out {
    struct Out *next;
    size_t size, done;
    uint8_t *bytes;
    bool control; /* of the link layer or a greeting: not held back */
    size_t n_fds;
    int fds[];
} Out;

/* What is expected before the first frame, and what came of it. */
typedef struct Greeting {
    char expected[GREETING_MAX];
    char line[GREETING_MAX];
    size_t n;
} Greeting;

struct Transport {
    unsigned refs;
    Loop *loop;
    int fd;
    TransportKind kind;
    LoopSource *source;
    LoopSource *failure; /* runs when a write has failed */
    uint32_t events;
    int write_error; /* negative errno */
    bool paused;     /* reading */
    bool unplugged;  /* of a port: it will not come back */
    bool lost;       /* closed, or lost: nothing is done any more */
    bool session;    /* `lost` is owed when the connection or session ends */
    FrameParser parser;
    Link *link;
    Greeting *greeting;
    Out *first, *last;
    size_t queued;
    const TransportHandlers *handlers;
    void *userdata;
};

static bool is_serial(const Transport *t)
{
    return t->kind == TRANSPORT_SERIAL_SERVER || t->kind == TRANSPORT_SERIAL_CLIENT;
}

/* The guest's end of a port: outlives its sessions, and is watched edge-triggered, because a port whose host
 * side is closed is readable and hung up all the time. */
static bool is_port(const Transport *t)
{
    return t->kind == TRANSPORT_SERIAL_SERVER;
}

static Out *out_free(Out *o)
{
    for (size_t i = 0; i < o->n_fds; i++)
        fd_close(o->fds[i]);
    free(o->bytes);
    free(o);
    return NULL;
}

static void queue_clear(Transport *t)
{
    while (t->first) {
        Out *o = t->first;

        t->first = o->next;
        out_free(o);
    }
    t->last = NULL;
    t->queued = 0;
}

static void ref(Transport *t)
{
    t->refs++;
}

static void unref(Transport *t)
{
    if (--t->refs > 0)
        return;
    frame_parser_clear(&t->parser);
    ttrpc_link_free(t->link);
    free(t->greeting);
    free(t);
}

/* Releases everything but the object. */
static void shut(Transport *t)
{
    t->lost = true;
    t->source = loop_source_free(t->source);
    t->failure = loop_source_free(t->failure);
    t->fd = fd_close(t->fd);
    queue_clear(t);
}

static void set_events(Transport *t)
{
    uint32_t events;

    if (t->lost || is_port(t))
        return;
    events = (t->paused ? 0 : EPOLLIN) |
             (t->first && !(transport_is_held(t) && !t->first->control) ? EPOLLOUT : 0);
    if (events == t->events || loop_source_set_io_events(t->source, events) < 0)
        return;
    t->events = events;
}

bool transport_is_held(const Transport *t)
{
    return t->greeting || (t->kind == TRANSPORT_SERIAL_CLIENT && !ttrpc_link_is_established(t->link));
}

size_t transport_queued(const Transport *t)
{
    return t->queued;
}

int *transport_take_fds(Transport *t, size_t *ret_n)
{
    return frame_parser_take_fds(&t->parser, ret_n);
}

/* ------------------------------------------------------------------------------------------------ end */

void transport_abort(Transport *t, const Error *reason)
{
    bool session = t->session;

    if (t->lost)
        return;
    ref(t);
    t->session = false;
    frame_parser_clear(&t->parser);
    if (is_port(t) && !t->unplugged)
        queue_clear(t);
    else
        shut(t);
    if (session)
        t->handlers->lost(t, reason, t->userdata);
    unref(t);
}

static void _printf_(3, 4) abort_with(Transport *t, int number, const char *format, ...)
{
    _cleanup_error_ Error e = ERROR_INIT;
    va_list ap;

    va_start(ap, format);
    error_setv(&e, number, format, ap);
    va_end(ap);
    transport_abort(t, &e);
}

Transport *transport_free(Transport *t)
{
    uint8_t *close_frame;
    size_t size;

    if (!t)
        return NULL;
    /* Not into the middle of another frame; there the next client's reset has the same effect. */
    if (!t->lost && t->kind == TRANSPORT_SERIAL_CLIENT && ttrpc_link_is_established(t->link) && !t->first &&
        ttrpc_link_pack_close(t->link, &close_frame, &size) >= 0) {
        (void)send(t->fd, close_frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        free(close_frame);
    }
    t->session = false;
    if (!t->lost)
        shut(t);
    unref(t);
    return NULL;
}

/* ---------------------------------------------------------------------------------------------- output */

static ssize_t write_some(Transport *t, Out *o)
{
    struct iovec iov = {.iov_base = o->bytes + o->done, .iov_len = o->size - o->done};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FRAME_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    do {
        if (is_port(t))
            n = write(t->fd, iov.iov_base, iov.iov_len);
        else if (o->n_fds == 0)
            n = send(t->fd, iov.iov_base, iov.iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else {
            mh.msg_control = &control;
            mh.msg_controllen = CMSG_SPACE(o->n_fds * sizeof(int));
            memset(&control, 0, sizeof(control));
            control.header.cmsg_level = SOL_SOCKET;
            control.header.cmsg_type = SCM_RIGHTS;
            control.header.cmsg_len = CMSG_LEN(o->n_fds * sizeof(int));
            memcpy(CMSG_DATA(&control.header), o->fds, o->n_fds * sizeof(int));
            n = sendmsg(t->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void out_sent(Out *o, size_t n)
{
    o->done += n;
    for (size_t i = 0; i < o->n_fds; i++)
        fd_close(o->fds[i]);
    o->n_fds = 0;
}

/* Writes what the kernel takes. A negative errno when the descriptor is broken. */
static int flush(Transport *t)
{
    while (t->first && !(transport_is_held(t) && !t->first->control)) {
        Out *o = t->first;
        ssize_t n = write_some(t, o);

        if (n == -EAGAIN || (n == 0 && is_port(t)))
            break;
        if (n < 0)
            return (int)n;
        out_sent(o, (size_t)n);
        t->queued -= (size_t)n;
        if (o->done < o->size)
            continue;
        t->first = o->next;
        if (!t->first)
            t->last = NULL;
        out_free(o);
    }
    return 0;
}

static void on_failure(_unused_ LoopSource *source, void *userdata);

/* Writes what can be written. A failure is handled later, from the loop: the caller of ours must not be
 * called back from inside its call. */
static void try_flush(Transport *t)
{
    if (t->write_error == 0)
        t->write_error = flush(t);
    if (t->write_error == 0)
        return;
    queue_clear(t);
    if (!t->failure)
        (void)loop_add_defer(t->loop, on_failure, t, &t->failure);
}

/* Appends bytes, which become the queue's, and writes if nothing is before them. */
static int enqueue(Transport *t, uint8_t *bytes, size_t size, const int *fds, size_t n_fds, bool control)
{
    Out *o = calloc(1, sizeof(*o) + n_fds * sizeof(int));
    bool was_empty = !t->first;
    int r = 0;

    if (!o) {
        free(bytes);
        return -ENOMEM;
    }
    o->bytes = bytes;
    o->size = size;
    o->control = control;
    for (; o->n_fds < n_fds; o->n_fds++) {
        o->fds[o->n_fds] = fcntl(fds[o->n_fds], F_DUPFD_CLOEXEC, 3);
        if (o->fds[o->n_fds] < 0) {
            r = -errno;
            out_free(o);
            return r;
        }
    }
    if (t->last)
        t->last->next = o;
    else
        t->first = o;
    t->last = o;
    t->queued += size;
    if (was_empty || t->write_error < 0)
        try_flush(t);
    if (t->queued > QUEUE_PAUSE && (t->kind == TRANSPORT_SERVER || is_port(t)))
        t->paused = true;
    set_events(t);
    return 0;
}

int transport_send(Transport *t, uint8_t *frame, size_t size, const int *fds, size_t n_fds)
{
    uint8_t *wrapped;
    size_t wrapped_size;
    int r;

    if (t->lost || !t->session) {
        free(frame);
        return -ENOTCONN;
    }
    if (n_fds > FRAME_FDS_MAX || (n_fds > 0 && is_serial(t))) {
        free(frame);
        return -EINVAL;
    }
    if (!is_serial(t))
        return enqueue(t, frame, size, fds, n_fds, false);
    r = ttrpc_link_pack_data(t->link, frame, size, &wrapped, &wrapped_size);
    free(frame);
    return r < 0 ? r : enqueue(t, wrapped, wrapped_size, NULL, 0, false);
}

int transport_greet(Transport *t, const char *line, const char *expected)
{
    char *bytes = strdup(line);

    if (!bytes)
        return -ENOMEM;
    t->greeting = calloc(1, sizeof(*t->greeting));
    if (!t->greeting) {
        free(bytes);
        return -ENOMEM;
    }
    snprintf(t->greeting->expected, sizeof(t->greeting->expected), "%s", expected);
    return enqueue(t, (uint8_t *)bytes, strlen(line), NULL, 0, true);
}

/* ----------------------------------------------------------------------------------------------- input */

/* Feeds ttrpc's bytes. False when the connection or session has ended by it. */
static bool input_frames(Transport *t, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds)
{
    Frame frame;
    int r = frame_parser_feed(&t->parser, bytes, n, fds, n_fds);

    while (r >= 0) {
        _cleanup_error_ Error e = ERROR_INIT;

        r = frame_parser_next(&t->parser, &frame);
        if (r != 0)
            break;
        r = t->handlers->frame(t, &frame, t->userdata, &e);
        if (t->lost || !t->session)
            return false;
        if (r < 0) {
            transport_abort(t, &e);
            return false;
        }
    }
    if (r < 0) {
        abort_with(t, r, "cannot receive a message: %s", strerrordesc_np(-r));
        return false;
    }
    return true;
}

static void link_reset_received(Transport *t)
{
    uint8_t *ack;
    size_t size;
    int r;

    abort_with(t, -ECONNRESET, "the other side has begun a new session");
    if (t->lost)
        return;
    queue_clear(t);
    r = ttrpc_link_pack_reset_ack(t->link, &ack, &size);
    if (r >= 0)
        r = enqueue(t, ack, size, NULL, 0, true);
    if (r < 0)
        ttrpc_link_end(t->link);
    else
        t->session = true;
}

/* A session that we end while the other side may still believe in it. */
static void link_refuse(Transport *t)
{
    uint8_t *frame;
    size_t size;

    if (t->lost || !is_port(t))
        return;
    ttrpc_link_end(t->link);
    if (ttrpc_link_pack_close(t->link, &frame, &size) >= 0)
        (void)enqueue(t, frame, size, NULL, 0, true);
}

static void link_event(Transport *t, const LinkEvent *event)
{
    switch (event->type) {
    case LINK_STARTED:
        if (is_port(t))
            link_reset_received(t);
        else
            try_flush(t);
        break;
    case LINK_DATA:
        if (t->session && !input_frames(t, event->payload, event->size, NULL, 0))
            link_refuse(t);
        break;
    case LINK_CLOSED:
        abort_with(t, -ECONNRESET, "the other side has ended the session");
        break;
    case LINK_BROKEN:
        abort_with(t, -EBADMSG, "a damaged frame arrived on the serial port");
        link_refuse(t);
        break;
    }
}

static void input_link(Transport *t, const uint8_t *bytes, size_t n)
{
    LinkEvent event;
    int r;

    ttrpc_link_feed(t->link, bytes, n);
    while ((r = ttrpc_link_next(t->link, &event)) == 0) {
        link_event(t, &event);
        if (t->lost)
            return;
    }
    if (r < 0) {
        ttrpc_link_stop(t->link);
        abort_with(t, r, "cannot receive a message: %s", strerrordesc_np(-r));
    }
}

/* Takes the answer to the greeting from the front of *bytes. */
static void input_greeting(Transport *t, const uint8_t **bytes, size_t *n)
{
    Greeting *g = t->greeting;

    while (*n > 0) {
        char c = (char)**bytes;

        (*bytes)++;
        (*n)--;
        if (c == '\n') {
            if (strncmp(g->line, g->expected, strlen(g->expected)) != 0)
                break;
            free(g);
            t->greeting = NULL;
            return;
        }
        if (g->n + 1 >= sizeof(g->line))
            break;
        g->line[g->n++] = c >= ' ' && c <= '~' ? c : '?';
        if (*n == 0)
            return;
    }
    abort_with(t, -ECONNREFUSED, "the other side refused the connection: '%s'", g->line);
}

static void input(Transport *t, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds)
{
    if (t->greeting) {
        input_greeting(t, &bytes, &n);
        if (t->lost || t->greeting)
            return;
        try_flush(t);
    }
    if (t->link)
        input_link(t, bytes, n);
    else if (n > 0)
        (void)input_frames(t, bytes, n, fds, n_fds);
}

static ssize_t read_socket(int fd, uint8_t *buffer, size_t size, int *fds, size_t *ret_n_fds)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FRAME_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    struct msghdr mh = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
        size_t k;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds + *ret_n_fds, CMSG_DATA(c), k * sizeof(int));
        *ret_n_fds += k;
    }
    return n;
}

static ssize_t read_some(Transport *t, uint8_t *buffer, size_t size, int *fds, size_t *ret_n_fds)
{
    ssize_t n;

    *ret_n_fds = 0;
    do {
        if (t->kind == TRANSPORT_SERVER)
            n = read_socket(t->fd, buffer, size, fds, ret_n_fds);
        else {
            n = is_port(t) ? read(t->fd, buffer, size) : recv(t->fd, buffer, size, MSG_DONTWAIT);
            n = n < 0 ? -errno : n;
        }
    } while (n == -EINTR);
    return n;
}

static void read_ended(Transport *t, ssize_t n)
{
    /* The kernel hands out a new client's bytes before it learns, from another queue, that the host's side is
     * open again: until then reads end and writes wait. An answer to that client's reset that waits tells. */
    if (is_port(t) && n == 0 && t->first && t->first->control)
        return;
    if (is_port(t)) {
        if (n < 0)
            ttrpc_link_stop(t->link);
        else
            ttrpc_link_end(t->link);
        t->unplugged = n < 0;
    }
    if (n == 0 && t->greeting)
        abort_with(t, -ECONNREFUSED, "the other side closed the connection instead of answering");
    else if (n == 0)
        abort_with(t, -ECONNRESET, "the other side closed the connection");
    else
        abort_with(t, (int)n, "cannot receive: %s", strerrordesc_np((int)-n));
}

/* Reads what there is, up to a bound where the loop will tell again. */
static void read_input(Transport *t, unsigned max)
{
    uint8_t buffer[READ_SIZE];
    int fds[FRAME_FDS_MAX];
    size_t n_fds;

    for (unsigned i = 0; i < max && !t->lost && !t->paused; i++) {
        ssize_t n = read_some(t, buffer, sizeof(buffer), fds, &n_fds);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            read_ended(t, n);
            return;
        }
        input(t, buffer, (size_t)n, fds, n_fds);
        if (!is_port(t) && (size_t)n < sizeof(buffer))
            return;
    }
}

/* A write has failed. What the other side has sent before it closed is still delivered. */
static void on_failure(_unused_ LoopSource *source, void *userdata)
{
    Transport *t = userdata;

    ref(t);
    t->failure = loop_source_free(t->failure);
    t->paused = false;
    read_input(t, UINT32_MAX);
    if (!t->lost)
        abort_with(t, t->write_error, "cannot send: %s", strerrordesc_np(-t->write_error));
    if (is_port(t)) {
        t->write_error = 0;
        link_refuse(t);
    }
    unref(t);
}

static void on_io(_unused_ LoopSource *source, _unused_ int fd, uint32_t revents, void *userdata)
{
    Transport *t = userdata;
    bool had_output = t->first;

    ref(t);
    try_flush(t);
    if (t->queued <= QUEUE_PAUSE / 2)
        t->paused = false;
    if (had_output && !t->first && t->handlers->drained)
        t->handlers->drained(t, t->userdata);
    if (!t->lost && (is_port(t) || revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_input(t, is_port(t) ? UINT32_MAX : READS_PER_EVENT);
    set_events(t);
    unref(t);
}

/* -------------------------------------------------------------------------------------------- handover */

int transport_suspend(const Transport *t, int *ret_fd, uint64_t *ret_nonce)
{
    if (t->lost || !t->session)
        return -ENOTCONN;
    if (t->first || !frame_parser_is_at_rest(&t->parser) || (t->link && !ttrpc_link_is_at_rest(t->link)))
        return -EBUSY;
    *ret_fd = t->fd;
    *ret_nonce = t->link ? ttrpc_link_nonce(t->link) : 0;
    return 0;
}

void transport_resume(Transport *t, uint64_t nonce, const uint8_t *frame, size_t size)
{
    ref(t);
    if (t->link)
        ttrpc_link_resume(t->link, nonce);
    t->session = true;
    if (!input_frames(t, frame, size, NULL, 0) && t->link)
        link_refuse(t);
    unref(t);
}

void transport_end_session(Transport *t)
{
    if (t->lost || !t->session)
        return;
    ref(t);
    abort_with(t, -ECONNRESET, "the session was ended");
    link_refuse(t);
    unref(t);
}

/* ----------------------------------------------------------------------------------------------- begin */

static int serial_begin(Transport *t)
{
    uint64_t nonce;
    uint8_t *reset;
    size_t size;
    int r;

    r = ttrpc_link_new(is_port(t) ? LINK_SERVER : LINK_CLIENT, &t->link);
    if (r < 0 || is_port(t))
        return r;
    if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
        return -EIO;
    ttrpc_link_start(t->link, nonce);
    r = ttrpc_link_pack_reset(t->link, &reset, &size);
    return r < 0 ? r : enqueue(t, reset, size, NULL, 0, true);
}

int transport_new(Loop *loop, int fd, TransportKind kind, const TransportHandlers *handlers, void *userdata,
                  Transport **ret)
{
    _cleanup_(transport_freep) Transport *t = calloc(1, sizeof(*t));
    int r;

    if (!t) {
        fd_close(fd);
        return -ENOMEM;
    }
    *t = (Transport){
        .refs = 1,
        .loop = loop,
        .fd = fd,
        .kind = kind,
        .handlers = handlers,
        .userdata = userdata,
        .session = kind != TRANSPORT_SERIAL_SERVER,
    };
    t->events = kind == TRANSPORT_SERIAL_SERVER ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLIN;
    r = fd_set_nonblock(fd, true);
    if (r < 0)
        return r;
    r = loop_add_io(loop, fd, t->events, on_io, t, &t->source);
    if (r < 0)
        return r;
    if (is_serial(t)) {
        r = serial_begin(t);
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(t);
    return 0;
}
