/* SPDX-License-Identifier: MIT */

#include "shim/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/log.h"

enum {
    OUTPUT_PIECE = 64 * 1024, /* as much as a FIFO takes */
    INPUT_PIECE = 32 * 1024,
};

/* How long an ended process may wait for a reader that takes nothing. */
#define STALL_USEC (10 * USEC_PER_SEC)
#define CALL_TIMEOUT_USEC (30 * USEC_PER_SEC)

typedef struct Output {
    Stdio *io;
    Cloudhv__Agent__V1__Stream stream;
    const char *name;
    char *path;
    int fd;
    bool fifo;
    bool failed;        /* writing failed before: what comes is dropped, so that the process goes on */
    bool drained;
    bool eof;           /* nothing comes after `rest` */
    bool ended;         /* all is written that will be; the FIFO has yet to be read empty */
    uint64_t offset;    /* of what is to be pulled next */
    uint8_t *rest;      /* pulled, not yet written */
    size_t n_rest, written;
    TtrpcPending *call;
    LoopSource *writable;
    int inotify_fd;     /* after the end: tells when the FIFO was read */
    LoopSource *was_read;
} Output;

typedef struct Input {
    char *path;
    bool closed; /* CloseIO came already */
    int fd;
    int write_fd; /* held so that there is no end of file before CloseIO */
    uint64_t offset;
    TtrpcPending *call;
    LoopSource *readable;
} Input;

struct Stdio {
    Loop *loop;
    char *id, *exec_id;
    TtrpcClient *agent;
    Output out[2];
    Input in;
    LoopSource *stall;
    LoopSource *drained_later;
    StdioDrainedFn drained;
    void *userdata;
    bool ended; /* the process */
    bool told;
};

static void pull(Output *o);
static void input_wait(Stdio *io);

/* ------------------------------------------------------------------------------------------------- output */

static void output_close(Output *o)
{
    o->was_read = loop_source_free(o->was_read);
    o->inotify_fd = fd_close(o->inotify_fd);
    o->fd = fd_close(o->fd);
}

static void progress(Stdio *io)
{
    if (io->stall)
        (void)loop_source_set_timer(io->stall, STALL_USEC);
}

static void on_drained_later(_unused_ LoopSource *source, void *userdata)
{
    Stdio *io = userdata;

    io->drained_later = loop_source_free(io->drained_later);
    io->drained(io->userdata);
}

static void check_drained(Stdio *io)
{
    if (!io->ended || io->told || !io->out[0].drained || !io->out[1].drained)
        return;
    io->told = true;
    io->stall = loop_source_free(io->stall);
    if (loop_add_defer(io->loop, on_drained_later, io, &io->drained_later) < 0)
        io->drained(io->userdata);
}

static void output_drained(Output *o)
{
    output_close(o);
    if (o->drained)
        return;
    o->drained = true;
    check_drained(o->io);
}

static bool is_empty(int fd)
{
    int n = 0;

    return ioctl(fd, FIONREAD, &n) < 0 || n == 0;
}

static void on_was_read(_unused_ LoopSource *source, int fd, _unused_ uint32_t revents, void *userdata)
{
    char events[sizeof(struct inotify_event) + 256];
    Output *o = userdata;

    while (read(fd, events, sizeof(events)) > 0)
        ;
    progress(o->io);
    if (is_empty(o->fd))
        output_drained(o);
}

/* Bytes in a FIFO would be lost if the last descriptor were closed while containerd is being restarted and so has
 * none. 1 when it has to be waited for its reader. */
static int await_reader(Output *o)
{
    if (!o->fifo || o->fd < 0)
        return 0;
    o->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (o->inotify_fd < 0 || inotify_add_watch(o->inotify_fd, o->path, IN_ACCESS) < 0 ||
        loop_add_io(o->io->loop, o->inotify_fd, EPOLLIN, on_was_read, o, &o->was_read) < 0)
        return 0;
    return !is_empty(o->fd);
}

