/* SPDX-License-Identifier: MIT */
#pragma once

/* Inside of the ttrpc server: what server.c (connections and services) and server-call.c (requests and their
 * answers) share. */

#include <stdbool.h>

#include "ttrpc/call.h"
#include "ttrpc/message.h"
#include "ttrpc/transport.h"
#include "ttrpc/ttrpc.h"

typedef struct Service {
    struct Service *next;
    const char *name;
    const ProtobufCServiceDescriptor *descriptor;
    const TtrpcHandler *handlers;
    void *userdata;
} Service;

typedef struct Listener {
    struct Listener *next;
    TtrpcServer *server;
    int fd;
    uid_t uid;
    LoopSource *source;
} Listener;

/* One connection, or one serial port with its changing sessions. */
typedef struct Connection {
    unsigned refs;
    TtrpcServer *server; /* NULL once the connection is closed */
    Transport *transport;
    CallTable calls;
    bool serial;
    struct Connection *prev, *next;
} Connection;

struct TtrpcServer {
    unsigned refs;
    Loop *loop;
    Service *services;
    Listener *listeners;
    Connection *connections;
    unsigned n_connections;
    LoopSource *timer; /* of deadlines; made when the first call has one */
    uint64_t timer_at; /* UINT64_MAX: not armed */
    LoopSource *accept_retry;
    LoopSource *flush;
    LoopFn flush_callback;
    void *flush_userdata;
    TtrpcServerCloseFn close_callback;
    void *close_userdata;
    bool stopped;
    bool freed;
};

struct TtrpcCall {
    Call call;              /* first: the table's entries are cast back */
    Connection *connection; /* NULL when the peer has gone */
    const Service *service;
    const ProtobufCMethodDescriptor *method;
    ProtobufCMessage *request;
    bool sent; /* at least one message of the stream */
    int *fds;
    size_t n_fds, next_fd;
    TtrpcCancelFn cancel;
    void *cancel_userdata;
};

/* Handles a frame; the caller holds a reference of the connection. */
int ttrpc_server_handle_frame(Connection *c, const Frame *frame, Error *e);
/* Takes all calls of a connection from it and tells their handlers. */
void ttrpc_server_cancel_calls(Connection *c);
/* Answers DeadlineExceeded to every call that is late, and arms the timer for the next. */
void ttrpc_server_expire_calls(TtrpcServer *server);

/* Makes sure that the timer fires at `deadline` or before. */
int ttrpc_server_arm_timer(TtrpcServer *server, uint64_t deadline);
TtrpcServer *ttrpc_server_unref(TtrpcServer *server);
Connection *ttrpc_connection_unref(Connection *c);
