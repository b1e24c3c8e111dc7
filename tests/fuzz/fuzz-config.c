/* SPDX-License-Identifier: MIT */

/* Configuration files, over defaults and over each other. What is accepted is within the bounds of its table.
 */

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "config/config.h"
#include "config/field.h"

static void check(const ConfigField *fields, void *object)
{
    for (const ConfigField *f = fields; f->key; f++) {
        const char *at = (const char *)object + f->offset;

        if (f->type == CONFIG_NUMBER && (*(const uint64_t *)at < f->min || *(const uint64_t *)at > f->max))
            abort();
        if (f->type == CONFIG_PATH && (*(char *const *)at)[0] != '/')
            abort();
    }
}

static void apply(const ConfigField *fields, void *object, json_t *json)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (config_set_defaults(fields, object) < 0)
        return;
    if (config_apply(fields, object, json, "file", &e) < 0 && !e.message)
        abort();
    check(fields, object);
    config_release(fields, object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_json_ json_t *json = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    DaemonConfig daemon = {};
    ShimConfig shim = {};

    if (json_parse((const char *)data, size, "file", &json, &e) < 0)
        return 0;
    apply(config_shim_fields, &shim, json);
    apply(config_daemon_fields, &daemon, json);
    return 0;
}
