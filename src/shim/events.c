/* SPDX-License-Identifier: MIT */

#include "shim/events.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "containerd-events.pb-c.h"
#include "ttrpc/ttrpc.h"

#define SERVICE "containerd.services.events.ttrpc.v1.Events"
#define SEND_TIMEOUT_USEC (5 * USEC_PER_SEC)
#define RETRY_MIN_USEC (100 * USEC_PER_MSEC)
#define RETRY_MAX_USEC (5 * USEC_PER_SEC)

typedef struct Event {
    struct Event *next;
    const char *topic;
    const char *type;
    struct timespec time;
    size_t n;
    uint8_t data[];
} Event;

struct Events {
    Loop *loop;
    char *path;
    char *namespace;
    TtrpcClient *client; /* NULL: not connected */
    Event *first, **last;
    size_t count;
    bool sending;          /* the first event is on its way */
    uint64_t retry_usec;   /* before the next attempt */
    LoopSource *retry;     /* armed while an attempt waits */
    bool retrying;
    LoopSource *flush_timer;
    EventsFlushFn flushed;
    void *flushed_userdata;
};

static void pump(Events *v);

static void disconnect(Events *v)
{
    v->client = ttrpc_client_free(v->client);
    v->sending = false;
}

static void flush_done(Events *v)
{
    EventsFlushFn callback = v->flushed;

    v->flushed = NULL;
    v->flush_timer = loop_source_free(v->flush_timer);
    if (callback)
        callback(v, v->flushed_userdata);
}

static void drop(Events *v, Event **link)
{
    Event *event = *link;

    *link = event->next;
    if (!*link)
        v->last = link;
    v->count--;
    free(event);
}

static void on_retry(_unused_ LoopSource *source, void *userdata)
{
    Events *v = userdata;

    v->retrying = false;
    pump(v);
}

static void retry_later(Events *v)
{
    v->retrying = true;
    if (loop_source_set_timer(v->retry, v->retry_usec) < 0)
        log_warning("cannot plan to send events again");
    v->retry_usec = v->retry_usec * 2 < RETRY_MAX_USEC ? v->retry_usec * 2 : RETRY_MAX_USEC;
}

static void on_close(_unused_ TtrpcClient *client, _unused_ const Error *reason, void *userdata)
{
    Events *v = userdata;
    bool waiting = v->sending;

    disconnect(v);
    if (waiting && !v->retrying)
        retry_later(v);
}

/* These come from the connection, not from the event. */
static bool is_transient(TtrpcCode code)
{
    return code == TTRPC_UNAVAILABLE || code == TTRPC_CANCELED || code == TTRPC_DEADLINE_EXCEEDED;
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Events *v = userdata;

    v->sending = false;
    if (reply->code != TTRPC_OK && is_transient(reply->code)) {
        /* Canceled also comes when the connection is being freed; then nothing more is to be done. */
        if (reply->code != TTRPC_CANCELED || v->client) {
            disconnect(v);
            if (!v->retrying)
                retry_later(v);
        }
        return;
    }
    if (reply->code != TTRPC_OK)
        log_warning("containerd refuses the event %s: %s", v->first->topic, reply->message);
    v->retry_usec = RETRY_MIN_USEC;
    drop(v, &v->first);
    if (v->first)
        pump(v);
    else if (v->flushed)
        flush_done(v);
}

static int connect_to_containerd(Events *v)
{
    int fd = fd_connect_unix(v->path), r;

    if (fd < 0)
        return fd;
    r = ttrpc_client_new(v->loop, fd, &v->client);
    if (r < 0)
        return r;
    ttrpc_client_set_close(v->client, on_close, v);
    return 0;
}

