/* SPDX-License-Identifier: MIT */
#pragma once

/* All clones of a template have the agent as it was frozen: at the same addresses, with the same stack canary. So
 * it executes itself anew as soon as its VM has random numbers of its own, in the middle of the call Identity, which
 * the new one then handles and answers. A VM that was booted does the same: there is one way only. */

#include "base/error.h"
#include "ttrpc/ttrpc.h"

/* The first argument of an agent that goes on for another; the second one is a descriptor. */
#define REBIRTH_ARGUMENT "--reborn"

/* Does not return, unless it fails: then nothing has changed. */
int rebirth(const TtrpcCall *call, Error *e);
/* In the new agent: what it has to go on with. */
int rebirth_read(const char *argument, TtrpcHandover *ret, Error *e);
