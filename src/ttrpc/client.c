/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "ttrpc/call.h"
#include "ttrpc/message.h"
#include "ttrpc/transport.h"
#include "ttrpc/ttrpc.h"

/* Requests are refused while this much waits to be sent. */
#define QUEUE_MAX (16u << 20)

struct TtrpcClient {
    unsigned refs;
    Loop *loop;
    Transport *transport;
    CallTable calls;
    LoopSource *timer;          /* made when the first call has a deadline */
    uint64_t timer_at;          /* UINT64_MAX: not armed */
    uint64_t greeting_deadline; /* UINT64_MAX: none */
    bool lost;
    bool freed;
    TtrpcCloseFn close_callback;
    void *close_userdata;
};

struct TtrpcPending {
    Call call; /* first: the table's entries are cast back */
    TtrpcClient *client;
    const ProtobufCMethodDescriptor *method;
    TtrpcReplyFn callback;
    void *userdata;
    uint64_t timeout_usec;
    unsigned running; /* callbacks: whoever ends the call meanwhile only marks it */
    bool finished;    /* off the table */
};

static void client_unref(TtrpcClient *client)
{
    if (--client->refs == 0)
        free(client);
}

/* Takes a call off the table and frees it, now or when its callback returns. */
static void pending_end(TtrpcPending *p)
{
    if (!p->finished) {
        call_table_remove(&p->client->calls, &p->call);
        p->finished = true;
    }
    if (p->running == 0)
        free(p);
}

/* Runs the callback, for the last time if `last`. The client may be freed by it: the caller holds a
 * reference.
 */
static void deliver(TtrpcPending *p, const TtrpcReply *reply, bool last)
{
    p->running++;
    if (last)
        pending_end(p);
    p->callback(reply, p->userdata);
    if (--p->running == 0 && p->finished)
        free(p);
}

static void _printf_(3, 4) deliver_failure(TtrpcPending *p, TtrpcCode code, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
    TtrpcReply reply = {.code = code};
    va_list ap;

    va_start(ap, format);
    if (vasprintf(&text, format, ap) < 0)
        text = NULL;
    va_end(ap);
    reply.message = text ?: "out of memory";
    deliver(p, &reply, true);
}

static void fail_all(TtrpcClient *client, TtrpcCode code, const char *text)
{
    while (client->calls.first)
        deliver_failure((TtrpcPending *)client->calls.first, code, "%s", text);
}

/* ------------------------------------------------------------------------------------------------ input */

/* Delivers one message; `last` when nothing follows it. */
static void deliver_message(TtrpcPending *p, const uint8_t *bytes, size_t size, bool last)
{
    _cleanup_message_ ProtobufCMessage *message = ttrpc_message_unpack(p->method->output, bytes, size);
    TtrpcReply reply = {.code = TTRPC_OK, .response = message};

    if (message)
        deliver(p, &reply, last);
    else
        deliver_failure(p, TTRPC_INTERNAL, "cannot decode the answer to %s", p->method->name);
}

static void deliver_end(TtrpcPending *p)
{
    TtrpcReply reply = {.code = TTRPC_OK};

    deliver(p, &reply, true);
}

static TtrpcCode known_code(int32_t code)
{
    return code > TTRPC_OK && code <= TTRPC_DATA_LOSS ? (TtrpcCode)code : TTRPC_UNKNOWN;
}

static void deliver_response(TtrpcPending *p, const Frame *frame)
{
    TtrpcResponse *response = (TtrpcResponse *)ttrpc_message_unpack(&cloudhv__ttrpc__response__descriptor,
                                                                    frame->payload, frame->size);
    TtrpcClient *client = p->client;
    uint32_t id = p->call.id;

    if (!response)
        deliver_failure(p, TTRPC_INTERNAL, "cannot decode the answer to %s", p->method->name);
    else if (response->status && response->status->code != TTRPC_OK)
        deliver_failure(p, known_code(response->status->code), "%s", response->status->message);
    else if (!p->call.stream)
        deliver_message(p, response->payload.data, response->payload.len, true);
    else {
        /* A stream that ends by a response: what this carries is its last message. */
        if (response->payload.len > 0)
            deliver_message(p, response->payload.data, response->payload.len, false);
        p = (TtrpcPending *)call_table_find(&client->calls, id);
        if (p)
            deliver_end(p);
    }
    if (response)
        protobuf_c_message_free_unpacked(&response->base, NULL);
}

