/* SPDX-License-Identifier: MIT */
#pragma once

/* The tables that say which keys a configuration file has: one row for each, from which reading, defaults and
 * release follow. Keys lie in the structure at `offset`: strings as char *, numbers as uint64_t, switches as
 * bool. */

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum ConfigType {
    CONFIG_BOOL,
    CONFIG_NUMBER,  /* within [min, max] */
    CONFIG_STRING,  /* any */
    CONFIG_CHOICE,  /* one of `choices` */
    CONFIG_PATH,    /* absolute */
    CONFIG_PROGRAM, /* absolute path, or a name without a slash, looked up in PATH */
    CONFIG_PATH_OR_NOTHING,
} ConfigType;

typedef struct ConfigField {
    const char *key;
    ConfigType type;
    size_t offset;
    const char *default_text; /* of everything but numbers; "true" for a switch that is on */
    uint64_t default_number, min, max;
    const char *const *choices; /* NULL-terminated */
} ConfigField;

/* NULL key ends a table. */
extern const ConfigField config_shim_fields[], config_daemon_fields[];

/* Gives every field its default. `object` is zeroed memory of the table's structure. */
int config_set_defaults(const ConfigField *fields, void *object);

/* Takes over what the JSON object `json` from the file `file` says. On failure some fields may have changed.
 */
int config_apply(const ConfigField *fields, void *object, json_t *json, const char *file, Error *e);

/* Frees the strings, not the object. */
void config_release(const ConfigField *fields, void *object);
