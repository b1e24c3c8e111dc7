/* SPDX-License-Identifier: MIT */

/* A client over a socket, a hybrid vsock or a serial port, and a server that answers with whatever the input
 * says. Each call ends exactly once, a unary one with at most one message; the connection is told to be lost
 * at most once. */

#include <sys/socket.h>
#include <unistd.h>

#include "agent.pb-c.h"
#include "fuzz.h"
#include "ttrpc/link.h"
#include "ttrpc/message.h"
#include "ttrpc/ttrpc.h"

#define SERVICE (&cloudhv__agent__v1__control__descriptor)

enum { CALLS = 8 };

typedef struct Wanted {
    struct Server *server;
    bool stream, made, cancelled, ended;
    bool cancel_in_callback, free_in_callback;
    unsigned messages;
    TtrpcPending *pending;
} Wanted;

typedef struct Server {
    Loop *loop;
    TtrpcClient *client;
    int fd;
    Link *link; /* of a serial port */
    Wanted calls[CALLS];
    unsigned lost;
} Server;

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Wanted *w = userdata;

    REQUIRE(w->made && !w->ended && !w->cancelled);
    REQUIRE(reply->code >= TTRPC_OK && reply->code <= TTRPC_DATA_LOSS);
    REQUIRE((reply->code == TTRPC_OK) == !reply->message);
    if (reply->response) {
        REQUIRE(reply->code == TTRPC_OK);
        w->messages++;
    }
    if (!w->stream)
        REQUIRE(reply->code != TTRPC_OK || reply->response);
    w->ended = !w->stream || !reply->response;
    if (w->cancel_in_callback && !w->ended) {
        w->cancelled = true;
        ttrpc_pending_cancel(w->pending);
    }
    if (w->free_in_callback)
        w->server->client = ttrpc_client_free(w->server->client);
}

static void on_lost(_unused_ TtrpcClient *client, const Error *reason, void *userdata)
{
    Server *s = userdata;

    REQUIRE(++s->lost == 1);
    REQUIRE(reason->number < 0 && error_message(reason));
    for (unsigned i = 0; i < CALLS; i++)
        REQUIRE(!s->calls[i].made || s->calls[i].ended || s->calls[i].cancelled);
}

static void make_call(Server *s, unsigned i, uint8_t how)
{
    static const char *const methods[] = {"Hello", "Identity", "Resize", "WatchPressure"};
    Wanted *w = &s->calls[i];
    TtrpcCallSpec spec = {.service = SERVICE, .method = methods[how % 4], .stream = how % 4 == 3};

    if (w->made || !s->client)
        return;
    *w = (Wanted){.server = s,
                  .stream = spec.stream,
                  .cancel_in_callback = how & 4,
                  .free_in_callback = (how & 0xf8) == 0xf8,
                  .made = true};
    if (ttrpc_client_call(s->client, &spec, on_reply, w, &w->pending) < 0)
        w->made = false;
}

static void settle(Server *s)
{
    for (int i = 0; i < 1000 && loop_run_once(s->loop, 0) > 0; i++)
        continue;
}

/* Takes what the client has sent; over a serial port its reset is acknowledged when `ack` says so. */
static void read_requests(Server *s, bool ack)
{
    static uint8_t buffer[65536];
    ssize_t n;

    while ((n = recv(s->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
        LinkEvent event;

        if (!s->link)
            continue;
        ttrpc_link_feed(s->link, buffer, (size_t)n);
        while (ttrpc_link_next(s->link, &event) == 0) {
            _cleanup_free_ uint8_t *bytes = NULL;
            size_t size;

            REQUIRE(event.type != LINK_BROKEN);
            if (event.type != LINK_STARTED || !ack)
                continue;
            REQUIRE(ttrpc_link_pack_reset_ack(s->link, &bytes, &size) == 0);
            (void)send(s->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
}

static void send_bytes(Server *s, const uint8_t *bytes, size_t n, bool raw)
{
    _cleanup_free_ uint8_t *wrapped = NULL;
    size_t size = n;

    if (n == 0 || s->fd < 0)
        return;
    if (s->link && !raw)
        REQUIRE(ttrpc_link_pack_data(s->link, bytes, n, &wrapped, &size) == 0);
    (void)send(s->fd, wrapped ?: bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    settle(s);
}

/* A frame; of a response also with a status or a payload around the input's bytes. */
static void send_frame(Server *s, Input *in)
{
    uint8_t type = take_u8(in), flags = take_u8(in), frame[FRAME_HEADER_SIZE + 512];
    uint32_t id = take_u8(in) % 32;
    Input part = take(in, take_u8(in));
    Cloudhv__Ttrpc__Response response = CLOUDHV__TTRPC__RESPONSE__INIT;
    Cloudhv__Ttrpc__Status status = CLOUDHV__TTRPC__STATUS__INIT;
    _cleanup_free_ char *text = NULL;
    size_t n = part.n;

    if (type & 0x40) {
        Input copy = part;

        text = take_string(&copy, 200);
        status.code = (int8_t)flags;
        status.message = text;
        response.status = &status;
    } else
        response.payload = (ProtobufCBinaryData){.data = (uint8_t *)part.bytes, .len = part.n};
    if (type & 0x80)
        n = cloudhv__ttrpc__response__pack(&response, frame + FRAME_HEADER_SIZE);
    else if (n > 0)
        memcpy(frame + FRAME_HEADER_SIZE, part.bytes, n);
    frame_header_pack(frame, (uint32_t)n, id, (FrameType)(type % 8), flags);
    send_bytes(s, frame, FRAME_HEADER_SIZE + n, false);
}

static void begin(Server *s, uint8_t kind)
{
    int fds[2], r;

    REQUIRE(loop_new(&s->loop) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    s->fd = fds[1];
    if (kind % 3 == 0)
        r = ttrpc_client_new(s->loop, fds[0], &s->client);
    else if (kind % 3 == 1)
        r = ttrpc_client_new_vsock(s->loop, fds[0], 7, 60 * USEC_PER_SEC, &s->client);
    else {
        r = ttrpc_client_new_serial(s->loop, fds[0], &s->client);
        REQUIRE(ttrpc_link_new(LINK_SERVER, &s->link) == 0);
    }
    REQUIRE(r == 0);
    ttrpc_client_set_close(s->client, on_lost, s);
    read_requests(s, !(kind & 0x40));
    if (kind % 3 == 1 && kind & 0x40)
        send_bytes(s, (const uint8_t *)"OK 1\n", 5, true);
}

static void end(Server *s)
{
    ttrpc_client_free(s->client);
    for (unsigned i = 0; i < CALLS; i++)
        REQUIRE(!s->calls[i].made || s->calls[i].ended || s->calls[i].cancelled);
    if (s->fd >= 0)
        close(s->fd);
    ttrpc_link_free(s->link);
    loop_free(s->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Server s = {.fd = -1};
    Input in = {data, size}, raw;

    if (size > 4096)
        return 0;
    begin(&s, take_u8(&in));
    while (in.n > 0) {
        uint8_t what = take_u8(&in);

        switch (what % 8) {
        case 0:
        case 1:
            make_call(&s, what >> 3 & 7, take_u8(&in));
            break;
        case 2:
            raw = take(&in, take_u8(&in));
            send_bytes(&s, raw.bytes, raw.n, what & 8);
            break;
        case 3:
            read_requests(&s, true);
            break;
        case 4:
            if (what & 0x80 && s.fd >= 0)
                s.fd = (close(s.fd), -1);
            settle(&s);
            break;
        default:
            send_frame(&s, &in);
            break;
        }
    }
    settle(&s);
    end(&s);
    return 0;
}
