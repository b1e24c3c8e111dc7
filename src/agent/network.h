/* SPDX-License-Identifier: MIT */
#pragma once

/* The pod's network, from the host's message to the kernel. A network device may be plugged just before the
 * host describes it; then the configuration waits for its event. */

#include "agent.pb-c.h"
#include "agent/uevent.h"
#include "base/error.h"
#include "net/net.h"

typedef struct Network Network;

int network_new(Loop *loop, UeventMonitor *monitor, Network **ret);
Network *network_free(Network *network);
DEFINE_CLEANUP_FUNC(Network *, network_free)

/* 0, or a negative errno and why. */
typedef void (*NetworkFn)(int number, const char *message, void *userdata);

/* Applies a configuration; calls back once, possibly before this returns. -EBUSY when another one is being
 * applied, -ENODEV when a device did not appear. */
void network_configure(Network *network, const Cloudhv__Agent__V1__ConfigureNetworkRequest *request,
                       NetworkFn done, void *userdata);

/* Translates and checks a message. Pure. */
int network_translate(const Cloudhv__Agent__V1__ConfigureNetworkRequest *request, NetConfig *ret, Error *e);
