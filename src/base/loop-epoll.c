/* SPDX-License-Identifier: MIT */

#include "base/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

typedef enum SourceType {
    SOURCE_IO,
    SOURCE_TIMER,
    SOURCE_SIGNAL,
    SOURCE_DEFER,
} SourceType;

struct LoopSource {
    Loop *loop;
    SourceType type;
    int fd; /* timerfd and signalfd are ours, an I/O descriptor is the caller's */
    bool dispatching;
    bool freed; /* while dispatching: release when the callback returns */
    union {
        LoopIoFn io;
        LoopFn plain;
    } callback;
    void *userdata;
    LoopSource *next; /* deferred sources, or sources freed during dispatch */
};

struct Loop {
    int epoll_fd;
    bool exiting;
    int exit_code;
    LoopSource *deferred;  /* in order of arrival */
    LoopSource *graveyard; /* freed while their event may still be in the current batch */
};

int loop_new(Loop **ret)
{
    Loop *loop = calloc(1, sizeof(*loop));
    int r;

    if (!loop)
        return -ENOMEM;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        r = -errno;
        free(loop);
        return r;
    }
    *ret = loop;
    return 0;
}

static void graveyard_empty(Loop *loop)
{
    while (loop->graveyard) {
        LoopSource *s = loop->graveyard;

        loop->graveyard = s->next;
        free(s);
    }
}

Loop *loop_free(Loop *loop)
{
    if (!loop)
        return NULL;
    graveyard_empty(loop);
    close(loop->epoll_fd);
    free(loop);
    return NULL;
}

static LoopSource *source_new(Loop *loop, SourceType type, int fd, void *userdata)
{
    LoopSource *s = calloc(1, sizeof(*s));

    if (s)
        *s = (LoopSource){.loop = loop, .type = type, .fd = fd, .userdata = userdata};
    return s;
}

static int source_register(LoopSource *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};

    return epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

int loop_add_io(Loop *loop, int fd, uint32_t events, LoopIoFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s = source_new(loop, SOURCE_IO, fd, userdata);
    int r;

    if (!s)
        return -ENOMEM;
    s->callback.io = callback;
    r = source_register(s, events);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int loop_source_set_io_events(LoopSource *s, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};

    return epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0 ? -errno : 0;
}

/* Adds a source whose descriptor, `fd` (or a negative errno), was made for it. */
static int add_owned(Loop *loop, SourceType type, int fd, LoopFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s;
    int r;

    if (fd < 0)
        return fd;
    s = source_new(loop, type, fd, userdata);
    if (!s) {
        close(fd);
        return -ENOMEM;
    }
    s->callback.plain = callback;
    r = source_register(s, EPOLLIN);
    if (r < 0) {
        close(fd);
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int loop_source_set_timer(LoopSource *s, uint64_t usec)
{
    struct itimerspec its = {0};

    if (usec != UINT64_MAX) {
        its.it_value.tv_sec = (time_t)(usec / USEC_PER_SEC);
        its.it_value.tv_nsec = (long)(usec % USEC_PER_SEC * NSEC_PER_USEC);
        if (usec == 0)
            its.it_value.tv_nsec = 1; /* zero would disarm it */
    }
    return timerfd_settime(s->fd, 0, &its, NULL) < 0 ? -errno : 0;
}

int loop_add_timer(Loop *loop, uint64_t usec, LoopFn callback, void *userdata, LoopSource **ret)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), r;
    LoopSource *s;

    r = add_owned(loop, SOURCE_TIMER, fd < 0 ? -errno : fd, callback, userdata, &s);
    if (r < 0)
        return r;
    r = loop_source_set_timer(s, usec);
    if (r < 0) {
        loop_source_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

int loop_add_signal(Loop *loop, int signal, LoopFn callback, void *userdata, LoopSource **ret)
{
    sigset_t mask;
    int fd;

    sigemptyset(&mask);
    sigaddset(&mask, signal);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
        return -errno;
    fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    return add_owned(loop, SOURCE_SIGNAL, fd < 0 ? -errno : fd, callback, userdata, ret);
}

int loop_add_defer(Loop *loop, LoopFn callback, void *userdata, LoopSource **ret)
{
    LoopSource *s = source_new(loop, SOURCE_DEFER, -EBADF, userdata), **p = &loop->deferred;

    if (!s)
        return -ENOMEM;
    s->callback.plain = callback;
    while (*p)
        p = &(*p)->next;
    *p = s;
    *ret = s;
    return 0;
}

static void deferred_remove(LoopSource *s)
{
    for (LoopSource **p = &s->loop->deferred; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            s->next = NULL;
            return;
        }
}

LoopSource *loop_source_free(LoopSource *s)
{
    if (!s || s->freed)
        return NULL;
    s->freed = true;
    if (s->type == SOURCE_DEFER)
        deferred_remove(s);
    else {
        /* The caller may have closed its descriptor already, which removed it from the set. */
        (void)epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
        if (s->type != SOURCE_IO)
            close(s->fd);
    }
    if (s->dispatching)
        return NULL;
    s->next = s->loop->graveyard;
    s->loop->graveyard = s;
    return NULL;
}

static void source_dispatch(LoopSource *s, uint32_t revents)
{
    uint64_t expirations;
    struct signalfd_siginfo si;

    s->dispatching = true;
    switch (s->type) {
    case SOURCE_IO:
        s->callback.io(s, s->fd, revents, s->userdata);
        break;
    case SOURCE_TIMER:
        if (read(s->fd, &expirations, sizeof(expirations)) == sizeof(expirations))
            s->callback.plain(s, s->userdata);
        break;
    case SOURCE_SIGNAL:
        while (!s->freed && read(s->fd, &si, sizeof(si)) == sizeof(si))
            s->callback.plain(s, s->userdata);
        break;
    case SOURCE_DEFER:
        s->callback.plain(s, s->userdata);
        break;
    }
    s->dispatching = false;
    if (s->freed) {
        s->next = s->loop->graveyard;
        s->loop->graveyard = s;
    }
}

int loop_run_once(Loop *loop, uint64_t usec)
{
    struct epoll_event events[16];
    int timeout, n;

    graveyard_empty(loop);
    if (loop->deferred)
        timeout = 0;
    else if (usec == UINT64_MAX)
        timeout = -1;
    else
        timeout = usec / USEC_PER_MSEC > INT32_MAX ? INT32_MAX : (int)((usec + 999) / USEC_PER_MSEC);
    n = epoll_wait(loop->epoll_fd, events, ELEMENTSOF(events), timeout);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n && !loop->exiting; i++) {
        LoopSource *s = events[i].data.ptr;

        if (!s->freed)
            source_dispatch(s, events[i].events);
    }
    if (n == 0 && loop->deferred) {
        LoopSource *s = loop->deferred;

        deferred_remove(s);
        source_dispatch(s, 0);
        n = 1;
    }
    graveyard_empty(loop);
    return n > 0;
}

int loop_run(Loop *loop)
{
    while (!loop->exiting) {
        int r = loop_run_once(loop, UINT64_MAX);

        if (r < 0)
            return r;
    }
    return loop->exit_code;
}

void loop_exit(Loop *loop, int code)
{
    loop->exiting = true;
    loop->exit_code = code;
}

uint64_t loop_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / NSEC_PER_USEC;
}
