/* SPDX-License-Identifier: MIT */

#include "config/sizing.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define MIB (1ULL << 20)
#define MEMORY_MAX_MB (1ULL << 20)

/* Of a whole number; negative ones, which mean "no limit", become 0. False for what is no number. */
static bool parse_limit(const char *text, uint64_t *ret)
{
    bool negative = *text == '-';
    uint64_t v = 0;

    text += negative;
    if (!*text || strlen(text) > 19)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (uint64_t)(*text - '0');
    }
    *ret = negative || v > INT64_MAX ? 0 : v;
    return true;
}

static int from_annotation(json_t *annotations, const char *name, uint64_t *ret, Error *e)
{
    json_t *value = json_object_get(annotations, name);

    if (!value)
        return 0;
    if (!json_is_string(value) || !parse_limit(json_string_value(value), ret))
        return error_set(e, -EINVAL, "annotation %s must be a whole number", name);
    return 1;
}

/* Numbers of the runtime specification may be negative (-1: no limit) or, written as uint64, beyond int64,
 * which jansson reads as a real number or refuses: both mean no limit here. */
static uint64_t from_resources(json_t *resources, const char *object, const char *key)
{
    json_t *value = json_object_get(json_object_get(resources, object), key);
    json_int_t v = json_is_integer(value) ? json_integer_value(value) : 0;

    return v > 0 ? (uint64_t)v : 0;
}

int pod_limits_read(json_t *annotations, json_t *resources, PodLimits *ret, Error *e)
{
    PodLimits limits = {};
    const struct {
        const char *annotation, *object, *key;
        uint64_t *value;
    } sources[] = {
        {"io.kubernetes.cri.sandbox-cpu-quota", "cpu", "quota", &limits.cpu_quota},
        {"io.kubernetes.cri.sandbox-cpu-period", "cpu", "period", &limits.cpu_period},
        {"io.kubernetes.cri.sandbox-cpu-shares", "cpu", "shares", &limits.cpu_shares},
        {"io.kubernetes.cri.sandbox-memory", "memory", "limit", &limits.memory},
    };

    for (size_t i = 0; i < ELEMENTSOF(sources); i++) {
        int r = from_annotation(annotations, sources[i].annotation, sources[i].value, e);

        if (r < 0)
            return r;
        if (r == 0)
            *sources[i].value = from_resources(resources, sources[i].object, sources[i].key);
    }
    if (limits.cpu_quota && !limits.cpu_period)
        limits.cpu_period = 100000; /* the kernel's default */
    *ret = limits;
    return 0;
}

static unsigned clamp_vcpus(uint64_t n)
{
    return n < 1 ? 1 : n > CONFIG_VCPUS_MAX ? CONFIG_VCPUS_MAX : (unsigned)n;
}

/* A pod with a CPU limit gets that many vCPUs, rounded up; one without may use what the configuration allows
 * it, at most what the host has. All are there at boot. The annotations say how many, or set a bound. */
static int compute_vcpus(const VmmConfig *config, const Annotations *a, const PodLimits *limits,
                         unsigned host_cpus, Sizing *s, Error *e)
{
    uint64_t wanted;

    if (a->default_vcpus && a->default_max_vcpus && a->default_vcpus > a->default_max_vcpus)
        return error_set(e, -ERANGE,
                         "the pod's annotations ask for %llu vCPUs (default_vcpus), more than the %llu of "
                         "default_max_vcpus",
                         (unsigned long long)a->default_vcpus, (unsigned long long)a->default_max_vcpus);
    if (a->default_vcpus)
        wanted = a->default_vcpus;
    else if (limits->cpu_quota)
        wanted = (limits->cpu_quota - 1) / limits->cpu_period + 1;
    else
        wanted = config->max_default_vcpus ?: host_cpus;
    if (!a->default_vcpus && wanted < config->default_vcpus)
        wanted = config->default_vcpus;
    if (a->default_max_vcpus && wanted > a->default_max_vcpus)
        wanted = a->default_max_vcpus;
    s->vcpus = clamp_vcpus(wanted);
    s->max_vcpus = clamp_vcpus(a->default_max_vcpus ?: wanted);
    return 0;
}

/* The configured size is what the guest itself and a small workload need; a pod's limit comes on top, so that
 * the workload can have all of it. */
static int compute_memory(const VmmConfig *config, const Annotations *a, const PodLimits *limits, Sizing *s,
                          Error *e)
{
    uint64_t base = a->default_memory_mb ?: config->default_memory_mb, most;
    uint64_t limit_mb = limits->memory ? (limits->memory - 1) / MIB + 1 : 0;

    if (a->memory_limit_mb && a->memory_limit_mb < base)
        return error_set(
            e, -ERANGE,
            "the pod's memory_limit annotation is %llu MiB, less than the %llu MiB its VM boots with",
            (unsigned long long)a->memory_limit_mb, (unsigned long long)base);
    s->memory_mb = base + limit_mb;
    if (limit_mb > MEMORY_MAX_MB || s->memory_mb > MEMORY_MAX_MB)
        s->memory_mb = MEMORY_MAX_MB;
    most = a->memory_limit_mb ?: s->memory_mb + config->hotplug_memory_mb;
    if (s->memory_mb > most)
        s->memory_mb = most;
    s->memory_limit_mb = most;
    return 0;
}

int sizing_compute(const VmmConfig *config, const Annotations *annotations, const PodLimits *limits,
                   unsigned host_cpus, Sizing *ret, Error *e)
{
    const Annotations none = {};
    const Annotations *a = annotations ?: &none;
    Sizing s = {.kernel_params = a->kernel_params ?: ""};
    int r;

    r = compute_vcpus(config, a, limits, host_cpus, &s, e);
    if (r < 0)
        return r;
    r = compute_memory(config, a, limits, &s, e);
    if (r < 0)
        return r;
    s.enable_virtio_mem =
        a->enable_virtio_mem_set ? a->enable_virtio_mem : strcmp(config->hotplug_method, "virtio-mem") == 0;
    *ret = s;
    return 0;
}

unsigned sizing_host_cpus(void)
{
    cpu_set_t set;
    int n = 0;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}
