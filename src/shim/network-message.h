/* SPDX-License-Identifier: MIT */
#pragma once

/* The pod's network as the agent's ConfigureNetwork takes it. */

#include "base/error.h"
#include "net/net.h"
#include "ttrpc/ttrpc.h"

/* Calls ConfigureNetwork; `config` is not needed after the return. */
int network_message_send(TtrpcClient *agent, const NetConfig *config, uint64_t timeout_usec, TtrpcReplyFn callback,
                         void *userdata, TtrpcPending **ret, Error *e);
