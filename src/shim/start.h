/* SPDX-License-Identifier: MIT */
#pragma once

/* The action `start`: prints the address of the shim that serves the container, after having started it where the
 * container is a sandbox or a plain one. A container of a CRI sandbox is served by the sandbox's shim.
 *
 * The server is a forked child. It makes the socket itself and waits for a word of its parent that the address is
 * printed; without it (the parent was killed) it removes what it made and ends. When it is the child that dies,
 * the parent removes the socket. So a half start leaves nothing behind. */

#include "shim/options.h"

int start_run(const ShimOptions *options, Error *e);
