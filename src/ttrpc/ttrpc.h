/* SPDX-License-Identifier: MIT */
#pragma once

/* ttrpc (containerd/ttrpc, PROTOCOL.md) for an event loop: servers and clients over a socket, over vsock or,
 * with the link layer of link.h, over a serial port. Frames and the state of calls are in frame.h and call.h,
 * without I/O; this is what programs use.
 *
 * A service is described by protobuf-c's ProtobufCServiceDescriptor, which protoc-c generates; handlers are
 * an array in the order of its methods. A method without a handler answers Unimplemented with its name. */

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

/* gRPC status codes (google.rpc.Code). */
typedef enum TtrpcCode {
    TTRPC_OK = 0,
    TTRPC_CANCELED = 1,
    TTRPC_UNKNOWN = 2,
    TTRPC_INVALID_ARGUMENT = 3,
    TTRPC_DEADLINE_EXCEEDED = 4,
    TTRPC_NOT_FOUND = 5,
    TTRPC_ALREADY_EXISTS = 6,
    TTRPC_PERMISSION_DENIED = 7,
    TTRPC_RESOURCE_EXHAUSTED = 8,
    TTRPC_FAILED_PRECONDITION = 9,
    TTRPC_ABORTED = 10,
    TTRPC_OUT_OF_RANGE = 11,
    TTRPC_UNIMPLEMENTED = 12,
    TTRPC_INTERNAL = 13,
    TTRPC_UNAVAILABLE = 14,
    TTRPC_DATA_LOSS = 15,
} TtrpcCode;

/* The code that fits a negative errno best, and back (a negative errno; 0 for TTRPC_OK). */
TtrpcCode ttrpc_code_from_errno(int number);
int ttrpc_code_to_errno(TtrpcCode code);

/* ---------------------------------------------------------------------------------------------- server */

typedef struct TtrpcServer TtrpcServer;
typedef struct TtrpcCall TtrpcCall; /* a request that is not answered yet */

/* Takes a request. The handler must, now or later, end the call exactly once by ttrpc_call_reply(), _fail()
 * or _fail_error(). `request` is valid until then. */
typedef void (*TtrpcHandler)(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);

int ttrpc_server_new(Loop *loop, TtrpcServer **ret);
/* Closes all connections; calls in flight are cancelled (their cancel callbacks run). */
TtrpcServer *ttrpc_server_free(TtrpcServer *server);
DEFINE_CLEANUP_FUNC(TtrpcServer *, ttrpc_server_free)

/* Serves a service under `name` (NULL: the descriptor's own); one implementation can be served under several
 * names. `handlers` has `descriptor->n_methods` entries, NULL for what is not served; both must outlive the
 * server. */
int ttrpc_server_add_service(TtrpcServer *server, const char *name,
                             const ProtobufCServiceDescriptor *descriptor, const TtrpcHandler *handlers,
                             void *userdata);

/* Accepts connections on a listening socket, which becomes the server's. With `uid` other than (uid_t)-1,
 * peers of another uid (SO_PEERCRED) are closed at once. */
int ttrpc_server_listen(TtrpcServer *server, int listen_fd, uid_t uid);

/* Serves one connected stream socket, which becomes the server's (also on failure). */
int ttrpc_server_add_connection(TtrpcServer *server, int fd);

/* Serves a virtio-serial port or the like, for good: sessions come and go by the resets of the link layer.
 * The descriptor becomes the server's and is watched edge-triggered, so that a port whose host side is closed
 * causes no wake-ups. */
int ttrpc_server_add_serial(TtrpcServer *server, int fd);

/* Called when a connection, or a serial session, has ended and its calls are cancelled. */
typedef void (*TtrpcServerCloseFn)(TtrpcServer *server, void *userdata);
void ttrpc_server_set_close(TtrpcServer *server, TtrpcServerCloseFn callback, void *userdata);

/* Stops taking new connections and requests (Unavailable), while calls in flight can still be answered. */
void ttrpc_server_stop(TtrpcServer *server);
/* Calls back once every queued answer is written or its connection gone: for a program about to exit. */
int ttrpc_server_flush(TtrpcServer *server, LoopFn callback, void *userdata);

/* Ends a call with its response; consumes `call`. When the peer is gone the response is dropped. */
void ttrpc_call_reply(TtrpcCall *call, const ProtobufCMessage *response);
void ttrpc_call_fail(TtrpcCall *call, TtrpcCode code, const char *format, ...) _printf_(3, 4);
void ttrpc_call_fail_error(TtrpcCall *call, const Error *e);

/* For a method that returns a stream: one message of it. The stream ends by ttrpc_call_reply(call, NULL) or
 * by a failure. -EAGAIN when more than 1 MiB waits for the peer already. */
int ttrpc_call_send(TtrpcCall *call, const ProtobufCMessage *message);

/* The next descriptor that came with the request's frame, or -ENODATA; it becomes the caller's. Descriptors
 * that nobody took are closed with the call. */
