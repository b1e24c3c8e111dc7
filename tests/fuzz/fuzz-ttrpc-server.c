/* SPDX-License-Identifier: MIT */

/* A whole server, over a socket or over a serial port, and what one peer sends to it in pieces: raw bytes,
 * frames, and requests that a handler gets. Whatever that is, the server sends nothing but frames, one answer
 * at most for each call, in UTF-8, and it serves another connection afterwards. */

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.pb-c.h"
#include "fuzz.h"
#include "ttrpc/link.h"
#include "ttrpc/message.h"
#include "ttrpc/ttrpc.h"

#define SERVICE (&cloudhv__agent__v1__control__descriptor)

enum { STREAMS_MAX = 512, HELD_MAX = 64 };

typedef struct Peer {
    Loop *loop;
    TtrpcServer *server;
    int fd;
    bool serial;
    Link *link;
    FrameParser parser;
    uint32_t next_id;
    bool answered[STREAMS_MAX]; /* by half the stream's id */
    TtrpcCall *held[HELD_MAX];
    unsigned n_held, handled, cancelled;
} Peer;

/* ------------------------------------------------------------------------------------------ the server's
 * side */

static void forget(Peer *p, const TtrpcCall *call)
{
    for (unsigned i = 0; i < p->n_held; i++)
        if (p->held[i] == call) {
            p->held[i] = p->held[--p->n_held];
            return;
        }
    REQUIRE(!"a cancelled call was held");
}

static void on_cancelled(TtrpcCall *call, void *userdata)
{
    Peer *p = userdata;

    p->cancelled++;
    forget(p, call);
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits");
}

static void take_fds(TtrpcCall *call)
{
    int fd;

    while ((fd = ttrpc_call_take_fd(call)) >= 0)
        close(fd);
    REQUIRE(fd == -ENODATA);
}

static void handle_hello(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Agent__V1__HelloRequest *request = (const Cloudhv__Agent__V1__HelloRequest *)message;
    Cloudhv__Agent__V1__HelloResponse response = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;
    Peer *p = userdata;

    p->handled++;
    response.protocol = request->protocol;
    response.agent_version = request->peer;
    if (request->protocol % 2)
        take_fds(call);
    ttrpc_call_reply(call, &response.base);
}

/* Answers with the peer's own bytes in the text. */
static void handle_identity(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Agent__V1__IdentityRequest *request = (const Cloudhv__Agent__V1__IdentityRequest *)message;

    ((Peer *)userdata)->handled++;
    ttrpc_call_fail(call, (TtrpcCode)(request->realtime_nsec % 20), "sandbox %s", request->sandbox_id);
}

/* A call that waits; a later one of the same kind ends it. */
static void handle_quiesce(TtrpcCall *call, _unused_ const ProtobufCMessage *message, void *userdata)
{
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;
    Peer *p = userdata;

    p->handled++;
    if (p->n_held == HELD_MAX) {
        TtrpcCall *first = p->held[0];

        forget(p, first);
        ttrpc_call_reply(first, &empty.base);
    }
    p->held[p->n_held++] = call;
    ttrpc_call_set_cancel(call, on_cancelled, p);
}

static void handle_watch(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Agent__V1__WatchPressureRequest *request =
        (const Cloudhv__Agent__V1__WatchPressureRequest *)message;
    Cloudhv__Agent__V1__PressureEvent event = CLOUDHV__AGENT__V1__PRESSURE_EVENT__INIT;

    ((Peer *)userdata)->handled++;
    for (uint64_t i = 0; i < request->window_usec % 8; i++) {
        event.memory_total = i;
        if (ttrpc_call_send(call, &event.base) < 0)
            break;
    }
    if (request->stall_usec % 2)
        ttrpc_call_fail(call, TTRPC_ABORTED, "enough");
    else
        ttrpc_call_reply(call, request->stall_usec % 4 ? &event.base : NULL);
}

/* In the order of the service's methods, which may become more. */
static const TtrpcHandler handlers[32] = {
    handle_hello, handle_identity, NULL, NULL, handle_quiesce, handle_watch,
};

