/* SPDX-License-Identifier: MIT */
#pragma once

/* The pod: its network namespace, in which the shim lives, its TAPs, its VM (by the daemon), and the connection to
 * the agent in it. */

#include <stdbool.h>

#include "base/error.h"
#include "daemon.pb-c.h"
#include "oci/bundle.h"
#include "ttrpc/ttrpc.h"

typedef struct Pod Pod;
typedef struct Shim Shim;

/* `e` is NULL on success. */
typedef void (*PodFn)(Pod *pod, const Error *e, void *userdata);

int pod_new(Shim *shim, Pod **ret);
/* Closes connections; the VM goes on unless it was released. */
Pod *pod_free(Pod *pod);
DEFINE_CLEANUP_FUNC(Pod *, pod_free)

/* Enters the network namespace that the bundle names, or a new one, makes a TAP for each interface there (one at
 * least), gets a VM and greets its agent. The bundle is not needed after the return. On failure pod_release() is
 * still to be called. */
int pod_acquire(Pod *pod, const Bundle *bundle, PodFn callback, void *userdata, Error *e);

/* Reads what CNI set up, connects the TAPs to it and tells the agent. */
int pod_configure_network(Pod *pod, PodFn callback, void *userdata, Error *e);

int pod_attach_disks(Pod *pod, const char *container_id, Cloudhv__Daemon__V1__Disk **disks, size_t n_disks,
                     PodFn callback, void *userdata, Error *e);
int pod_detach_disks(Pod *pod, const char *container_id, PodFn callback, void *userdata, Error *e);

/* Ends the VM and removes what was made for the pod, whatever state it is in. Always calls back, from the loop. */
void pod_release(Pod *pod, PodFn callback, void *userdata);

/* NULL unless the VM runs and its agent is connected. `pod` may be NULL. */
TtrpcClient *pod_agent(const Pod *pod);

/* Path of the namespace as the spec named it; NULL: made by us. */
const char *pod_netns(const Pod *pod);

/* A number that is another one for each disk of the pod (up to a hundred). */
unsigned pod_next_disk(Pod *pod);
