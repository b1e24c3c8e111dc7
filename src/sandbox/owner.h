/* SPDX-License-Identifier: MIT */
#pragma once

/* Notices that a sandbox has lost its owner: the shim's process has ended and its bundle is gone, which means
 * that containerd has forgotten the pod too. A shim that died while its bundle is still there has a `delete`
 * coming, or a containerd that will be started again; until then the pod keeps running. Nothing is polled. */

#include "base/error.h"
#include "base/loop.h"

typedef struct Owner Owner;

typedef enum OwnerEvent {
    OWNER_SHIM_ENDED, /* once */
    OWNER_LOST,       /* once, after the former or together with it */
} OwnerEvent;

typedef void (*OwnerFn)(Owner *owner, OwnerEvent event, void *userdata);

/* Begins to watch. A shim that has ended already is reported from the loop. `start_time` as process_open()
 * has it; an empty bundle counts as gone. The object may be freed in its callback. */
int owner_new(Loop *loop, pid_t shim_pid, uint64_t start_time, const char *bundle, OwnerFn callback,
              void *userdata, Owner **ret, Error *e);
Owner *owner_free(Owner *owner);
