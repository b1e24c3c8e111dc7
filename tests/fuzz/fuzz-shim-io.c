/* SPDX-License-Identifier: MIT */

/* Standard streams between a guest that answers whatever the input says, and FIFOs that are read and written
 * now and then. What was answered is what is read, in order; offsets go on without gaps; the end is told
 * once, and not before everything was read. */

#include <signal.h>
#include <sys/ioctl.h>

#include "fake-shim.h"
#include "fuzz.h"
#include "ttrpc/message.h"

enum { DATA_MAX = 512 * 1024 };

typedef struct Pipe {
    char path[128];
    int fd; /* containerd's end */
    uint8_t bytes[DATA_MAX];
    size_t n, done;
    bool ended; /* by an end of file or a failure */
} Pipe;

typedef struct State {
    FakeShim f;
    Stdio *io;
    unsigned drained;
    bool process_ended, abandoned;
    Pipe *out, *err, *in;
} State;

static Pipe out_pipe, err_pipe, in_pipe;

static void on_drained(void *userdata)
{
    State *s = userdata;
    int left = 0;

    REQUIRE(++s->drained == 1);
    REQUIRE(s->process_ended);
    for (int i = 0; i < 2 && !s->abandoned; i++) {
        const Pipe *p = i == 0 ? s->out : s->err;

        REQUIRE(p->ended);
        REQUIRE(ioctl(p->fd, FIONREAD, &left) == 0 && left == 0);
    }
}

static void open_pipe(const State *s, Pipe *p, const char *name, int flags)
{
    p->n = p->done = 0;
    p->ended = false;
    snprintf(p->path, sizeof(p->path), "%s/%s", s->f.directory, name);
    REQUIRE(mkfifo(p->path, 0600) == 0);
    p->fd = open(p->path, flags | O_NONBLOCK | O_CLOEXEC);
    REQUIRE(p->fd >= 0);
}

/* Which waiting call is the one for that stream. */
static unsigned find_read(const State *s, const Pipe *p)
{
    Cloudhv__Agent__V1__Stream stream =
        p == s->out ? CLOUDHV__AGENT__V1__STREAM__STREAM_STDOUT : CLOUDHV__AGENT__V1__STREAM__STREAM_STDERR;

    for (unsigned i = 0; i < s->f.n_calls; i++)
        if (strcmp(s->f.calls[i].method, "ReadStream") == 0 &&
            ((const Cloudhv__Agent__V1__ReadStreamRequest *)s->f.calls[i].request)->stream == stream)
            return i;
    return FAKE_CALLS_MAX;
}

/* Canceled is what the shim's own end of the connection says: from a guest it holds up nobody but the guest
 * itself, for the ten seconds that a process without a reader is waited for. */
static TtrpcCode code_from(uint8_t how)
{
    TtrpcCode code = (TtrpcCode)(how >> 3) % 16;

    return code == TTRPC_CANCELED ? TTRPC_UNKNOWN : code;
}

static void answer_read(State *s, Pipe *p, Input *in)
{
    Cloudhv__Agent__V1__ReadStreamResponse response = CLOUDHV__AGENT__V1__READ_STREAM_RESPONSE__INIT;
    uint8_t how = take_u8(in);
    size_t n = how & 4 ? (size_t)take_u8(in) * 1024 : take_u8(in);
    unsigned i = find_read(s, p);

    if (i == FAKE_CALLS_MAX)
        return;
    REQUIRE(((const Cloudhv__Agent__V1__ReadStreamRequest *)s->f.calls[i].request)->offset == p->n);
    REQUIRE(!p->ended);
    if (how & 1) {
        p->ended = true;
        fake_refuse(&s->f, i, code_from(how), "no");
        return;
    }
    if (n > DATA_MAX - p->n)
        n = DATA_MAX - p->n;
    for (size_t k = 0; k < n; k++)
        p->bytes[p->n + k] = (uint8_t)((p->n + k) * 31 + how);
    response.data = (ProtobufCBinaryData){.data = p->bytes + p->n, .len = n};
    response.eof = how & 2;
    p->n += n;
    p->ended = response.eof || n == 0;
    fake_reply(&s->f, i, &response.base);
}

static void read_pipe(Pipe *p, size_t max)
{
    static uint8_t buffer[65536];
    ssize_t n;

    while (max > 0 && (n = read(p->fd, buffer, max < sizeof(buffer) ? max : sizeof(buffer))) > 0) {
        REQUIRE((size_t)n <= p->n - p->done);
        REQUIRE(memcmp(buffer, p->bytes + p->done, (size_t)n) == 0);
        p->done += (size_t)n;
        max -= (size_t)n;
    }
}

