/* SPDX-License-Identifier: MIT */
#pragma once

/* The glue between ttrpc's state machines and a descriptor on an event loop, the same for server and client:
 * reads, hands out frames, writes at once where the kernel takes it and queues the rest. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "ttrpc/frame.h"

typedef struct Transport Transport;

typedef enum TransportKind {
    TRANSPORT_SERVER,        /* a stream socket; descriptors are received */
    TRANSPORT_CLIENT,        /* a stream socket */
    TRANSPORT_SERIAL_SERVER, /* a port with the link layer: sessions come and go */
    TRANSPORT_SERIAL_CLIENT, /* the host's end of such a port, one session */
} TransportKind;

typedef struct TransportHandlers {
    /* A frame; a negative errno, with `e` filled, ends the connection or session. */
    int (*frame)(Transport *t, const Frame *frame, void *userdata, Error *e);
    /* The connection or, for a serial server, the session is lost. Comes from the loop only. */
    void (*lost)(Transport *t, const Error *reason, void *userdata);
    /* Nothing is queued any more; may be NULL. */
    void (*drained)(Transport *t, void *userdata);
} TransportHandlers;

/* Takes over `fd` (also on failure). `handlers` must outlive the transport. */
int transport_new(Loop *loop, int fd, TransportKind kind, const TransportHandlers *handlers, void *userdata,
                  Transport **ret);
/* Closes; a serial session is ended politely. No handler is called any more. May be called by handlers. */
Transport *transport_free(Transport *t);
DEFINE_CLEANUP_FUNC(Transport *, transport_free)

/* Holds frames back until the other side has answered `line` (which is sent now, and ends in a newline) with
 * one that begins with `expected`; another answer ends the connection. */
int transport_greet(Transport *t, const char *line, const char *expected);
/* Frames are held back: the greeting or the link's reset is not answered yet. */
bool transport_is_held(const Transport *t);

/* Sends a frame, of which it takes ownership (also on failure), with descriptors, which are duplicated.
 * -ENOTCONN when the connection or session is gone. A failure to write is reported by `lost`, later. */
int transport_send(Transport *t, uint8_t *frame, size_t size, const int *fds, size_t n_fds);
/* Bytes that the kernel has not taken yet. */
size_t transport_queued(const Transport *t);

/* The descriptors that came with the frame being handled (frame_parser_take_fds()). */
int *transport_take_fds(Transport *t, size_t *ret_n);

/* Ends the connection or session as if the other side had. Calls `lost`. */
void transport_abort(Transport *t, const Error *reason);

/* For a server that another one is to go on for, while it handles a frame: the descriptor, and the nonce of a
 * serial port's session. -EBUSY when there is more on the connection than this frame. */
int transport_suspend(const Transport *t, int *ret_fd, uint64_t *ret_nonce);
/* Goes on with such a connection or session, as if `frame` had just been received: calls the handlers. */
void transport_resume(Transport *t, uint64_t nonce, const uint8_t *frame, size_t size);
/* Ends the connection, or the session of a serial port, which is told to the other side. Calls `lost`. */
void transport_end_session(Transport *t);