static void deliver_last(TtrpcPending *p, const Frame *frame)
{
    TtrpcClient *client = p->client;
    uint32_t id = p->call.id;

    deliver_message(p, frame->payload, frame->size, false);
    p = (TtrpcPending *)call_table_find(&client->calls, id);
    if (p)
        deliver_end(p);
}

static int on_frame(_unused_ Transport *t, const Frame *frame, void *userdata, Error *e)
{
    TtrpcClient *client = userdata;
    TtrpcPending *p;
    CallAnswer answer;
    Call *call;
    int r = call_table_answer(&client->calls, frame, &answer, &call);

    if (r < 0)
        return error_set(e, r, "the other side sent a frame that belongs to no call (stream %u, type %u)",
                         frame->stream_id, frame->type);
    if (answer == CALL_ANSWER_IGNORE)
        return 0;
    client->refs++;
    p = (TtrpcPending *)call;
    switch (answer) {
    case CALL_ANSWER_RESPONSE:
        deliver_response(p, frame);
        break;
    case CALL_ANSWER_MESSAGE:
        deliver_message(p, frame->payload, frame->size, false);
        break;
    case CALL_ANSWER_LAST:
        deliver_last(p, frame);
        break;
    case CALL_ANSWER_END:
        deliver_end(p);
        break;
    case CALL_ANSWER_OVERSIZED:
        deliver_failure(p, TTRPC_RESOURCE_EXHAUSTED, "the answer is longer than the limit of 4 MiB");
        break;
    case CALL_ANSWER_IGNORE:
        break;
    }
    client_unref(client);
    return 0;
}

static void on_lost(_unused_ Transport *t, const Error *reason, void *userdata)
{
    TtrpcClient *client = userdata;

    client->refs++;
    client->lost = true;
    client->greeting_deadline = UINT64_MAX;
    fail_all(client, TTRPC_UNAVAILABLE, error_message(reason));
    if (!client->freed && client->close_callback)
        client->close_callback(client, reason, client->close_userdata);
    client_unref(client);
}

static const TransportHandlers transport_handlers = {
    .frame = on_frame,
    .lost = on_lost,
};

/* ------------------------------------------------------------------------------------------------ timer */

static void on_timer(LoopSource *source, void *userdata);

static int arm_timer(TtrpcClient *client, uint64_t deadline)
{
    uint64_t now = loop_now(), usec = deadline > now ? deadline - now : 0;
    int r;

    if (deadline >= client->timer_at)
        return 0;
    r = client->timer ? loop_source_set_timer(client->timer, usec)
                      : loop_add_timer(client->loop, usec, on_timer, client, &client->timer);
    if (r >= 0)
        client->timer_at = deadline;
    return r;
}

static void greeting_expired(TtrpcClient *client)
{
    _cleanup_error_ Error e = ERROR_INIT;

    client->greeting_deadline = UINT64_MAX;
    if (!transport_is_held(client->transport))
        return;
    error_set(&e, -ETIMEDOUT, "the other side did not answer the connection request in time");
    transport_abort(client->transport, &e);
}

static void on_timer(_unused_ LoopSource *source, void *userdata)
{
    TtrpcClient *client = userdata;
    uint64_t next, now = loop_now();
    Call *call;

    client->refs++;
    client->timer_at = UINT64_MAX;
    if (client->greeting_deadline <= now)
        greeting_expired(client);
    while (!client->freed && (call = call_table_expired(&client->calls, now))) {
        TtrpcPending *p = (TtrpcPending *)call;

        deliver_failure(p, TTRPC_DEADLINE_EXCEEDED, "no answer within %llu ms",
                        (unsigned long long)(p->timeout_usec / USEC_PER_MSEC));
    }
    if (!client->freed) {
        next = call_table_next_deadline(&client->calls);
        if (client->greeting_deadline < next)
            next = client->greeting_deadline;
        if (next != UINT64_MAX)
            (void)arm_timer(client, next);
    }
    client_unref(client);
}

/* ------------------------------------------------------------------------------------------- connection */

static int client_new(Loop *loop, int fd, TransportKind kind, TtrpcClient **ret)
{
    TtrpcClient *client = calloc(1, sizeof(*client));
    int r;

    if (!client) {
        fd_close(fd);
        return -ENOMEM;
    }
    client->refs = 1;
    client->loop = loop;
    client->timer_at = UINT64_MAX;
    client->greeting_deadline = UINT64_MAX;
    r = transport_new(loop, fd, kind, &transport_handlers, client, &client->transport);
    if (r < 0) {
        free(client);
        return r;
    }
    *ret = client;
    return 0;
}

