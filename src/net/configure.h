/* SPDX-License-Identifier: MIT */
#pragma once

/* Guest side: gives the VM's network devices the names, MACs, MTUs, addresses, routes and neighbours of the
 * pod. Needs CAP_NET_ADMIN and /proc (for the IPv6 settings), nothing else of the system. */

#include "base/error.h"
#include "net/net.h"

/* Replaces the whole network configuration: Ethernet devices that `config` does not name lose their addresses
 * and go down. The loopback device is raised. A device is found by `device_mac`, or by `mac` if it has got
 * that by an earlier call. Errors name the interface, address or route: -ENODEV when there is no such device
 * (yet), -EINVAL for a configuration that contradicts itself. After an error the devices are down. */
int configure_network(const NetConfig *config, Error *e);

/* Only raises the loopback device. */
int configure_loopback(Error *e);
