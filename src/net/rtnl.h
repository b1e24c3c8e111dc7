/* SPDX-License-Identifier: MIT */
#pragma once

/* A route netlink socket on which one request is in flight at a time: the request goes out, its answer is
 * waited for (the kernel answers within the call; a receive timeout guards against the impossible), and the
 * kernel's own explanation, where it gives one, becomes part of the error.
 *
 * Messages are libnl's: built with nla_put() and its kin, taken apart with nlmsg_parse() and a policy. The
 * socket is not: struct nl_sock brings callbacks that print messages, 13 kB in every shim, for a send() and a
 * recvmsg() here.
 *
 * A socket belongs to the network namespace that the process was in when it was made. */

#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct Rtnl Rtnl;

int rtnl_new(Rtnl **ret, Error *e);
Rtnl *rtnl_free(Rtnl *rtnl);
DEFINE_CLEANUP_FUNC(Rtnl *, rtnl_free)
#define _cleanup_rtnl_ _cleanup_(rtnl_freep)

DEFINE_CLEANUP_FUNC(struct nl_msg *, nlmsg_free)
#define _cleanup_nlmsg_ _cleanup_(nlmsg_freep)

/* A request with its fixed header, such as struct ifinfomsg, and room for attributes: 512 bytes, and `room`
 * more; nla_put() fails beyond. NULL when memory is short. */
struct nl_msg *rtnl_message_new(uint16_t type, uint16_t flags, const void *header, size_t header_size,
                                size_t room);

/* Sends and waits for the acknowledgement. Returns 0 or the kernel's negative errno; `format` says what was
 * tried, for the error ("cannot ..."). A caller that expects a failure passes NULL for `e`. Without a message
 * it fails with -ENOMEM, so that the many steps of building one need no errors of their own. */
int rtnl_call(Rtnl *rtnl, struct nl_msg *message, Error *e, const char *format, ...) _printf_(4, 5);

/* Called for each message of a dump; a negative return is what rtnl_dump() returns at its end. */
typedef int (*RtnlFn)(struct nlmsghdr *nlh, void *userdata);

/* Sends a request with NLM_F_DUMP and calls back for each answer of `answer_type`. A dump that the kernel
 * says changed under way is repeated from the start: `restart` is called before, to drop what was collected
 * (NULL: not needed). */
int rtnl_dump(Rtnl *rtnl, struct nl_msg *message, int answer_type, RtnlFn callback,
              void (*restart)(void *userdata), void *userdata, Error *e);