/* Nothing more will be written. */
static void output_done(Output *o)
{
    if (o->drained || o->ended)
        return;
    if (o->call)
        ttrpc_pending_cancel(TAKE_PTR(o->call));
    o->ended = true;
    o->writable = loop_source_free(o->writable);
    free(TAKE_PTR(o->rest));
    if (!await_reader(o))
        output_drained(o);
}

/* Writes as much as goes. Returns the number of bytes taken; all of them when writing is hopeless. */
static size_t output_write(Output *o, const uint8_t *data, size_t n)
{
    size_t done = 0;

    while (done < n && !o->failed) {
        ssize_t k = write(o->fd, data + done, n - done);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0 && errno == EAGAIN)
            break;
        if (k < 0) {
            log_warning("container %s: cannot write to %s: %m; further output is dropped", o->io->id, o->path);
            o->failed = true;
            return n;
        }
        done += (size_t)k;
    }
    if (done > 0)
        progress(o->io);
    return o->failed ? n : done;
}

static void output_written(Output *o, size_t n)
{
    o->offset += n;
    if (o->eof)
        output_done(o);
    else
        pull(o);
}

static void on_writable(_unused_ LoopSource *source, _unused_ int fd, _unused_ uint32_t revents, void *userdata)
{
    Output *o = userdata;
    size_t n = o->n_rest;

    o->written += output_write(o, o->rest + o->written, o->n_rest - o->written);
    if (o->written < o->n_rest)
        return;
    free(TAKE_PTR(o->rest));
    o->writable = loop_source_free(o->writable);
    output_written(o, n);
}

/* Keeps what the FIFO did not take until it takes more. */
static int keep_rest(Output *o, const uint8_t *data, size_t n)
{
    o->rest = malloc(n);
    if (!o->rest)
        return -ENOMEM;
    memcpy(o->rest, data, n);
    o->n_rest = n;
    o->written = 0;
    return loop_add_io(o->io->loop, o->fd, EPOLLOUT, on_writable, o, &o->writable);
}

static void on_output(const TtrpcReply *reply, void *userdata)
{
    Output *o = userdata;
    const Cloudhv__Agent__V1__ReadStreamResponse *response;
    size_t n, done;
    int r;

    o->call = NULL;
    if (reply->code != TTRPC_OK) {
        /* With the connection gone the VM is gone as well, or about to be found so. */
        if (reply->code != TTRPC_CANCELED && reply->code != TTRPC_UNAVAILABLE)
            log_warning("container %s: cannot read %s: %s", o->io->id, o->name, reply->message);
        if (reply->code != TTRPC_CANCELED)
            output_done(o);
        return;
    }
    response = (const Cloudhv__Agent__V1__ReadStreamResponse *)reply->response;
    n = response->data.len;
    o->eof = response->eof;
    if (n == 0 && !o->eof) {
        log_warning("container %s: the agent answered with nothing for %s", o->io->id, o->name);
        o->eof = true;
    }
    done = output_write(o, response->data.data, n);
    if (done == n) {
        output_written(o, n);
        return;
    }
    o->offset += done;
    r = keep_rest(o, response->data.data + done, n - done);
    if (r < 0) {
        log_error_errno(r, "container %s: %s is given up", o->io->id, o->name);
        output_done(o);
    }
}

static void pull(Output *o)
{
    Cloudhv__Agent__V1__ReadStreamRequest request = CLOUDHV__AGENT__V1__READ_STREAM_REQUEST__INIT;
    int r;

    request.id = o->io->id;
    request.exec_id = o->io->exec_id;
    request.stream = o->stream;
    request.offset = o->offset;
    request.max = OUTPUT_PIECE;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "ReadStream",
        .request = &request.base,
    };
    r = ttrpc_client_call(o->io->agent, &spec, on_output, o, &o->call);
    if (r < 0)
        output_done(o);
}

/* -------------------------------------------------------------------------------------------------- input */

