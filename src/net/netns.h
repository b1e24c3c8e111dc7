/* SPDX-License-Identifier: MIT */
#pragma once

/* Network namespaces for the calling process, which must have one thread: the shim lives in its pod's. */

#include "base/error.h"
#include "net/rtnl.h"

/* Enters the namespace bound at `path` (/run/netns/NAME, /proc/PID/ns/net). What is no network namespace is
 * refused with -EINVAL. Gives nothing back: there is no way home. */
int netns_enter(const char *path, Error *e);

/* Enters a new, empty namespace, whose loopback device is raised. It ends with its last process. */
int netns_new(Error *e);
