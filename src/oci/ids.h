/* SPDX-License-Identifier: MIT */
#pragma once

/* Identifiers from outside: namespaces, container, sandbox and exec ids, by containerd's rule: words of
 * letters and digits, with one of . _ - between them, at most 76 characters. */

#include <stdbool.h>

#include "base/error.h"

#define ID_MAX 76

bool id_is_valid(const char *id);

/* -EINVAL, with a message that says what `what` ("container id") must look like, for an id that is not valid.
 */
int id_check(const char *id, const char *what, Error *e);
