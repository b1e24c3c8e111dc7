/* SPDX-License-Identifier: MIT */

#include "agent/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

enum {
    UEVENT_MESSAGE_MAX = 8 * 1024, /* the kernel's own limit is 2 KiB of variables and the path */
    UEVENT_RECEIVE_BUFFER = 256 * 1024,
    UEVENT_GROUP_KERNEL = 1,
};

struct UeventSubscription {
    UeventMonitor *monitor;
    const char *subsystem;
    UeventFn callback;
    void *userdata;
    bool pending;
    UeventSubscription *next;
};

struct UeventMonitor {
    int fd;
    LoopSource *source;
    UeventSubscription *subscriptions;
};

int uevent_parse(const char *message, size_t n, Uevent *ret)
{
    Uevent u = {0};

    if (n == 0 || message[n - 1] != 0 || !strchr(message, '@'))
        return -EBADMSG;
    for (const char *p = message + strlen(message) + 1; p < message + n; p += strlen(p) + 1) {
        if (strncmp(p, "ACTION=", 7) == 0)
            u.action = p + 7;
        else if (strncmp(p, "SUBSYSTEM=", 10) == 0)
            u.subsystem = p + 10;
        else if (strncmp(p, "DEVPATH=", 8) == 0)
            u.devpath = p + 8;
    }
    if (!u.action || !u.subsystem)
        return -EBADMSG;
    *ret = u;
    return 0;
}

/* Marks who wants to know; `subsystem` NULL: everybody. */
static void mark(UeventMonitor *monitor, const char *subsystem)
{
    for (UeventSubscription *s = monitor->subscriptions; s; s = s->next)
        if (!subsystem || strcmp(s->subsystem, subsystem) == 0)
            s->pending = true;
}

/* A callback may free any subscription, so each round starts over. */
static void dispatch(UeventMonitor *monitor)
{
    for (;;) {
        UeventSubscription *s = monitor->subscriptions;

        while (s && !s->pending)
            s = s->next;
        if (!s)
            return;
        s->pending = false;
        s->callback(s->userdata);
    }
}

static void on_readable(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    UeventMonitor *monitor = userdata;
    char buffer[UEVENT_MESSAGE_MAX];

    for (;;) {
        struct sockaddr_nl from = {0};
        socklen_t from_size = sizeof(from);
        ssize_t n = recvfrom(fd, buffer, sizeof(buffer), MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
        Uevent u;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == ENOBUFS) {
            mark(monitor, NULL);
            continue;
        }
        if (n < 0)
            break;
        /* Only the kernel has the port 0; anybody else could claim anything. */
        if (from.nl_pid == 0 && uevent_parse(buffer, (size_t)n, &u) >= 0)
            mark(monitor, u.subsystem);
    }
    dispatch(monitor);
}

int uevent_monitor_new(Loop *loop, UeventMonitor **ret, Error *e)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = UEVENT_GROUP_KERNEL};
    _cleanup_close_ int fd = -EBADF;
    _cleanup_free_ UeventMonitor *monitor = calloc(1, sizeof(*monitor));
    int size = UEVENT_RECEIVE_BUFFER, r;

    if (!monitor)
        return error_set(e, -ENOMEM, "out of memory");
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot make a socket for device events");
    /* Without the larger buffer events are lost sooner, which is noticed and made up for. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set_errno(e, -errno, "cannot listen to device events");
    r = loop_add_io(loop, fd, EPOLLIN, on_readable, monitor, &monitor->source);
    if (r < 0)
        return error_set_errno(e, r, "cannot watch device events");
    monitor->fd = TAKE_FD(fd);
    *ret = TAKE_PTR(monitor);
    return 0;
}

UeventMonitor *uevent_monitor_free(UeventMonitor *monitor)
{
    if (!monitor)
        return NULL;
    loop_source_free(monitor->source);
    fd_close(monitor->fd);
    free(monitor);
    return NULL;
}

int uevent_subscribe(UeventMonitor *monitor, const char *subsystem, UeventFn callback, void *userdata,
                     UeventSubscription **ret)
{
    UeventSubscription *s = malloc(sizeof(*s));

    if (!s)
        return -ENOMEM;
    *s = (UeventSubscription){.monitor = monitor,
                              .subsystem = subsystem,
                              .callback = callback,
                              .userdata = userdata,
                              .next = monitor->subscriptions};
    monitor->subscriptions = s;
    *ret = s;
    return 0;
}

UeventSubscription *uevent_unsubscribe(UeventSubscription *subscription)
{
    if (!subscription)
        return NULL;
    for (UeventSubscription **p = &subscription->monitor->subscriptions; *p; p = &(*p)->next)
        if (*p == subscription) {
            *p = subscription->next;
            break;
        }
    free(subscription);
    return NULL;
}
