/* SPDX-License-Identifier: MIT */
#pragma once

/* A server and a client of the agent's Control service in one loop, and what came of their calls. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "ttrpc/ttrpc.h"

#define CONTROL (&cloudhv__agent__v1__control__descriptor)

enum { HELLO, IDENTITY, SET_CLOCK, RESIZE, QUIESCE, WATCH_PRESSURE, SHUTDOWN, N_METHODS };

typedef struct Result {
    unsigned replies; /* callbacks */
    unsigned messages;
    bool ended;
    TtrpcCode code;
    char text[200];
    uint32_t protocol;
    uint64_t last;
} Result;

typedef struct Pair {
    Loop *loop;
    TtrpcServer *server;
    TtrpcClient *client;
    TtrpcHandler handlers[N_METHODS];
    TtrpcCall *held[64]; /* requests that a test answers later */
    unsigned n_held;
    unsigned cancelled;
    bool end_when_cancelled;
    unsigned closed; /* connections or sessions, on the server */
    unsigned lost;   /* on the client */
    int lost_number;
    char lost_text[200];
} Pair;

static inline void wait_for(Pair *p, const bool *flag, const unsigned *counter, unsigned wanted)
{
    uint64_t end = loop_now() + 20 * USEC_PER_SEC;

    while (flag ? !*flag : *counter < wanted) {
        if (loop_now() > end)
            fail_msg("nothing happened in time");
        assert_true(loop_run_once(p->loop, 100000) >= 0);
    }
}

/* Lets the loop run until nothing is ready any more. */
static inline void settle(Pair *p)
{
    while (loop_run_once(p->loop, 2000) > 0)
        ;
}

static inline void on_reply(const TtrpcReply *reply, void *userdata)
{
    Result *result = userdata;

    assert_false(result->ended);
    result->replies++;
    result->code = reply->code;
    snprintf(result->text, sizeof(result->text), "%s", reply->message ? reply->message : "");
    if (reply->response) {
        result->messages++;
        if (reply->response->descriptor == &cloudhv__agent__v1__hello_response__descriptor)
            result->protocol = ((const Cloudhv__Agent__V1__HelloResponse *)reply->response)->protocol;
    }
}

static inline void on_unary(const TtrpcReply *reply, void *userdata)
{
    Result *result = userdata;

    on_reply(reply, userdata);
    result->ended = true;
}

static inline void on_stream(const TtrpcReply *reply, void *userdata)
{
    Result *result = userdata;

    on_reply(reply, userdata);
    result->ended = !reply->response;
}

/* Answers with the protocol number of the request. */
static inline void handle_hello(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__HelloRequest *hello = (const Cloudhv__Agent__V1__HelloRequest *)request;
    Cloudhv__Agent__V1__HelloResponse response = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;

    response.protocol = hello->protocol;
    response.agent_version = hello->peer;
    ttrpc_call_reply(call, &response.base);
}

static inline void on_cancelled(TtrpcCall *call, void *userdata)
{
    Pair *p = userdata;

    p->cancelled++;
    if (!p->end_when_cancelled)
        return;
    for (unsigned i = 0; i < p->n_held; i++)
        if (p->held[i] == call)
            p->held[i] = NULL;
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits");
}

static inline void handle_hold(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    Pair *p = userdata;

    assert_true(p->n_held < ELEMENTSOF(p->held));
    p->held[p->n_held++] = call;
    ttrpc_call_set_cancel(call, on_cancelled, p);
}

static inline void on_server_close(TtrpcServer *server, void *userdata)
{
    ((Pair *)userdata)->closed++;
}

static inline void on_client_close(TtrpcClient *client, const Error *reason, void *userdata)
{
    Pair *p = userdata;

    p->lost++;
    p->lost_number = reason->number;
    snprintf(p->lost_text, sizeof(p->lost_text), "%s", error_message(reason));
}

/* A server; Hello answers, Quiesce and WatchPressure wait for the test. */
static inline void pair_server(Pair *p)
{
    *p =
        (Pair){.handlers = {[HELLO] = handle_hello, [QUIESCE] = handle_hold, [WATCH_PRESSURE] = handle_hold}};
    assert_int_equal(loop_new(&p->loop), 0);
    assert_int_equal(ttrpc_server_new(p->loop, &p->server), 0);
    assert_int_equal(ttrpc_server_add_service(p->server, NULL, CONTROL, p->handlers, p), 0);
    ttrpc_server_set_close(p->server, on_server_close, p);
}

static inline void make_sockets(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static inline void pair_connect(Pair *p)
{
    int fds[2];

    make_sockets(fds);
    assert_int_equal(ttrpc_server_add_connection(p->server, fds[0]), 0);
    assert_int_equal(ttrpc_client_new(p->loop, fds[1], &p->client), 0);
    ttrpc_client_set_close(p->client, on_client_close, p);
}

static inline void pair_done(Pair *p)
{
    p->client = ttrpc_client_free(p->client);
    p->server = ttrpc_server_free(p->server);
    for (unsigned i = 0; i < p->n_held; i++)
        if (p->held[i])
            ttrpc_call_fail(p->held[i], TTRPC_CANCELED, "the test is over");
    loop_free(p->loop);
}

static inline int call_hello(Pair *p, uint32_t protocol, char *peer, Result *result)
{
    Cloudhv__Agent__V1__HelloRequest request = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;

    request.protocol = protocol;
    request.peer = peer;
    return ttrpc_client_call(p->client,
                             &(TtrpcCallSpec){.service = CONTROL,
                                              .method = "Hello",
                                              .request = &request.base,
                                              .timeout_usec = 20 * USEC_PER_SEC},
                             on_unary, result, NULL);
}

static inline int call_quiesce(Pair *p, uint64_t timeout_usec, Result *result, TtrpcPending **ret)
{
    Cloudhv__Agent__V1__QuiesceRequest request = CLOUDHV__AGENT__V1__QUIESCE_REQUEST__INIT;

    return ttrpc_client_call(
        p->client,
        &(TtrpcCallSpec){
            .service = CONTROL, .method = "Quiesce", .request = &request.base, .timeout_usec = timeout_usec},
        on_unary, result, ret);
}

static inline int call_watch(Pair *p, Result *result, TtrpcPending **ret)
{
    Cloudhv__Agent__V1__WatchPressureRequest request = CLOUDHV__AGENT__V1__WATCH_PRESSURE_REQUEST__INIT;

    return ttrpc_client_call(
        p->client,
        &(TtrpcCallSpec){
            .service = CONTROL, .method = "WatchPressure", .request = &request.base, .stream = true},
        on_stream, result, ret);
}

static inline void reply_empty(TtrpcCall *call)
{
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;

    ttrpc_call_reply(call, &empty.base);
}

/* The answer to a held request, in the order of arrival. */
static inline TtrpcCall *take_held(Pair *p, unsigned i)
{
    TtrpcCall *call = p->held[i];

    assert_non_null(call);
    p->held[i] = NULL;
    return call;
}
