/* SPDX-License-Identifier: MIT */
#pragma once

/* containerd's task service, versions 2 and 3 from one implementation. */

#include "shim/shim.h"

/* Ends a call that failed. containerd takes "not implemented" as a reason to call again in an older version of the
 * protocol, and "not found" as news about the container: these two get other codes. */
void task_fail_call(TtrpcCall *call, const Error *e);

/* Registers it with the shim's server under both names. */
int task_register(Shim *shim);
