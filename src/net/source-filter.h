/* SPDX-License-Identifier: MIT */
#pragma once

/* The program (classic BPF) that says which frames of a guest may leave its TAP. A frame passes when
 *
 * - it is untagged and its source MAC is the pod's, and
 * - IPv4: its source is one of the pod's addresses;
 * - ARP (Ethernet/IPv4): sender MAC and sender address are the pod's;
 * - IPv6: its source is one of the pod's addresses or the link-local address of the MAC. Neighbour
 *   advertisements may only be for these too; router advertisements and redirects never pass. The unspecified
 *   source passes in duplicate address detection for one of these.
 *
 * Anything else, other protocols included, does not. To keep neighbour discovery from hiding behind extension
 * headers, one of them is looked through, and more than one of hop-by-hop, routing, destination options is
 * refused.
 *
 * The program's value is -1 for a frame that passes and 0 otherwise; a load beyond the end of the frame ends
 * it with 0 as well, so it fails closed. */

#include <linux/filter.h>
#include <stddef.h>

#include "net/net.h"

/* Builds the program for an interface; the caller frees it. -E2BIG when it would not fit the kernel's limit.
 */
int source_filter_build(const NetInterface *interface, struct sock_filter **ret, size_t *ret_n);