static void input_end(Stdio *io)
{
    io->in.readable = loop_source_free(io->in.readable);
    io->in.fd = fd_close(io->in.fd);
    io->in.write_fd = fd_close(io->in.write_fd);
}

static void on_stdin_closed(const TtrpcReply *reply, void *userdata)
{
    Stdio *io = userdata;

    io->in.call = NULL;
    if (reply->code != TTRPC_OK && reply->code != TTRPC_NOT_FOUND && reply->code != TTRPC_CANCELED)
        log_debug("container %s: cannot close standard input: %s", io->id, reply->message);
}

static void tell_end_of_input(Stdio *io)
{
    Cloudhv__Agent__V1__ProcessRequest request = CLOUDHV__AGENT__V1__PROCESS_REQUEST__INIT;

    input_end(io);
    request.id = io->id;
    request.exec_id = io->exec_id;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "CloseStdin",
        .request = &request.base,
        .timeout_usec = CALL_TIMEOUT_USEC,
    };
    (void)ttrpc_client_call(io->agent, &spec, on_stdin_closed, io, &io->in.call);
}

static void on_input_taken(const TtrpcReply *reply, void *userdata)
{
    Stdio *io = userdata;

    io->in.call = NULL;
    if (reply->code == TTRPC_CANCELED)
        return;
    /* A process that ended or closed its input is no fault: whoever writes to the FIFO gets EPIPE. */
    if (reply->code != TTRPC_OK)
        input_end(io);
    else
        input_wait(io);
}

static void on_readable(_unused_ LoopSource *source, int fd, _unused_ uint32_t revents, void *userdata)
{
    Cloudhv__Agent__V1__WriteStreamRequest request = CLOUDHV__AGENT__V1__WRITE_STREAM_REQUEST__INIT;
    uint8_t data[INPUT_PIECE];
    Stdio *io = userdata;
    ssize_t n = read(fd, data, sizeof(data));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        tell_end_of_input(io);
        return;
    }
    /* Not watched while a piece is on its way: a level-triggered hang-up would spin. */
    io->in.readable = loop_source_free(io->in.readable);
    request.id = io->id;
    request.exec_id = io->exec_id;
    request.offset = io->in.offset;
    request.data.data = data;
    request.data.len = (size_t)n;
    io->in.offset += (uint64_t)n;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "WriteStream",
        .request = &request.base,
    };
    if (ttrpc_client_call(io->agent, &spec, on_input_taken, io, &io->in.call) < 0)
        input_end(io);
}

static void input_wait(Stdio *io)
{
    if (io->in.fd >= 0 && !io->in.readable &&
        loop_add_io(io->loop, io->in.fd, EPOLLIN, on_readable, io, &io->in.readable) < 0)
        input_end(io);
}

void stdio_close_stdin(Stdio *io)
{
    io->in.closed = true;
    io->in.write_fd = fd_close(io->in.write_fd);
}

/* ------------------------------------------------------------------------------------------- the whole of it */

static int output_open(Output *o, const char *uri, Error *e)
{
    const char *path = uri;
    struct stat st;

    if (!*uri) {
        o->drained = true;
        return 0;
    }
    if (strncmp(uri, "file://", 7) == 0)
        path = uri + 7;
    else if (*uri != '/')
        return error_set(e, -EOPNOTSUPP, "%s goes to \"%s\": only FIFOs and file:// are served", o->name, uri);
    o->path = strdup(path);
    if (!o->path)
        return error_set_errno(e, -ENOMEM, "cannot open %s", path);
    o->fifo = stat(path, &st) >= 0 && S_ISFIFO(st.st_mode);
    o->fd = o->fifo ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
                    : open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640);
    if (o->fd < 0)
        return error_set_errno(e, -errno, "cannot open %s for %s", path, o->name);
    return 0;
}

static int input_check(Input *in, const char *path, Error *e)
{
    if (!*path)
        return 0;
    if (*path != '/')
        return error_set(e, -EOPNOTSUPP, "standard input comes from \"%s\": only FIFOs are served", path);
    in->path = strdup(path);
    return in->path ? 0 : error_set_errno(e, -ENOMEM, "cannot open %s", path);
}