int ttrpc_client_new(Loop *loop, int fd, TtrpcClient **ret)
{
    return client_new(loop, fd, TRANSPORT_CLIENT, ret);
}

int ttrpc_client_new_serial(Loop *loop, int fd, TtrpcClient **ret)
{
    return client_new(loop, fd, TRANSPORT_SERIAL_CLIENT, ret);
}

int ttrpc_client_new_vsock(Loop *loop, int fd, uint32_t port, uint64_t timeout_usec, TtrpcClient **ret)
{
    _cleanup_(ttrpc_client_freep) TtrpcClient *client = NULL;
    uint64_t now = loop_now();
    char line[32];
    int r;

    r = client_new(loop, fd, TRANSPORT_CLIENT, &client);
    if (r < 0)
        return r;
    snprintf(line, sizeof(line), "CONNECT %u\n", port);
    r = transport_greet(client->transport, line, "OK");
    if (r < 0)
        return r;
    client->greeting_deadline = timeout_usec > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + timeout_usec;
    r = arm_timer(client, client->greeting_deadline);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(client);
    return 0;
}

TtrpcClient *ttrpc_client_free(TtrpcClient *client)
{
    if (!client || client->freed)
        return NULL;
    client->freed = true;
    client->timer = loop_source_free(client->timer);
    client->transport = transport_free(client->transport);
    fail_all(client, TTRPC_CANCELED, "the connection was closed");
    client_unref(client);
    return NULL;
}

void ttrpc_client_set_close(TtrpcClient *client, TtrpcCloseFn callback, void *userdata)
{
    client->close_callback = callback;
    client->close_userdata = userdata;
}

/* ------------------------------------------------------------------------------------------------ calls */

static int send_request(TtrpcClient *client, const TtrpcCallSpec *spec, uint32_t id)
{
    uint64_t nsec =
        spec->timeout_usec > INT64_MAX / NSEC_PER_USEC ? INT64_MAX : spec->timeout_usec * NSEC_PER_USEC;
    uint8_t *frame;
    size_t size;
    int r;

    r = ttrpc_message_pack_request(id, spec->stream ? FRAME_REMOTE_CLOSED : 0,
                                   spec->service_name ?: spec->service->name, spec->method, (int64_t)nsec,
                                   spec->request, &frame, &size);
    return r < 0 ? r : transport_send(client->transport, frame, size, spec->fds, spec->n_fds);
}

int ttrpc_client_call(TtrpcClient *client, const TtrpcCallSpec *spec, TtrpcReplyFn callback, void *userdata,
                      TtrpcPending **ret)
{
    const ProtobufCMethodDescriptor *method =
        protobuf_c_service_descriptor_get_method_by_name(spec->service, spec->method);
    uint64_t now = loop_now(), deadline = UINT64_MAX;
    TtrpcPending *p;
    int r;

    if (client->freed || client->lost)
        return -ENOTCONN;
    if (!method || (spec->request && spec->request->descriptor != method->input))
        return -EINVAL;
    if (client->calls.count >= CALLS_MAX || transport_queued(client->transport) > QUEUE_MAX ||
        call_table_next_id(&client->calls) == 0)
        return -ENOBUFS;
    if (spec->timeout_usec > 0 && spec->timeout_usec < UINT64_MAX - now) {
        deadline = now + spec->timeout_usec;
        r = arm_timer(client, deadline);
        if (r < 0)
            return r;
    }
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    *p = (TtrpcPending){
        .call = {.id = call_table_next_id(&client->calls), .stream = spec->stream, .deadline = deadline},
        .client = client,
        .method = method,
        .callback = callback,
        .userdata = userdata,
        .timeout_usec = spec->timeout_usec,
    };
    r = send_request(client, spec, p->call.id);
    if (r < 0) {
        free(p);
        return r;
    }
    call_table_add(&client->calls, &p->call);
    if (ret)
        *ret = p;
    return 0;
}

void ttrpc_pending_cancel(TtrpcPending *p)
{
    TtrpcClient *client = p->client;
    uint8_t *frame;
    size_t size;

    if (p->finished)
        return;
    /* Tells a server that the stream is not wanted any more. There is nothing of the kind for other calls:
     * Go's server takes data for them as an error. */
    if (p->call.stream && !client->freed && !client->lost &&
        ttrpc_message_pack_data(p->call.id, FRAME_REMOTE_CLOSED | FRAME_NO_DATA, NULL, &frame, &size) >= 0)
        (void)transport_send(client->transport, frame, size, NULL, 0);
    pending_end(p);
}
