/* SPDX-License-Identifier: MIT */
#pragma once

/* Create: from a bundle and the mounts of its root file system to a container whose process waits to be started.
 * What fails on the way is undone before containerd gets its answer. */

#include "containerd-task.pb-c.h"
#include "shim/shim.h"

typedef struct Create Create;

/* Takes the call. */
void create_start(Shim *shim, TtrpcCall *call, const Containerd__CreateTaskRequest *request);

/* Makes a Create that still goes on fail at its next step; `reason` is for its answer. */
void create_abort(Create *create, const char *reason);

/* Of a container that is being freed. */
void create_free(Create *create);
