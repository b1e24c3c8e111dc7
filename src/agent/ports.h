/* SPDX-License-Identifier: MIT */
#pragma once

/* The channels to the host: two named virtio-serial ports (QEMU), which may appear after the agent has
 * started, and two vsock ports (Cloud Hypervisor). Whatever the machine has is served. */

#include "agent/uevent.h"
#include "ttrpc/ttrpc.h"

#define PORTS_CONTROL_NAME "cloudhv.control"
#define PORTS_TASK_NAME "cloudhv.task"

enum {
    PORTS_CONTROL_VSOCK = 1024,
    PORTS_TASK_VSOCK = 1025,
    /* Of the host: where the agent connects to once both can be connected to, and says nothing. A connection that
     * comes before is refused by the kernel, and the host would have to try again and again. */
    PORTS_READY_VSOCK = 1023,
};

typedef struct Ports Ports;

/* Serves each server at its port, now or when that appears. The servers must outlive the ports. */
int ports_new(Loop *loop, UeventMonitor *monitor, TtrpcServer *control, TtrpcServer *task, Ports **ret, Error *e);
Ports *ports_free(Ports *ports);
DEFINE_CLEANUP_FUNC(Ports *, ports_free)

/* Looks a port's name up in a directory like /sys/class/virtio-ports. The caller frees the device's name
 * ("vport1p1"); -ENOENT. */
int port_find(const char *sysfs_ports, const char *name, char **ret_device);
