/* SPDX-License-Identifier: MIT */
#pragma once

/* A QMP connection on the event loop: greeting and negotiation, commands with deadlines and descriptors,
 * events. Commands may be given at once; they are sent when QEMU has greeted. */

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

typedef struct QmpClient QmpClient;

/* The answer of a command: its value, or an error. -EREMOTEIO: QEMU refused, with its words; -ENODEV: the
 * same for its class DeviceNotFound; -ETIMEDOUT; -ECONNRESET: the connection is gone. */
typedef void (*QmpAnswerFn)(QmpClient *client, json_t *value, const Error *e, void *userdata);
typedef void (*QmpEventFn)(QmpClient *client, const char *event, json_t *data, void *userdata);
/* The connection has ended, after the answers of all commands. Nothing more happens on it. */
typedef void (*QmpClosedFn)(QmpClient *client, const Error *e, void *userdata);

/* Takes `fd`, a connected Unix socket, also on failure. */
int qmp_client_new(Loop *loop, int fd, QmpEventFn on_event, QmpClosedFn on_closed, void *userdata,
                   QmpClient **ret);
/* May be called from any of the callbacks. No callback follows. */
QmpClient *qmp_client_free(QmpClient *client);
DEFINE_CLEANUP_FUNC(QmpClient *, qmp_client_free)

/* Sends a command. Steals `arguments` (NULL: none), also on failure. `fd`, if not negative, goes with it; it
 * is duplicated. `deadline` is a loop_now() time, UINT64_MAX for none. `on_answer` is called once, from the
 * loop; NULL if nobody cares. Returns 0 or a negative errno. */
int qmp_client_call(QmpClient *client, const char *command, json_t *arguments, int fd, uint64_t deadline,
                    QmpAnswerFn on_answer, void *userdata);

/* The version that QEMU gave in its greeting, "10.0.13", with what the distribution adds; an empty string
 * before. Answers come after it. Valid as long as the client. */
const char *qmp_client_version(const QmpClient *client);

/* Reads and dispatches what has arrived until now: for the last words of a VMM that has ended. */
void qmp_client_drain(QmpClient *client);
