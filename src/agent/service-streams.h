/* SPDX-License-Identifier: MIT */
#pragma once

/* The part of service Task that moves standard streams and waits for processes: calls that may stay open for
 * long and end when their caller goes away. All are TtrpcHandlers with an AgentContext. */

#include "agent/service.h"

void service_wait_process(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);
void service_read_stream(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);
void service_write_stream(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);
void service_close_stdin(TtrpcCall *call, const ProtobufCMessage *request, void *userdata);

/* Finds the process that a call is about, or ends the call with NotFound and returns NULL. */
Container *service_find_container(TtrpcCall *call, const AgentContext *context, const char *id);
Process *service_find_process(TtrpcCall *call, const AgentContext *context, const char *id, const char *exec_id);
