/* SPDX-License-Identifier: MIT */
#pragma once

/* Joins a CNI interface and a TAP with tc: what arrives on one leaves by the other, before the host's stack
 * sees it. So the addresses may stay on the CNI interface in the namespace: its stack answers neither ARP nor
 * neighbour discovery for them, since it never gets the question.
 *
 * On the TAP's side a filter drops, and counts, every frame whose source is not the pod's: see
 * source-filter.h. It is in place before the first frame can pass. */

#include <stdint.h>

#include "base/error.h"
#include "net/net.h"
#include "net/rtnl.h"

/* Installs both directions between `interface` (as interfaces_read() gave it) and the TAP, whose MTU it sets
 * to the interface's. Repeating it replaces what is there. On failure nothing passes either way. -EOPNOTSUPP,
 * with the modules' names in the error, when the kernel lacks what is needed. */
int redirect_install(Rtnl *rtnl, const NetInterface *interface, unsigned tap_index, Error *e);

/* Takes all of our filters from all interfaces of the namespace, which gives the interfaces back to the
 * host's stack. Needs no memory of what was installed; nothing there is fine. TAPs go with their descriptors.
 */
int redirect_remove_all(Rtnl *rtnl, Error *e);

/* Frames from the guest that the source filter has dropped. */
int redirect_get_dropped(Rtnl *rtnl, unsigned tap_index, uint64_t *ret);
