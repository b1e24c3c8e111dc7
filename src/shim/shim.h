/* SPDX-License-Identifier: MIT */
#pragma once

/* What the parts of the shim's server share: one pod, its containers, and the way to containerd. */

#include <stdbool.h>

#include "base/loop.h"
#include "config/config.h"
#include "shim/events.h"
#include "shim/record.h"
#include "shim/server.h"
#include "ttrpc/ttrpc.h"

typedef struct Container Container;
typedef struct DaemonLink DaemonLink;
typedef struct Pod Pod;

typedef struct Shim {
    Loop *loop;
    const ServerSpec *spec;
    ShimConfig *config;
    TtrpcServer *server;
    Events *events;
    DaemonLink *daemon;
    Record *record;
    Pod *pod;              /* NULL until the first Create */
    Container *containers; /* in the order of their creation */
    bool stop_when_idle;   /* containerd has asked already, while a Create went on */
} Shim;

/* The number of containers changed, or something else that may let the shim end. */
void shim_check_idle(Shim *shim);

/* Ends the server: containerd asked for it and nothing is left to serve. */
void shim_stop(Shim *shim);

/* The pod's VM ended without having been released: all that ran in it has exited. */
void shim_pod_ended(Shim *shim, const char *reason);