/* --------------------------------------------------------------------------------------------- the peer's
 * side */

static void check_answer(Peer *p, const Frame *f)
{
    REQUIRE(f->type == FRAME_RESPONSE || f->type == FRAME_DATA);
    REQUIRE(!f->oversized);
    if (f->stream_id % 2 == 1 && f->stream_id / 2 < STREAMS_MAX && f->stream_id < p->next_id) {
        /* A stream's end may follow its last message, nothing an answer of one that has ended; but refusals
         * of frames that a peer must not send repeat the id. */
        if (f->type == FRAME_DATA)
            REQUIRE(!p->answered[f->stream_id / 2]);
    }
    if (f->type == FRAME_RESPONSE) {
        TtrpcResponse *response =
            (TtrpcResponse *)ttrpc_message_unpack(&cloudhv__ttrpc__response__descriptor, f->payload, f->size);

        REQUIRE(response);
        if (response->status) {
            REQUIRE(response->status->code > TTRPC_OK);
            REQUIRE(is_utf8(response->status->message));
        }
        protobuf_c_message_free_unpacked(&response->base, NULL);
        if (f->stream_id % 2 == 1 && f->stream_id / 2 < STREAMS_MAX)
            p->answered[f->stream_id / 2] = true;
    }
}

static void read_frames(Peer *p, const uint8_t *bytes, size_t n)
{
    Frame frame;
    int r;

    REQUIRE(frame_parser_feed(&p->parser, bytes, n, NULL, 0) == 0);
    while ((r = frame_parser_next(&p->parser, &frame)) == 0)
        check_answer(p, &frame);
    REQUIRE(r == 1);
}

