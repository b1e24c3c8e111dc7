/* SPDX-License-Identifier: MIT */
#pragma once

/* A connection to Cloud Hypervisor's API on the event loop: requests with deadlines and descriptors. The server
 * handles one at a time, so that one is under way and the others wait here. */

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"

typedef struct ChClient ChClient;

/* The answer of a request: its value (NULL: it has none), or an error. -EREMOTEIO: Cloud Hypervisor refused, with its
 * words; -ETIMEDOUT; -ECONNRESET: the connection is gone. */
typedef void (*ChAnswerFn)(ChClient *client, json_t *value, const Error *e, void *userdata);
/* The connection has ended, after the answers of all requests. Nothing more happens on it. -ECONNRESET: closed by the
 * server; anything else: it broke the protocol. */
typedef void (*ChClosedFn)(ChClient *client, const Error *e, void *userdata);

/* Takes `fd`, a connected Unix socket, also on failure. */
int ch_client_new(Loop *loop, int fd, ChClosedFn on_closed, void *userdata, ChClient **ret);
/* May be called from any of the callbacks. No callback follows. */
ChClient *ch_client_free(ChClient *client);
DEFINE_CLEANUP_FUNC(ChClient *, ch_client_free)

/* Asks for something ("vm.info"; GET). `deadline` is a loop_now() time, UINT64_MAX for none. `on_answer` is called
 * once, from the loop; NULL if nobody cares. Returns 0 or a negative errno. */
int ch_client_get(ChClient *client, const char *name, uint64_t deadline, ChAnswerFn on_answer, void *userdata);

/* Has something done ("vm.add-net"; PUT). Steals `body` (NULL: none), also on failure. `fd`, if not negative, goes
 * with it; it is duplicated. */
int ch_client_put(ChClient *client, const char *name, json_t *body, int fd, uint64_t deadline, ChAnswerFn on_answer,
                  void *userdata);
