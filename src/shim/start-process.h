/* SPDX-License-Identifier: MIT */
#pragma once

/* Start of a process: the sandbox's container brings the pod's network up, a plain container that and its process,
 * the others just their process. */

#include "shim/process.h"

/* Takes the call. */
void start_process(Process *p, TtrpcCall *call);
