/* SPDX-License-Identifier: MIT */
#pragma once

/* Cloud Hypervisor's event stream (--event-monitor; docs/event_monitor.md there), without I/O: bytes go in, events
 * come out. JSON objects follow each other, with white space between. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* An event has some hundred bytes. */
#define CH_EVENT_MAX (16 * 1024)

typedef struct ChEvents {
    char *data;
    size_t size;
    bool broken;
} ChEvents;

typedef struct ChEvent {
    const char *source, *event; /* "vm" and "booted" */
    const char *id;             /* of the device, or NULL */
    json_t *object;             /* keeps the strings alive */
} ChEvent;

void ch_event_clear(ChEvent *event);
#define _cleanup_ch_event_ _cleanup_(ch_event_clear)

void ch_events_clear(ChEvents *events);

/* Takes bytes. Returns 0, -ENOMEM or -EMSGSIZE; after each, take all events that there are. */
int ch_events_feed(ChEvents *events, const void *data, size_t n);

/* 0: found, 1: none, -EBADMSG: that is no event, and what follows can't be read either. */
int ch_events_next(ChEvents *events, ChEvent *ret, Error *e);
