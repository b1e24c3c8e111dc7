/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/rebuild.h"

/* Files of cgroup v2 that may be written by name ("unified"): limits of what the guest has. */
static const char *const unified_files[] = {
    "cpu.idle",   "cpu.max",    "cpu.max.burst", "cpu.weight",       "cpu.weight.nice", "memory.high",
    "memory.low", "memory.max", "memory.min",    "memory.oom.group", "pids.max",
};

static int rebuild_part(json_t *resources, const char *key, const SpecField *fields,
                        const SpecRefusal *refusals, json_t *out, Error *e)
{
    json_t *part, *copy;
    const char *where = key;
    int r = spec_object(resources, "linux.resources", key, &part, e);

    if (r < 0 || !part)
        return r;
    if (refusals) {
        r = spec_refuse(part, where, refusals, e);
        if (r < 0)
            return error_prefix(e, "linux.resources");
    }
    copy = json_object();
    r = spec_set(out, key, copy, e);
    if (r >= 0)
        r = spec_copy(part, where, fields, copy, e);
    if (r < 0)
        return error_prefix(e, "linux.resources");
    return json_object_size(copy) == 0 && json_object_del(out, key) < 0 ? -EINVAL : 0;
}

/* The guest has no swap, so limits of it say nothing; which of the node's CPUs a container may use is no
 * question of the guest either (the kubelet's static CPU manager sets it on every container). Both are left
 * out. */
static int rebuild_memory_and_cpu(json_t *resources, json_t *out, Error *e)
{
    static const SpecField memory[] = {
        {"limit", SPEC_LIMIT, -1, INT64_MAX},
        {"reservation", SPEC_LIMIT, -1, INT64_MAX},
        {NULL},
    };
    static const SpecRefusal memory_refusals[] = {
        {"disableOOMKiller", "the guest has cgroup v2, which cannot do without its OOM killer"},
        {"kernelTCP", "the guest has cgroup v2, which does not limit it"},
        {NULL},
    };
    static const SpecField cpu[] = {
        {"shares", SPEC_LIMIT, 0, 262144},    {"quota", SPEC_LIMIT, -1, INT64_MAX},
        {"period", SPEC_LIMIT, 0, INT64_MAX}, {"burst", SPEC_LIMIT, 0, INT64_MAX},
        {"idle", SPEC_LIMIT, 0, 1},           {NULL},
    };
    static const SpecRefusal cpu_refusals[] = {
        {"realtimeRuntime", "the guest has no real-time groups"},
        {"realtimePeriod", "the guest has no real-time groups"},
        {NULL},
    };
    static const SpecField pids[] = {{"limit", SPEC_LIMIT, -1, INT64_MAX}, {NULL}};
    int r = rebuild_part(resources, "memory", memory, memory_refusals, out, e);

    if (r >= 0)
        r = rebuild_part(resources, "cpu", cpu, cpu_refusals, out, e);
    if (r >= 0)
        r = rebuild_part(resources, "pids", pids, NULL, out, e);
    return r;
}

static int rebuild_unified(json_t *resources, json_t *out, Error *e)
{
    json_t *unified, *value, *copy;
    const char *file;
    int r = spec_object(resources, "linux.resources", "unified", &unified, e);

    if (r < 0 || json_object_size(unified) == 0)
        return r;
    copy = json_object();
    r = spec_set(out, "unified", copy, e);
    if (r < 0)
        return r;
    json_object_foreach (unified, file, value) {
        size_t i = 0;

        while (i < ELEMENTSOF(unified_files) && strcmp(file, unified_files[i]) != 0)
            i++;
        /* Swap is left out as above. */
        if (strncmp(file, "memory.swap.", 12) == 0)
            continue;
        if (i == ELEMENTSOF(unified_files))
            return error_set(e, -EOPNOTSUPP,
                             "linux.resources.unified: the cgroup file \"%.128s\" cannot be set in a VM",
                             file);
        if (!json_is_string(value) || json_string_length(value) > 64)
            return error_set(e, -EINVAL,
                             "linux.resources.unified: the value of \"%s\" must be a short string", file);
        r = spec_set(copy, file, json_string_nocheck(json_string_value(value)), e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The kubelet names every page size of the node with a limit of 0. */
static int check_huge_pages(json_t *resources, Error *e)
{
    json_t *list, *item;
    size_t i;
    int r = spec_array(resources, "linux.resources", "hugepageLimits", &list, e);

    if (r < 0)
        return r;
    json_array_foreach (list, i, item) {
        const char *size = json_string_value(json_object_get(item, "pageSize"));
        json_t *limit = json_object_get(item, "limit");

        if (json_is_integer(limit) && json_integer_value(limit) == 0)
            continue;
        return error_set(e, -EOPNOTSUPP,
                         "linux.resources.hugepageLimits: huge pages of %.32s are not supported",
                         size ?: "unknown size");
    }
    return 0;
}

int rebuild_resources(json_t *resources, bool devices, json_t **ret, Error *e)
{
    static const SpecRefusal refusals[] = {
        {"blockIO", "the guest's disks are its own"},
        {"network", "the guest has no network classes and priorities"},
        {"rdma", "the guest has no RDMA devices"},
        {NULL},
    };
    _cleanup_json_ json_t *out = json_object();
    json_t *rules, *copy;
    int r;

    if (!out)
        return error_set_errno(e, -ENOMEM, "cannot rebuild the container's resources");
    r = spec_refuse(resources, "linux.resources", refusals, e);
    if (r >= 0)
        r = check_huge_pages(resources, e);
    if (r >= 0)
        r = rebuild_memory_and_cpu(resources, out, e);
    if (r >= 0)
        r = rebuild_unified(resources, out, e);
    if (r >= 0 && devices) {
        r = spec_array(resources, "linux.resources", "devices", &rules, e);
        if (r >= 0)
            r = rebuild_device_rules(rules, &copy, e);
        if (r >= 0)
            r = spec_set(out, "devices", copy, e);
    }
    if (r < 0)
        return r;
    *ret = TAKE_PTR(out);
    return 0;
}
