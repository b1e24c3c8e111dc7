/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "ttrpc/server.h"

/* While this much waits for a peer, answers shrink to a failure. */
#define QUEUE_MAX (32u << 20)
/* Messages of a stream are refused when this much waits. */
#define STREAM_QUEUE_MAX (1u << 20)

static void call_free(TtrpcCall *call)
{
    for (size_t i = call->next_fd; i < call->n_fds; i++)
        fd_close(call->fds[i]);
    free(call->fds);
    if (call->request)
        protobuf_c_message_free_unpacked(call->request, NULL);
    free(call);
}

/* Ends a call of ours: off the connection, if that still exists. */
static void call_end(TtrpcCall *call)
{
    if (call->connection)
        call_table_remove(&call->connection->calls, &call->call);
    call_free(call);
}

/* ---------------------------------------------------------------------------------------------- output */

static int send_response(Connection *c, uint32_t id, TtrpcCode code, const char *text,
                         const ProtobufCMessage *payload)
{
    uint8_t *frame;
    size_t size;
    int r;

    if (code == TTRPC_OK && transport_queued(c->transport) > QUEUE_MAX) {
        code = TTRPC_RESOURCE_EXHAUSTED;
        text = "too many answers wait to be read";
    }
    r = ttrpc_message_pack_response(id, code, text, payload, &frame, &size);
    if (r == -EMSGSIZE)
        r = ttrpc_message_pack_response(id, TTRPC_RESOURCE_EXHAUSTED,
                                        "the answer is longer than the limit of 4 MiB", NULL, &frame, &size);
    return r < 0 ? r : transport_send(c->transport, frame, size, NULL, 0);
}

static int send_data(Connection *c, uint32_t id, uint8_t flags, const ProtobufCMessage *message)
{
    uint8_t *frame;
    size_t size;
    int r = ttrpc_message_pack_data(id, flags, message, &frame, &size);

    return r < 0 ? r : transport_send(c->transport, frame, size, NULL, 0);
}

static bool has_peer(const TtrpcCall *call)
{
    return call->connection && !call->call.finished;
}

void ttrpc_call_reply(TtrpcCall *call, const ProtobufCMessage *response)
{
    uint32_t id = call->call.id;

    /* A stream may also end by a response, which then is its only message (PROTOCOL.md, "Response"). */
    if (!has_peer(call))
        ;
    else if (!call->call.stream || (response && !call->sent))
        (void)send_response(call->connection, id, TTRPC_OK, NULL, response);
    else {
        int r = response ? send_data(call->connection, id, 0, response) : 0;

        if (r == -EMSGSIZE)
            (void)send_response(call->connection, id, TTRPC_RESOURCE_EXHAUSTED,
                                "the message is longer than the limit of 4 MiB", NULL);
        else
            (void)send_data(call->connection, id, FRAME_REMOTE_CLOSED | FRAME_NO_DATA, NULL);
    }
    call_end(call);
}

static void fail(TtrpcCall *call, TtrpcCode code, const char *text)
{
    if (has_peer(call))
        (void)send_response(call->connection, call->call.id, code == TTRPC_OK ? TTRPC_UNKNOWN : code, text,
                            NULL);
    call_end(call);
}

void ttrpc_call_fail(TtrpcCall *call, TtrpcCode code, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
    va_list ap;

    va_start(ap, format);
    if (vasprintf(&text, format, ap) < 0)
        text = NULL;
    va_end(ap);
    fail(call, code, text ?: "out of memory");
}

void ttrpc_call_fail_error(TtrpcCall *call, const Error *e)
{
    fail(call, ttrpc_code_from_errno(e->number), error_message(e));
}

int ttrpc_call_send(TtrpcCall *call, const ProtobufCMessage *message)
{
    int r;

    if (!has_peer(call))
        return -ENOTCONN;
    if (!call->call.stream)
        return -EPROTOTYPE;
    if (transport_queued(call->connection->transport) > STREAM_QUEUE_MAX)
        return -EAGAIN;
    r = send_data(call->connection, call->call.id, 0, message);
    if (r >= 0)
        call->sent = true;
    return r;
}

/* -------------------------------------------------------------------------------------------- requests */

