/* SPDX-License-Identifier: MIT */
#pragma once

/* The daemon's service within the shim, for `"daemon_socket": ""`. */

#include "base/error.h"
#include "base/loop.h"
#include "config/config.h"

typedef struct OwnDaemon OwnDaemon;

/* Of the VMs in the configuration's state directory it owns only the one of this sandbox. Strings are borrowed. */
int own_daemon_new(Loop *loop, const ShimConfig *config, const char *namespace, const char *sandbox_id, OwnDaemon **ret,
                   Error *e);
OwnDaemon *own_daemon_free(OwnDaemon *own);

/* Returns the client's end of a new connection, or a negative errno. */
int own_daemon_connect(OwnDaemon *own, Error *e);
