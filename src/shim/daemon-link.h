/* SPDX-License-Identifier: MIT */
#pragma once

/* Calls to the service cloudhv.daemon.v1.Sandboxes, each over a connection of its own, so that nothing is held
 * while a pod just runs, and a restart of the daemon is noticed by nobody who does not call at that moment. With no
 * daemon configured the same service runs in this process, behind a socket pair. */

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/loop.h"
#include "config/config.h"
#include "ttrpc/ttrpc.h"

typedef struct DaemonLink DaemonLink;
typedef struct DaemonCall DaemonCall;

/* The configuration and the names of the sandbox must outlive the link. */
int daemon_link_new(Loop *loop, const ShimConfig *config, const char *namespace, const char *sandbox_id,
                    DaemonLink **ret);
DaemonLink *daemon_link_free(DaemonLink *link);
DEFINE_CLEANUP_FUNC(DaemonLink *, daemon_link_free)

typedef struct DaemonCallSpec {
    const char *method;
    const ProtobufCMessage *request; /* needed during daemon_call() only */
    uint64_t timeout_usec;
    const int *fds;
    size_t n_fds;
} DaemonCallSpec;

/* `response` is NULL on failure, and `e` then says why; both are valid during the callback. */
typedef void (*DaemonCallFn)(const ProtobufCMessage *response, const Error *e, void *userdata);

/* The callback runs from the loop, never from inside this function. `ret` is valid until then. */
int daemon_call(DaemonLink *link, const DaemonCallSpec *spec, DaemonCallFn callback, void *userdata,
                DaemonCall **ret, Error *e);

/* Drops a call: its callback will not run. NULL is fine; always returns NULL. */
DaemonCall *daemon_call_cancel(DaemonCall *call);

/* What a call that only waits for the daemon and its VMM may take. */
uint64_t daemon_link_timeout(const DaemonLink *link);
