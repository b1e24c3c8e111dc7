/* SPDX-License-Identifier: MIT */
#pragma once

/* Reads what CNI set up in the current network namespace: the Ethernet interfaces that are up, except our own
 * TAPs, with their addresses, the routes of the main table that use them, and the permanent neighbours.
 *
 * - Addresses: IPv4, and IPv6 of global and link-local scope, if they are permanent and usable. What the
 * host's stack made up from router advertisements (temporary and autoconfigured addresses, routes of protocol
 * "ra") is left out: it would grow stale in a guest that gets the advertisements itself.
 * - Routes: all that are left, also those that the kernel adds with an address, since the guest adds
 * addresses without prefix routes: a plugin may have removed or changed them (ptp does). On-link routes come
 * before those with a gateway, longer prefixes before shorter ones, so that they can be added in this order.
 * - What cannot be carried over is an error that names it: an interface that has addresses and is not
 * Ethernet, a route with several next hops, a route that rejects.
 *
 * `device_mac` is left zero: the shim knows it. */

#include "base/error.h"
#include "net/net.h"
#include "net/rtnl.h"

/* Fills *ret, which must be NET_CONFIG_INIT; untouched on failure. No interface is not an error. */
int interfaces_read(Rtnl *rtnl, NetConfig *ret, Error *e);
