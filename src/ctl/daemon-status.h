/* SPDX-License-Identifier: MIT */
#pragma once

/* Status of cloudhv-sandbox-daemon, as it answers over its socket. */

#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "daemon.pb-c.h"

typedef Cloudhv__Daemon__V1__StatusResponse DaemonStatus;

/* Asks the daemon behind `socket`, which this may start. Free with daemon_status_free(). */
int daemon_status_get(const char *socket, uint64_t timeout_usec, DaemonStatus **ret, Error *e);
DaemonStatus *daemon_status_free(DaemonStatus *status);
DEFINE_CLEANUP_FUNC(DaemonStatus *, daemon_status_free)
#define _cleanup_daemon_status_ _cleanup_(daemon_status_freep)

/* As a summary and a table, one line for each sandbox; `now_usec` is CLOCK_REALTIME, for their age. */
int daemon_status_print(const DaemonStatus *status, uint64_t now_usec, FILE *to);
int daemon_status_print_json(const DaemonStatus *status, FILE *to);
