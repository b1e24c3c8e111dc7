/* SPDX-License-Identifier: MIT */

/* Annotations of a pod, and the size of its VM from them. Both ways of treating bad ones must agree on which
 * they are.
 */

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "config/sizing.h"

static void check(const Annotations *a)
{
    for (const char *p = a->kernel_params; p && *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            abort();
    if (a->kernel_params && strstr(a->kernel_params, " init="))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char method[] = "acpi";
    const VmmConfig config = {.default_vcpus = 1, .default_memory_mb = 128, .hotplug_method = method};
    _cleanup_annotations_ Annotations *strict = NULL, *lenient = NULL;
    _cleanup_json_ json_t *json = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    PodLimits limits;
    Sizing s;

    if (json_parse((const char *)data, size, "annotations", &json, &e) < 0 || !json_is_object(json))
        return 0;
    if (annotations_parse(json, false, &strict, &e) < 0 && !e.message)
        abort();
    if (annotations_parse(json, true, &lenient, &e) < 0)
        abort();
    if (!!strict == (lenient->n_warnings > 0))
        abort();
    check(lenient);
    if (pod_limits_read(json, json, &limits, &e) < 0 ||
        sizing_compute(&config, lenient, &limits, 4, &s, &e) < 0)
        return 0;
    if (s.vcpus < 1 || s.vcpus > s.max_vcpus || s.max_vcpus > CONFIG_VCPUS_MAX || s.memory_mb < 64 ||
        s.memory_mb > s.memory_limit_mb)
        abort();
    return 0;
}
