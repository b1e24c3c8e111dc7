/* SPDX-License-Identifier: MIT */

#include "vmm/ch-events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

void ch_event_clear(ChEvent *event)
{
    json_decref(event->object);
    *event = (ChEvent){0};
}

void ch_events_clear(ChEvents *events)
{
    free(events->data);
    *events = (ChEvents){0};
}

int ch_events_feed(ChEvents *events, const void *data, size_t n)
{
    char *grown;

    if (events->broken)
        return 0;
    if (n > 2 * CH_EVENT_MAX - events->size)
        return -EMSGSIZE;
    grown = realloc(events->data, events->size + n);
    if (!grown)
        return n > 0 ? -ENOMEM : 0;
    memcpy(grown + events->size, data, n);
    events->data = grown;
    events->size += n;
    return 0;
}

static void consume(ChEvents *events, size_t n)
{
    events->size -= n;
    if (events->size > 0) {
        memmove(events->data, events->data + n, events->size);
        return;
    }
    free(events->data);
    events->data = NULL;
}

static int broken(ChEvents *events, Error *e, const char *what)
{
    ch_events_clear(events);
    events->broken = true;
    return error_set(e, -EBADMSG, "Cloud Hypervisor's event %s", what);
}

/* The size of the object that the text begins with; 0: it does not end yet. */
static size_t object_size(const char *text, size_t n)
{
    unsigned depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < n; i++) {
        if (quoted) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                quoted = false;
        } else if (text[i] == '"') {
            quoted = true;
        } else if (text[i] == '{') {
            depth++;
        } else if (text[i] == '}' && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

int ch_events_next(ChEvents *events, ChEvent *ret, Error *e)
{
    _cleanup_ch_event_ ChEvent event = {0};
    json_t *properties = NULL;
    size_t blank = 0, n;
    int r;

    if (events->broken)
        return error_set(e, -EBADMSG, "Cloud Hypervisor's events are broken");
    while (blank < events->size && strchr(" \t\r\n", events->data[blank]) && events->data[blank])
        blank++;
    if (blank > 0)
        consume(events, blank);
    if (events->size == 0)
        return 1;
    if (events->data[0] != '{')
        return broken(events, e, "is no object");
    n = object_size(events->data, events->size);
    if (n == 0)
        return events->size > CH_EVENT_MAX ? broken(events, e, "is too long") : 1;
    event.object = json_loadb(events->data, n, JSON_REJECT_DUPLICATES, NULL);
    if (!event.object)
        return broken(events, e, "is not JSON");
    r = json_get_string(event.object, "source", "event", &event.source, NULL);
    if (r > 0)
        r = json_get_string(event.object, "event", "event", &event.event, NULL);
    if (r > 0)
        r = json_get_object(event.object, "properties", "event", &properties, NULL);
    if (r >= 0 && properties)
        r = json_get_string(properties, "id", "event", &event.id, NULL);
    if (r < 0 || !event.source || !event.event)
        return broken(events, e, "has no name");
    consume(events, n);
    *ret = event;
    event = (ChEvent){0};
    return 0;
}
