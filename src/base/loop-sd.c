/* SPDX-License-Identifier: MIT */

#include "base/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <systemd/sd-event.h>
#include <time.h>

/* `struct Loop` is sd-event's own loop: nothing needs to be added to it. */
static sd_event *to_event(Loop *loop)
{
    return (sd_event *)loop;
}

struct LoopSource {
    sd_event_source *source;
    bool dispatching;
    bool freed; /* while dispatching: release when the callback returns */
    union {
        LoopIoFn io;
        LoopFn plain;
    } callback;
    void *userdata;
};

int loop_new(Loop **ret)
{
    sd_event *e;
    int r = sd_event_new(&e);

    if (r < 0)
        return r;
    *ret = (Loop *)e;
    return 0;
}

Loop *loop_free(Loop *loop)
{
    sd_event_unref(to_event(loop));
    return NULL;
}

static void source_begin(LoopSource *s)
{
    s->dispatching = true;
}

static int source_end(LoopSource *s)
{
    s->dispatching = false;
    if (s->freed)
        free(s);
    return 0;
}

static int on_io(_unused_ sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    LoopSource *s = userdata;

    source_begin(s);
    s->callback.io(s, fd, revents, s->userdata);
    return source_end(s);
}

static int on_time(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *userdata)
{
    LoopSource *s = userdata;

    source_begin(s);
    s->callback.plain(s, s->userdata);
    return source_end(s);
}

static int on_defer(_unused_ sd_event_source *source, void *userdata)
{
    LoopSource *s = userdata;

    source_begin(s);
    s->callback.plain(s, s->userdata);
    return source_end(s);
}

static int on_signal(_unused_ sd_event_source *source, _unused_ const struct signalfd_siginfo *si,
                     void *userdata)
{
    LoopSource *s = userdata;

    source_begin(s);
    s->callback.plain(s, s->userdata);
    return source_end(s);
}

static LoopSource *source_new(void *userdata)
{
    LoopSource *s = calloc(1, sizeof(*s));

    if (s)
        s->userdata = userdata;
    return s;
}

/* Ends every loop_add_…(): hands the source over, or frees it when `r` says that adding it failed. */
static int source_finish(LoopSource *s, int r, LoopSource **ret)
{
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int loop_add_io(Loop *loop, int fd, uint32_t events, LoopIoFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s = source_new(userdata);

    if (!s)
        return -ENOMEM;
    s->callback.io = callback;
    return source_finish(s, sd_event_add_io(to_event(loop), &s->source, fd, events, on_io, s), ret);
}

int loop_source_set_io_events(LoopSource *s, uint32_t events)
{
    return sd_event_source_set_io_events(s->source, events);
}

int loop_add_timer(Loop *loop, uint64_t usec, LoopFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s = source_new(userdata);
    uint64_t at = usec == UINT64_MAX ? UINT64_MAX : loop_now() + usec;

    if (!s)
        return -ENOMEM;
    s->callback.plain = callback;
    /* An accuracy of 1 µs: zero would mean sd-event's default of 250 ms. */
    return source_finish(s, sd_event_add_time(to_event(loop), &s->source, CLOCK_MONOTONIC, at, 1, on_time, s),
                         ret);
}

int loop_source_set_timer(LoopSource *s, uint64_t usec)
{
    int r;

    if (usec == UINT64_MAX)
        return sd_event_source_set_enabled(s->source, SD_EVENT_OFF);
    r = sd_event_source_set_time(s->source, loop_now() + usec);
    return r < 0 ? r : sd_event_source_set_enabled(s->source, SD_EVENT_ONESHOT);
}

int loop_add_defer(Loop *loop, LoopFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s = source_new(userdata);

    if (!s)
        return -ENOMEM;
    s->callback.plain = callback;
    return source_finish(s, sd_event_add_defer(to_event(loop), &s->source, on_defer, s), ret);
}

int loop_add_signal(Loop *loop, int signal, LoopFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s;
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, signal);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return -errno;
    s = source_new(userdata);
    if (!s)
        return -ENOMEM;
    s->callback.plain = callback;
    return source_finish(s, sd_event_add_signal(to_event(loop), &s->source, signal, on_signal, s), ret);
}

LoopSource *loop_source_free(LoopSource *s)
{
    if (!s || s->freed)
        return NULL;
    sd_event_source_disable_unref(s->source);
    s->source = NULL;
    s->freed = true;
    if (!s->dispatching)
        free(s);
    return NULL;
}

int loop_run(Loop *loop)
{
    return sd_event_loop(to_event(loop));
}

void loop_exit(Loop *loop, int code)
{
    (void)sd_event_exit(to_event(loop), code);
}

int loop_run_once(Loop *loop, uint64_t usec)
{
    return sd_event_run(to_event(loop), usec);
}

uint64_t loop_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / NSEC_PER_USEC;
}
