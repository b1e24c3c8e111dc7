/* SPDX-License-Identifier: MIT */
#pragma once

/* Copying known fields from a specification that came from outside into one of our own. Whatever a table does
 * not name stays behind. */

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"

typedef enum SpecType {
    SPEC_BOOL,
    SPEC_NUMBER, /* integer within [min, max] */
    SPEC_LIMIT,  /* the same, but 0 says "not set" and is left out */
    SPEC_STRING,
    SPEC_STRINGS, /* array of strings */
    SPEC_PATHS,   /* array of absolute paths */
} SpecType;

typedef struct SpecField {
    const char *key; /* NULL ends a table */
    SpecType type;
    int64_t min, max;
} SpecField;

/* Copies what `fields` names from the object `from` to the object `to`. `where` ("process.user") is put
 * before the key in errors. A missing or null member is left out. */
int spec_copy(json_t *from, const char *where, const SpecField *fields, json_t *to, Error *e);

/* What cannot take effect: a member that is there and says something (is not null, false, 0 or empty) is
 * refused with -EOPNOTSUPP and `reason`. */
typedef struct SpecRefusal {
    const char *key; /* NULL ends a table */
    const char *reason;
} SpecRefusal;
int spec_refuse(json_t *from, const char *where, const SpecRefusal *refusals, Error *e);

/* Gets a member that must be an object or an array; NULL when it is missing or null. */
int spec_object(json_t *from, const char *where, const char *key, json_t **ret, Error *e);
int spec_array(json_t *from, const char *where, const char *key, json_t **ret, Error *e);

/* Adds a new reference, which may be NULL for out of memory, to an object or array. */
int spec_set(json_t *object, const char *key, json_t *value, Error *e);
int spec_append(json_t *array, json_t *value, Error *e);

/* "x/../y", "//": a path that containerd never writes and that could mean two things. */
int spec_check_path(const char *path, const char *where, Error *e);
