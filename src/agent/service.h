/* SPDX-License-Identifier: MIT */
#pragma once

/* The agent's two ttrpc services: the translation between messages and modules. */

#include "agent/container.h"
#include "agent/identity.h"
#include "agent/network.h"
#include "agent/quiesce.h"
#include "ttrpc/ttrpc.h"

enum {
    AGENT_PROTOCOL = 1,
    AGENT_METHODS_MAX = 32, /* of one service */
};

/* What the services work on; all of it must outlive them. */
typedef struct AgentContext {
    Loop *loop;
    Identity *identity;
    bool reborn; /* this is not the agent that was frozen with the template */
    Quiesce *quiesce;
    TtrpcServer *task; /* its sessions end when the agent executes itself anew */
    Network *network;
    Trees *trees;
    Containers *containers;
    /* Called when the host has asked for the end and knows that it was heard. */
    void (*shut_down)(bool restart, void *userdata);
    void *userdata;
} AgentContext;

/* Serves Control or Task. The handlers' tables are kept in static memory, one for each service. */
int service_add_control(TtrpcServer *server, AgentContext *context);
int service_add_task(TtrpcServer *server, AgentContext *context);

/* A method and what serves it. */
typedef struct ServiceMethod {
    const char *name;
    TtrpcHandler handler;
} ServiceMethod;

/* Fills a table in the order of the descriptor's methods; -ENOENT for a name that the service does not have.
 * Methods that are not named stay NULL: not implemented. */
int service_fill(const ProtobufCServiceDescriptor *descriptor, const ServiceMethod *methods, size_t n,
                 TtrpcHandler handlers[static AGENT_METHODS_MAX]);

/* Both channels' Hello. A TtrpcHandler. */
void service_hello(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);

/* Refuses the call, and returns true, as long as the VM has no identity. */
bool service_refuse(TtrpcCall *call, const AgentContext *context);

/* Ends a call with the error of a module. */
void service_fail(TtrpcCall *call, int number, const char *message);
