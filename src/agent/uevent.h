/* SPDX-License-Identifier: MIT */
#pragma once

/* Kernel device events (kobject uevents over netlink): how the agent learns of disks, network devices and
 * ports that the host plugs, without polling. */

#include "base/error.h"
#include "base/loop.h"

/* Points into the message that was parsed; NULL for what the message does not say. */
typedef struct Uevent {
    const char *action;
    const char *subsystem;
    const char *devpath;
} Uevent;

/* Parses a message of `n` bytes: "ACTION@DEVPATH", then KEY=VALUE pairs, each ended by a NUL. -EBADMSG for
 * anything else. Pure. */
int uevent_parse(const char *message, size_t n, Uevent *ret);

typedef struct UeventMonitor UeventMonitor;
typedef struct UeventSubscription UeventSubscription;

/* Something happened to a device of the subsystem (or events were lost and something may have): look again. */
typedef void (*UeventFn)(void *userdata);

int uevent_monitor_new(Loop *loop, UeventMonitor **ret, Error *e);
UeventMonitor *uevent_monitor_free(UeventMonitor *monitor);
DEFINE_CLEANUP_FUNC(UeventMonitor *, uevent_monitor_free)

/* A subscription must be freed before the monitor; it may be freed in any callback. `subsystem` is not
 * copied. */
int uevent_subscribe(UeventMonitor *monitor, const char *subsystem, UeventFn callback, void *userdata,
                     UeventSubscription **ret);
UeventSubscription *uevent_unsubscribe(UeventSubscription *subscription);
