/* SPDX-License-Identifier: MIT */
#pragma once

/* A route netlink socket on which one request is in flight at a time: the request goes out, its answer is
 * waited for (the kernel answers within the call; a receive timeout guards against the impossible), and the
 * kernel's own explanation, where it gives one, becomes part of the error. Built on libnl-3's core only.
 *
 * A socket belongs to the network namespace that the process was in when it was made. */

#include <stdint.h>

#include <netlink/attr.h>
#include <netlink/msg.h>

#include "base/error.h"

typedef struct Rtnl Rtnl;

int rtnl_new(Rtnl **ret, Error *e);
Rtnl *rtnl_free(Rtnl *rtnl);
DEFINE_CLEANUP_FUNC(Rtnl *, rtnl_free)
#define _cleanup_rtnl_ _cleanup_(rtnl_freep)

DEFINE_CLEANUP_FUNC(struct nl_msg *, nlmsg_free)
#define _cleanup_nl_msg_ _cleanup_(nlmsg_freep)

/* Makes a request with a fixed header, to which the caller adds attributes. NULL when out of memory. */
struct nl_msg *rtnl_message(int type, int flags, const void *header, size_t header_size);

/* Sends and waits for the acknowledgement. Returns 0 or the kernel's negative errno; `format` says what was
 * tried, for the error. A caller that expects a failure passes NULL for `e`. */
int rtnl_call(Rtnl *rtnl, struct nl_msg *message, Error *e, const char *format, ...) _printf_(4, 5);

/* Called for each message of a dump; a negative return ends it and is returned. */
typedef int (*RtnlFn)(const struct nlmsghdr *nlh, void *userdata);

/* Sends a request with NLM_F_DUMP and calls back for each answer of `answer_type`. A dump that the kernel
 * says changed under way is repeated from the start: the callback must cope, so `restart` is called first
 * (NULL: not needed). */
int rtnl_dump(Rtnl *rtnl, struct nl_msg *message, int answer_type, RtnlFn callback,
              void (*restart)(void *userdata), void *userdata, Error *e);
