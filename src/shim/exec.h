/* SPDX-License-Identifier: MIT */
#pragma once

/* Further processes in a container. */

#include "containerd-task.pb-c.h"
#include "shim/process.h"
#include "shim/shim.h"

/* Takes the call. */
void exec_create(Shim *shim, TtrpcCall *call, const Containerd__ExecProcessRequest *request);

/* Takes the call, which `answer` then ends. */
void exec_delete(Process *p, TtrpcCall *call, void (*answer)(TtrpcCall *call, const Process *p));
