/* SPDX-License-Identifier: MIT */

#include <stdint.h>
#include <string.h>

#include "agent/spec.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What comes out is a spec whose root is ours. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const SpecPlaces places = {.root_path = "/r", .cgroups_path = "/c", .pid_namespace = size & 1 ? "/p" : NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_json_ json_t *spec = NULL;
    _cleanup_free_ char *out = NULL;
    const char *root;

    if (spec_place(data, size, &places, &out, &e) < 0) {
        if (!e.message)
            abort();
        return 0;
    }
    if (json_parse(out, strlen(out), "result", &spec, &e) < 0)
        abort();
    root = json_string_value(json_object_get(json_object_get(spec, "root"), "path"));
    if (!root || strcmp(root, "/r") != 0)
        abort();
    return 0;
}
