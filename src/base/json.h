/* SPDX-License-Identifier: MIT */
#pragma once

/* Strict reading of JSON objects with jansson: every key must be known, every value of its type and range,
 * and the error says which key of which file is wrong and why. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* json_decrefp() is jansson's own. */
#define _cleanup_json_ _cleanup_(json_decrefp)

/* Parses text that must be one JSON value. `what` names its source in errors ("/etc/cloudhv/config.json"). */
int json_parse(const char *text, size_t n, const char *what, json_t **ret, Error *e);

/* Reads and parses a file of at most `max` bytes. */
int json_read_file(const char *path, size_t max, json_t **ret, Error *e);

/* Gets a member, or leaves *ret untouched and returns 0 when it is missing or null; 1 when it was there. A
 * wrong type or a number out of [min, max] is an error that names `what` and the key. Strings are the
 * object's own. */
int json_get_string(json_t *object, const char *key, const char *what, const char **ret, Error *e);
int json_get_uint(json_t *object, const char *key, const char *what, uint64_t min, uint64_t max,
                  uint64_t *ret, Error *e);
int json_get_bool(json_t *object, const char *key, const char *what, bool *ret, Error *e);
int json_get_object(json_t *object, const char *key, const char *what, json_t **ret, Error *e);
int json_get_array(json_t *object, const char *key, const char *what, json_t **ret, Error *e);