static int send_first(Events *v)
{
    Containerd__ForwardRequest request = CONTAINERD__FORWARD_REQUEST__INIT;
    Containerd__Envelope envelope = CONTAINERD__ENVELOPE__INIT;
    Containerd__Timestamp timestamp = CONTAINERD__TIMESTAMP__INIT;
    Containerd__Any any = CONTAINERD__ANY__INIT;
    const Event *event = v->first;
    char type_url[64];

    snprintf(type_url, sizeof(type_url), "containerd.events.%s", event->type);
    any.type_url = type_url;
    any.value.data = (uint8_t *)event->data;
    any.value.len = event->n;
    timestamp.seconds = event->time.tv_sec;
    timestamp.nanos = (int32_t)event->time.tv_nsec;
    envelope.timestamp = &timestamp;
    envelope.namespace_ = v->namespace;
    envelope.topic = (char *)event->topic;
    envelope.event = &any;
    request.envelope = &envelope;
    TtrpcCallSpec spec = {
        .service = &containerd__events__descriptor,
        .service_name = SERVICE,
        .method = "Forward",
        .request = &request.base,
        .timeout_usec = SEND_TIMEOUT_USEC,
    };
    return ttrpc_client_call(v->client, &spec, on_reply, v, NULL);
}

static void pump(Events *v)
{
    int r = 0;

    if (v->sending || v->retrying || !v->first)
        return;
    if (!v->client)
        r = connect_to_containerd(v);
    if (r >= 0)
        r = send_first(v);
    if (r >= 0) {
        v->sending = true;
        return;
    }
    disconnect(v);
    retry_later(v);
}

int events_publish(Events *v, const char *topic, const char *type, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    Event *event = malloc(sizeof(*event) + n);

    if (!event)
        return -ENOMEM;
    event->next = NULL;
    event->topic = topic;
    event->type = type;
    event->n = protobuf_c_message_pack(message, event->data);
    clock_gettime(CLOCK_REALTIME, &event->time);
    if (v->count >= EVENTS_QUEUE_MAX) {
        /* The first one may be on its way. */
        Event **oldest = v->sending ? &v->first->next : &v->first;

        log_warning("the event %s is lost: %i wait for containerd already", (*oldest)->topic, EVENTS_QUEUE_MAX);
        drop(v, oldest);
    }
    *v->last = event;
    v->last = &event->next;
    v->count++;
    pump(v);
    return 0;
}

static void on_flush_timeout(_unused_ LoopSource *source, void *userdata)
{
    Events *v = userdata;

    if (v->first)
        log_warning("%zu events could not be delivered to containerd", v->count);
    flush_done(v);
}

int events_flush(Events *v, uint64_t timeout_usec, EventsFlushFn callback, void *userdata)
{
    v->flush_timer = loop_source_free(v->flush_timer);
    v->flushed = callback;
    v->flushed_userdata = userdata;
    /* An empty queue is reported from the loop too, never from within this function. */
    return loop_add_timer(v->loop, v->first ? timeout_usec : 0, on_flush_timeout, v, &v->flush_timer);
}

size_t events_count(const Events *v)
{
    return v->count;
}

int events_new(Loop *loop, const char *address, const char *namespace, Events **ret)
{
    _cleanup_(events_freep) Events *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return -ENOMEM;
    v->loop = loop;
    v->last = &v->first;
    v->retry_usec = RETRY_MIN_USEC;
    v->path = strdup(strncmp(address, "unix://", 7) == 0 ? address + 7 : address);
    v->namespace = strdup(namespace);
    if (!v->path || !v->namespace)
        return -ENOMEM;
    r = loop_add_timer(loop, UINT64_MAX, on_retry, v, &v->retry);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(v);
    return 0;
}

Events *events_free(Events *v)
{
    if (!v)
        return NULL;
    v->flushed = NULL;
    /* Its pending call ends here, with Canceled. */
    TtrpcClient *client = TAKE_PTR(v->client);
    ttrpc_client_free(client);
    while (v->first)
        drop(v, &v->first);
    loop_source_free(v->retry);
    loop_source_free(v->flush_timer);
    free(v->path);
    free(v->namespace);
    free(v);
    return NULL;
}