static const Service *find_service(const TtrpcServer *server, const char *name)
{
    for (const Service *s = server->services; s; s = s->next)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

static int refuse(Connection *c, uint32_t id, TtrpcCode code, const char *text)
{
    int r = send_response(c, id, code, text, NULL);

    /* Its loss is reported by the transport. */
    return r == -ENOTCONN ? 0 : r;
}

static int _printf_(4, 5) refuse_with(Connection *c, uint32_t id, TtrpcCode code, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
    va_list ap;
    int r;

    va_start(ap, format);
    r = vasprintf(&text, format, ap);
    va_end(ap);
    if (r < 0) {
        text = NULL;
        return -ENOMEM;
    }
    return refuse(c, id, code, text);
}

/* Makes the call and runs its handler, which may do anything, also free the server. */
static int start_call(Connection *c, const Frame *frame, const Service *service, unsigned method,
                      const TtrpcRequest *request)
{
    const ProtobufCMethodDescriptor *m = &service->descriptor->methods[method];
    uint64_t now = loop_now(), deadline = call_deadline(now, request->timeout_nano);
    TtrpcCall *call = calloc(1, sizeof(*call));
    int r;

    if (!call)
        return -ENOMEM;
    call->service = service;
    call->method = m;
    call->request = ttrpc_message_unpack(m->input, request->payload.data, request->payload.len);
    if (!call->request) {
        call_free(call);
        return refuse_with(c, frame->stream_id, TTRPC_INVALID_ARGUMENT, "%s/%s: cannot decode the request",
                           request->service, request->method);
    }
    if (deadline != UINT64_MAX) {
        r = ttrpc_server_arm_timer(c->server, deadline);
        if (r < 0) {
            call_free(call);
            return r;
        }
    }
    call->fds = transport_take_fds(c->transport, &call->n_fds);
    call->connection = c;
    call->call.id = frame->stream_id;
    call->call.stream = frame->flags & FRAME_REMOTE_CLOSED;
    call->call.deadline = deadline;
    call_table_add(&c->calls, &call->call);
    service->handlers[method](call, call->request, service->userdata);
    return 0;
}

static int handle_request(Connection *c, const Frame *frame)
{
    TtrpcRequest *request;
    const Service *service;
    const ProtobufCMethodDescriptor *m;
    unsigned index = 0;
    int r;

    request = (TtrpcRequest *)ttrpc_message_unpack(&cloudhv__ttrpc__request__descriptor, frame->payload,
                                                   frame->size);
    if (!request)
        return refuse(c, frame->stream_id, TTRPC_INVALID_ARGUMENT, "cannot decode the request's envelope");
    service = find_service(c->server, request->service);
    m = service ? protobuf_c_service_descriptor_get_method_by_name(service->descriptor, request->method)
                : NULL;
    if (m)
        index = (unsigned)(m - service->descriptor->methods);
    if (c->server->stopped)
        r = refuse(c, frame->stream_id, TTRPC_UNAVAILABLE, "the server is stopping");
    else if (!service)
        r = refuse_with(c, frame->stream_id, TTRPC_UNIMPLEMENTED, "service %s is not known",
                        request->service);
    else if (!m || !service->handlers[index])
        r = refuse_with(c, frame->stream_id, TTRPC_UNIMPLEMENTED, "%s/%s is not implemented",
                        request->service, request->method);
    else
        r = start_call(c, frame, service, index, request);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    return r;
}

/* The peer has, or needs, no answer any more; the handler still has to end the call. */
static void call_cancel(TtrpcCall *call)
{
    call->call.finished = true;
    if (call->cancel)
        call->cancel(call, call->cancel_userdata);
}

int ttrpc_server_handle_frame(Connection *c, const Frame *frame, Error *e)
{
    const char *text;
    TtrpcCode code;
    Call *call;
    int r = 0;

    switch (call_table_accept(&c->calls, frame, &call, &code, &text)) {
    case CALL_ACCEPT_IGNORE:
        break;
    case CALL_ACCEPT_CANCEL:
        call_cancel((TtrpcCall *)call);
        break;
    case CALL_ACCEPT_REFUSE:
        r = refuse(c, frame->stream_id, code, text);
        break;
    case CALL_ACCEPT_REQUEST:
        r = handle_request(c, frame);
        break;
    }
    return r < 0 ? error_set_errno(e, r, "cannot handle a request") : 0;
}

void ttrpc_server_cancel_calls(Connection *c)
{
    while (c->calls.first) {
        TtrpcCall *call = (TtrpcCall *)c->calls.first;

        call_table_remove(&c->calls, &call->call);
        call->connection = NULL;
        if (!call->call.finished)
            call_cancel(call);
    }
    c->calls = (CallTable){0};
}

static TtrpcCall *find_expired(const TtrpcServer *server, uint64_t now)
{
    for (Connection *c = server->connections; c; c = c->next) {
        Call *call = call_table_expired(&c->calls, now);

        if (call)
            return (TtrpcCall *)call;
    }
    return NULL;
}

void ttrpc_server_expire_calls(TtrpcServer *server)
{
    uint64_t next = UINT64_MAX, now = loop_now();
    TtrpcCall *call;

    server->timer_at = UINT64_MAX;
    /* Searched anew each time, since cancelling one may end others and close connections. */
    while (!server->freed && (call = find_expired(server, now))) {
        (void)send_response(call->connection, call->call.id, TTRPC_DEADLINE_EXCEEDED,
                            "the call's deadline has passed", NULL);
        call_cancel(call);
    }
    if (server->freed)
        return;
    for (Connection *c = server->connections; c; c = c->next) {
        uint64_t deadline = call_table_next_deadline(&c->calls);

        if (deadline < next)
            next = deadline;
    }
    if (next != UINT64_MAX)
        (void)ttrpc_server_arm_timer(server, next);
}

/* ------------------------------------------------------------------------------------------- accessors */

int ttrpc_call_take_fd(TtrpcCall *call)
{
    return call->next_fd < call->n_fds ? call->fds[call->next_fd++] : -ENODATA;
}

void ttrpc_call_set_cancel(TtrpcCall *call, TtrpcCancelFn callback, void *userdata)
{
    call->cancel = callback;
    call->cancel_userdata = userdata;
}

const ProtobufCMessage *ttrpc_call_request(const TtrpcCall *call)
{
    return call->request;
}

const char *ttrpc_call_method(const TtrpcCall *call)
{
    return call->method->name;
}

const char *ttrpc_call_service(const TtrpcCall *call)
{
    return call->service->name;
}
