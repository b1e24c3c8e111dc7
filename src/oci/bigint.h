/* SPDX-License-Identifier: MIT */
#pragma once

/* JSON of the OCI world has unsigned 64-bit integers (an unlimited rlimit is 18446744073709551615), jansson
 * has signed ones and refuses the rest. Therefore such text is changed on its way in: an integer beyond
 * INT64_MAX becomes a real number. None is ever written: what is unlimited goes to the guest as INT64_MAX,
 * which its agent can read. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Gives a copy of `text` in which "e0" follows each integer that does not fit; the caller frees it. */
int bigint_widen(const char *text, size_t n, char **ret, size_t *ret_size);

/* Whether a value is such a number. */
bool bigint_is(json_t *value);
