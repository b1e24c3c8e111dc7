/* SPDX-License-Identifier: MIT */
#pragma once

/* What can be told of the system extension that this program came with: without I/O. */

#include <stdbool.h>
#include <stddef.h>

/* Whether a disk image (its first `n` bytes) has a GPT with a dm-verity signature partition of the
 * discoverable partitions specification. */
bool image_has_signature(const void *data, size_t n);

/* Whether a policy (systemd.image-policy(7)) merges signed images only: what it says of root and /usr, and of
 * all that it does not name, is `signed`, `absent` or `unused`. */
bool image_policy_is_strict(const char *policy);