/* The guest takes input, or refuses it. */
static void answer_write(State *s, uint8_t how)
{
    unsigned i = fake_find(&s->f, "WriteStream");
    const Cloudhv__Agent__V1__WriteStreamRequest *request;
    Pipe *p = s->in;

    if (i == FAKE_CALLS_MAX)
        return;
    request = (const Cloudhv__Agent__V1__WriteStreamRequest *)s->f.calls[i].request;
    REQUIRE(request->offset == p->done && request->data.len > 0 && request->data.len <= p->n - p->done);
    REQUIRE(memcmp(request->data.data, p->bytes + p->done, request->data.len) == 0);
    p->done += request->data.len;
    if (how & 1)
        fake_refuse(&s->f, i, code_from(how), "no");
    else
        fake_reply(&s->f, i, NULL);
}

static void write_pipe(Pipe *p, size_t n)
{
    ssize_t k;

    if (p->fd < 0 || n > DATA_MAX - p->n)
        return;
    for (size_t i = 0; i < n; i++)
        p->bytes[p->n + i] = (uint8_t)((p->n + i) * 17);
    k = write(p->fd, p->bytes + p->n, n);
    if (k > 0)
        p->n += (size_t)k;
}

static void step(State *s, Input *in)
{
    uint8_t what = take_u8(in);
    Pipe *p = what & 0x80 ? s->err : s->out;

    switch (what % 8) {
    case 0:
    case 1:
        answer_read(s, p, in);
        break;
    case 2:
        read_pipe(p, (size_t)take_u16(in));
        break;
    case 3:
        write_pipe(s->in, take_u16(in));
        break;
    case 4:
        answer_write(s, take_u8(in));
        break;
    case 5:
        if (what & 0x40)
            stdio_close_stdin(s->io);
        else
            s->in->fd = fd_close(s->in->fd);
        break;
    case 6:
        if (!s->process_ended) {
            s->process_ended = true;
            stdio_process_ended(s->io);
        }
        break;
    case 7:
        if ((what & 0xf8) == 0xf8) {
            s->abandoned = true;
            stdio_abandon(s->io);
        }
        break;
    }
    fake_settle(&s->f, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    State s = {.out = &out_pipe, .err = &err_pipe, .in = &in_pipe};
    Input in = {data, size};
    StdioSpec spec = {.id = "c",
                      .exec_id = "",
                      .stdin_path = in_pipe.path,
                      .stdout_path = out_pipe.path,
                      .stderr_path = err_pipe.path};
    Pipe *output[] = {&out_pipe, &err_pipe};

    if (size > 1024)
        return 0;
    fake_shim_start(&s.f, false);
    open_pipe(&s, s.out, "out", O_RDONLY);
    open_pipe(&s, s.err, "err", O_RDONLY);
    open_pipe(&s, s.in, "in", O_RDWR);
    REQUIRE(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    REQUIRE(stdio_new(s.f.shim.loop, &spec, on_drained, &s, &s.io, NULL) == 0);
    REQUIRE(stdio_start(s.io, s.f.agent) == 0 && stdio_start_input(s.io, NULL) == 0);
    fake_settle(&s.f, 0);
    while (in.n > 0)
        step(&s, &in);
    /* A guest that comes to an end at last, and a reader that reads. */
    if (!s.process_ended) {
        s.process_ended = true;
        stdio_process_ended(s.io);
    }
    for (int i = 0; i < 64 && s.drained == 0; i++) {
        for (int k = 0; k < 2; k++) {
            uint8_t eof[] = {2, 0};

            answer_read(&s, output[k], &(Input){eof, 2});
            fake_settle(&s.f, 0);
            read_pipe(output[k], SIZE_MAX);
        }
        fake_settle(&s.f, 0);
    }
    /* Who abandons the streams knows that nothing more comes. */
    REQUIRE(s.drained == 1 || s.abandoned);
    for (int k = 0; k < 2; k++)
        REQUIRE(s.abandoned || output[k]->done == output[k]->n);
    stdio_free(s.io);
    for (int k = 0; k < 2; k++)
        close(output[k]->fd);
    fd_close(s.in->fd);
    fake_settle(&s.f, 0);
    fake_shim_stop(&s.f);
    return 0;
}