static void read_answers(Peer *p)
{
    static uint8_t buffer[65536];
    ssize_t n;

    while ((n = recv(p->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
        LinkEvent event;
        int r;

        if (!p->serial) {
            read_frames(p, buffer, (size_t)n);
            continue;
        }
        ttrpc_link_feed(p->link, buffer, (size_t)n);
        while ((r = ttrpc_link_next(p->link, &event)) == 0) {
            REQUIRE(event.type != LINK_BROKEN);
            if (event.type == LINK_STARTED)
                frame_parser_clear(&p->parser);
            else if (event.type == LINK_DATA)
                read_frames(p, event.payload, event.size);
        }
        REQUIRE(r == 1);
    }
}

static void settle(Peer *p)
{
    for (int i = 0; i < 1000 && loop_run_once(p->loop, 0) > 0; i++)
        read_answers(p);
    read_answers(p);
}

static void send_raw(Peer *p, const uint8_t *bytes, size_t n, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n == 0)
        return;
    if (fd >= 0) {
        mh.msg_control = &control;
        mh.msg_controllen = sizeof(control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    /* A server that has closed the connection is within its rights. */
    (void)sendmsg(p->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    settle(p);
}

static void send_bytes(Peer *p, const uint8_t *bytes, size_t n, int fd)
{
    _cleanup_free_ uint8_t *wrapped = NULL;
    size_t size;

    if (!p->serial) {
        send_raw(p, bytes, n, fd);
        return;
    }
    REQUIRE(ttrpc_link_pack_data(p->link, bytes, n, &wrapped, &size) == 0);
    send_raw(p, wrapped, size, -1);
}

static void send_frame(Peer *p, Input *in, FrameType type)
{
    uint8_t frame[FRAME_HEADER_SIZE + 256], flags = take_u8(in);
    uint32_t id = take_u8(in);
    Input payload = take(in, take_u8(in));

    frame_header_pack(frame, (uint32_t)payload.n, id, type, flags);
    if (payload.n > 0)
        memcpy(frame + FRAME_HEADER_SIZE, payload.bytes, payload.n);
    if (id >= p->next_id)
        p->next_id = (id | 1) + 2;
    send_bytes(p, frame, FRAME_HEADER_SIZE + payload.n, -1);
}

static void send_request(Peer *p, Input *in)
{
    uint8_t which = take_u8(in), flags = take_u8(in);
    int64_t timeout = flags & 4 ? (int8_t)take_u8(in) * 1000 : 0;
    const ProtobufCMethodDescriptor *method = &SERVICE->methods[which % SERVICE->n_methods];
    Input payload = take(in, take_u8(in));
    ProtobufCMessage *m = ttrpc_message_unpack(method->input, payload.bytes, payload.n);
    _cleanup_free_ uint8_t *frame = NULL;
    size_t n;

    if (ttrpc_message_pack_request(p->next_id, flags & 3, SERVICE->name, method->name, timeout, m, &frame,
                                   &n) == 0) {
        p->next_id += 2;
        send_bytes(p, frame, n, which & 128 ? p->fd : -1);
    }
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

static void begin_session(Peer *p, uint64_t nonce)
{
    _cleanup_free_ uint8_t *reset = NULL;
    size_t n;

    if (!p->serial)
        return;
    ttrpc_link_start(p->link, nonce);
    memset(p->answered, 0, sizeof(p->answered));
    p->next_id = 1;
    frame_parser_clear(&p->parser);
    REQUIRE(ttrpc_link_pack_reset(p->link, &reset, &n) == 0);
    send_raw(p, reset, n, -1);
}

static void connect_peer(Peer *p)
{
    int fds[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    p->fd = fds[1];
    p->next_id = 1;
    memset(p->answered, 0, sizeof(p->answered));
    REQUIRE((p->serial ? ttrpc_server_add_serial(p->server, fds[0])
                       : ttrpc_server_add_connection(p->server, fds[0])) == 0);
    if (p->serial)
        REQUIRE(ttrpc_link_new(LINK_CLIENT, &p->link) == 0);
    begin_session(p, 1);
}

static void disconnect_peer(Peer *p)
{
    p->fd = (close(p->fd), -1);
    p->link = ttrpc_link_free(p->link);
    frame_parser_clear(&p->parser);
}

/* A well-behaved peer is served, whatever came before. */
static void check_service(Peer *p)
{
    Cloudhv__Agent__V1__HelloRequest request = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    _cleanup_free_ uint8_t *frame = NULL;
    unsigned handled;
    size_t n;

    if (p->serial)
        begin_session(p, 99);
    else {
        disconnect_peer(p);
        connect_peer(p);
    }
    settle(p);
    handled = p->handled;
    REQUIRE(ttrpc_message_pack_request(1, 0, SERVICE->name, "Hello", 0, &request.base, &frame, &n) == 0);
    p->next_id = 3;
    send_bytes(p, frame, n, -1);
    settle(p);
    REQUIRE(p->handled == handled + 1 && p->answered[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Peer p = {.fd = -1};
    Input in = {data, size};

    if (size > 4096)
        return 0;
    p.serial = take_u8(&in) & 1;
    REQUIRE(SERVICE->n_methods <= ELEMENTSOF(handlers));
    REQUIRE(loop_new(&p.loop) == 0 && ttrpc_server_new(p.loop, &p.server) == 0);
    REQUIRE(ttrpc_server_add_service(p.server, NULL, SERVICE, handlers, &p) == 0);
    connect_peer(&p);
    while (in.n > 0) {
        uint8_t what = take_u8(&in);
        Input raw;

        switch (what % 8) {
        case 0:
            raw = take(&in, take_u8(&in));
            send_raw(&p, raw.bytes, raw.n, what & 64 ? p.fd : -1);
            break;
        case 1:
            raw = take(&in, take_u8(&in));
            send_bytes(&p, raw.bytes, raw.n, -1);
            break;
        case 2:
            send_frame(&p, &in, FRAME_REQUEST);
            break;
        case 3:
            send_frame(&p, &in, FRAME_DATA);
            break;
        case 4:
            begin_session(&p, what);
            break;
        default:
            send_request(&p, &in);
            break;
        }
    }
    check_service(&p);
    ttrpc_server_free(p.server);
    REQUIRE(p.n_held == 0);
    disconnect_peer(&p);
    loop_free(p.loop);
    return 0;
}
