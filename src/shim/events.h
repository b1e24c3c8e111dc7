/* SPDX-License-Identifier: MIT */
#pragma once

/* Events for containerd, in the order in which they happened: one is on its way at a time, and one that could not
 * be delivered is sent again once containerd is back. The queue is bounded: the oldest event gives way. */

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/loop.h"

enum { EVENTS_QUEUE_MAX = 2048 };

typedef struct Events Events;

/* `address` is that of containerd's ttrpc socket, with or without "unix://". */
int events_new(Loop *loop, const char *address, const char *namespace, Events **ret);
Events *events_free(Events *events);
DEFINE_CLEANUP_FUNC(Events *, events_free)

/* Queues a message of containerd.events, whose type (as in "TaskExit") and topic (as in "/tasks/exit") are static
 * strings. Fails with -ENOMEM only. */
int events_publish(Events *events, const char *topic, const char *type, const ProtobufCMessage *event);

/* Calls back, once, when the queue is empty or after `timeout_usec`. */
typedef void (*EventsFlushFn)(Events *events, void *userdata);
int events_flush(Events *events, uint64_t timeout_usec, EventsFlushFn callback, void *userdata);

size_t events_count(const Events *events);