int stdio_start_input(Stdio *io, Error *e)
{
    Input *in = &io->in;

    if (!in->path || !io->agent || in->fd >= 0)
        return 0;
    in->fd = open(in->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (in->fd >= 0 && !in->closed)
        in->write_fd = open(in->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (in->fd < 0 || (!in->closed && in->write_fd < 0))
        return error_set_errno(e, -errno, "cannot open %s for standard input", in->path);
    input_wait(io);
    return 0;
}

int stdio_new(Loop *loop, const StdioSpec *spec, StdioDrainedFn drained, void *userdata, Stdio **ret, Error *e)
{
    _cleanup_(stdio_freep) Stdio *io = calloc(1, sizeof(*io));
    int r;

    if (!io)
        return error_set_errno(e, -ENOMEM, "cannot open standard streams");
    io->loop = loop;
    io->drained = drained;
    io->userdata = userdata;
    io->in.fd = io->in.write_fd = -EBADF;
    for (int i = 0; i < 2; i++)
        io->out[i] = (Output){.io = io, .fd = -EBADF, .inotify_fd = -EBADF};
    io->out[0].stream = CLOUDHV__AGENT__V1__STREAM__STREAM_STDOUT;
    io->out[0].name = "standard output";
    io->out[1].stream = CLOUDHV__AGENT__V1__STREAM__STREAM_STDERR;
    io->out[1].name = "standard error";
    io->id = strdup(spec->id);
    io->exec_id = strdup(spec->exec_id);
    if (!io->id || !io->exec_id)
        return error_set_errno(e, -ENOMEM, "cannot open standard streams");
    r = output_open(&io->out[0], spec->stdout_path, e);
    if (r >= 0)
        r = output_open(&io->out[1], spec->stderr_path, e);
    if (r >= 0)
        r = input_check(&io->in, spec->stdin_path, e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(io);
    return 0;
}

int stdio_start(Stdio *io, TtrpcClient *agent)
{
    io->agent = agent;
    for (int i = 0; i < 2; i++)
        if (!io->out[i].drained)
            pull(&io->out[i]);
    return 0;
}

static void on_stall(_unused_ LoopSource *source, void *userdata)
{
    Stdio *io = userdata;

    for (int i = 0; i < 2; i++)
        if (!io->out[i].drained) {
            log_warning("container %s: %s is given up: nobody took anything for %llu s after the process ended",
                        io->id, io->out[i].name, STALL_USEC / USEC_PER_SEC);
            output_done(&io->out[i]);
            /* Its descriptor stays, for a reader that comes late. */
            io->out[i].drained = true;
        }
    check_drained(io);
}

void stdio_process_ended(Stdio *io)
{
    input_end(io);
    io->ended = true;
    if (!io->told && !io->stall && loop_add_timer(io->loop, STALL_USEC, on_stall, io, &io->stall) < 0)
        log_warning("container %s: cannot watch the end of its output", io->id);
    check_drained(io);
}

void stdio_abandon(Stdio *io)
{
    input_end(io);
    if (io->in.call)
        ttrpc_pending_cancel(TAKE_PTR(io->in.call));
    for (int i = 0; i < 2; i++) {
        output_done(&io->out[i]);
        io->out[i].drained = true;
    }
    io->agent = NULL;
}

Stdio *stdio_free(Stdio *io)
{
    if (!io)
        return NULL;
    input_end(io);
    if (io->in.call)
        ttrpc_pending_cancel(io->in.call);
    for (int i = 0; i < 2; i++) {
        Output *o = &io->out[i];

        if (o->call)
            ttrpc_pending_cancel(o->call);
        loop_source_free(o->writable);
        output_close(o);
        free(o->rest);
        free(o->path);
    }
    loop_source_free(io->stall);
    loop_source_free(io->drained_later);
    free(io->in.path);
    free(io->id);
    free(io->exec_id);
    free(io);
    return NULL;
}
