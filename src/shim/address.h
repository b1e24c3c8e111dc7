/* SPDX-License-Identifier: MIT */
#pragma once

/* The shim's own socket: a name that follows from containerd's address, the namespace and the sandbox id alone, so
 * that `start` finds a shim that runs and `delete` the socket of one that died. */

#include "base/error.h"

#define ADDRESS_DEFAULT_DIR "/run/containerd/s"

/* Path of the socket below `directory` (NULL: the default). The caller frees it. */
int address_socket_path(const char *directory, const char *containerd_address, const char *namespace, const char *id,
                        char **ret, Error *e);