int ttrpc_call_take_fd(TtrpcCall *call);

/* Called when the peer has gone or the deadline that it set has passed, before the call was ended. The call
 * must still be ended by the handler's side (which may happen in the callback); its answer then goes nowhere.
 */
typedef void (*TtrpcCancelFn)(TtrpcCall *call, void *userdata);
void ttrpc_call_set_cancel(TtrpcCall *call, TtrpcCancelFn callback, void *userdata);

/* The request, as long as the call has not been ended. */
const ProtobufCMessage *ttrpc_call_request(const TtrpcCall *call);
const char *ttrpc_call_method(const TtrpcCall *call);
/* The service name that the peer used: tells containerd.task.v2.Task from containerd.task.v3.Task. */
const char *ttrpc_call_service(const TtrpcCall *call);

/* For a server whose program executes itself anew, or is replaced, in the middle of a call: what another one
 * needs to handle that call from its begin and to answer it where it came from. */
typedef struct TtrpcHandover {
    int fd;         /* of a connection: the server's own; -EBADF: a serial port, which is to be opened again */
    uint64_t nonce; /* of the port's session */
    uint8_t *frame; /* the request, freed by ttrpc_handover_clear() */
    size_t size;
} TtrpcHandover;
void ttrpc_handover_clear(TtrpcHandover *handover);

/* To be called by the call's handler, at once. -EBUSY when other calls, or bytes in either direction, are under
 * way on the connection. */
int ttrpc_call_hand_over(const TtrpcCall *call, TtrpcHandover *ret);
/* Takes `handover->fd`, where there is one; the port must have been added before. The handler is called from
 * inside. -ENOENT: the server has no port. */
int ttrpc_server_take_over(TtrpcServer *server, const TtrpcHandover *handover);
/* Ends all connections and sessions, which clients learn; the server stays, and so do its ports. */
void ttrpc_server_end_sessions(TtrpcServer *server);

/* ---------------------------------------------------------------------------------------------- client */

typedef struct TtrpcClient TtrpcClient;
typedef struct TtrpcPending TtrpcPending; /* a request that waits for its answer */

/* The end of a call. On success `code` is TTRPC_OK and `response` the answer, valid during the callback (for
 * a stream: one message; then, at its end, NULL). On failure `message` says why. */
typedef struct TtrpcReply {
    TtrpcCode code;
    const char *message;
    const ProtobufCMessage *response;
} TtrpcReply;

/* Called once for a unary call; for a stream for each message and once, with `response` NULL, at its end. */
typedef void (*TtrpcReplyFn)(const TtrpcReply *reply, void *userdata);

/* Takes over a connected stream socket (also on failure). */
int ttrpc_client_new(Loop *loop, int fd, TtrpcClient **ret);

/* The same over the link layer: sends a reset and holds requests back until the other side has answered it.
 */
int ttrpc_client_new_serial(Loop *loop, int fd, TtrpcClient **ret);

/* Connects to a Unix socket, sends "CONNECT port\n" and awaits "OK …\n" before the first frame (hybrid vsock
 * of Cloud Hypervisor and Firecracker); gives up, closing, after `timeout_usec`. */
int ttrpc_client_new_vsock(Loop *loop, int fd, uint32_t port, uint64_t timeout_usec, TtrpcClient **ret);

/* Pending calls end with Canceled before this returns; may be called from a reply callback. */
TtrpcClient *ttrpc_client_free(TtrpcClient *client);
DEFINE_CLEANUP_FUNC(TtrpcClient *, ttrpc_client_free)

/* Called once, when the connection is lost, after all pending calls ended with Unavailable. */
typedef void (*TtrpcCloseFn)(TtrpcClient *client, const Error *reason, void *userdata);
void ttrpc_client_set_close(TtrpcClient *client, TtrpcCloseFn callback, void *userdata);

typedef struct TtrpcCallSpec {
    const ProtobufCServiceDescriptor *service;
    const char *service_name; /* NULL: the descriptor's own */
    const char *method;
    const ProtobufCMessage *request;
    uint64_t timeout_usec; /* also told to the peer; 0: none, only for calls that wait for an event */
    const int *fds;        /* sent with the frame (duplicated, they stay the caller's) */
    size_t n_fds;
    bool stream; /* the method returns a stream */
} TtrpcCallSpec;

/* Sends a request. The callback runs from the loop, never from inside this function. `ret` (may be NULL)
 * allows to cancel. A connection that is already lost gives -ENOTCONN. */
int ttrpc_client_call(TtrpcClient *client, const TtrpcCallSpec *spec, TtrpcReplyFn callback, void *userdata,
                      TtrpcPending **ret);

/* Drops a pending call: its callback will not run. Valid until the callback has run for the last time. */
void ttrpc_pending_cancel(TtrpcPending *pending);

/* Fills `e` from a failed reply ("METHOD: message") and returns its negative errno; 0 for TTRPC_OK. */
int ttrpc_reply_error(const TtrpcReply *reply, const char *what, Error *e);
