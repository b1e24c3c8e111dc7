/* SPDX-License-Identifier: MIT */
#pragma once

/* A route netlink socket on which one request is in flight at a time: the request goes out, its answer is
 * waited for (the kernel answers within the call; a receive timeout guards against the impossible), and the
 * kernel's own explanation, where it gives one, becomes part of the error.
 *
 * A socket belongs to the network namespace that the process was in when it was made. */

#include "base/error.h"
#include "net/rtnl-message.h"

typedef struct Rtnl Rtnl;

int rtnl_new(Rtnl **ret, Error *e);
Rtnl *rtnl_free(Rtnl *rtnl);
DEFINE_CLEANUP_FUNC(Rtnl *, rtnl_free)
#define _cleanup_rtnl_ _cleanup_(rtnl_freep)

/* Sends and waits for the acknowledgement. Returns 0 or the kernel's negative errno; `format` says what was
 * tried, for the error ("cannot ..."). A caller that expects a failure passes NULL for `e`. */
int rtnl_call(Rtnl *rtnl, RtnlMessage *message, Error *e, const char *format, ...) _printf_(4, 5);

/* Called for each message of a dump; a negative return is what rtnl_dump() returns at its end. */
typedef int (*RtnlFn)(const struct nlmsghdr *nlh, void *userdata);

/* Sends a request with NLM_F_DUMP and calls back for each answer of `answer_type`. A dump that the kernel
 * says changed under way is repeated from the start: `restart` is called before, to drop what was collected
 * (NULL: not needed). */
int rtnl_dump(Rtnl *rtnl, RtnlMessage *message, int answer_type, RtnlFn callback,
              void (*restart)(void *userdata), void *userdata, Error *e);
