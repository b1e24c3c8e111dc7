/* SPDX-License-Identifier: MIT */
#pragma once

/* containerd's task service, versions 2 and 3 from one implementation. */

#include "shim/shim.h"

/* Registers it with the shim's server under both names. */
int task_register(Shim *shim);
