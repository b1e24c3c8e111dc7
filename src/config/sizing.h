/* SPDX-License-Identifier: MIT */
#pragma once

/* How large a pod's VM is, from configuration, annotations and the limits of the pod. */

#include <jansson.h>

#include "config/annotations.h"
#include "config/config.h"

/* Limits of a pod. Zero: no limit. */
typedef struct PodLimits {
    uint64_t cpu_quota, cpu_period; /* microseconds */
    uint64_t cpu_shares;
    uint64_t memory; /* bytes */
} PodLimits;

typedef struct Sizing {
    unsigned vcpus; /* at boot, at most CONFIG_VCPUS_MAX */
    unsigned max_vcpus;
    uint64_t memory_mb; /* MiB at boot */
    uint64_t memory_limit_mb;
    const char *kernel_params; /* of `annotations`; "" for none */
    bool enable_virtio_mem;
} Sizing;

/* Reads the limits from the annotations that containerd's CRI gives a sandbox
 * (io.kubernetes.cri.sandbox-cpu-quota, -cpu-period, -cpu-shares, -memory), and where these are missing from
 * `resources`, the object linux.resources of a plain container's spec. Both may be NULL. */
int pod_limits_read(json_t *annotations, json_t *resources, PodLimits *ret, Error *e);

/* `host_cpus` is the number of CPUs this process may use. Fails with -ERANGE when annotations and limits
 * contradict each other. `annotations` may be NULL. */
int sizing_compute(const VmmConfig *config, const Annotations *annotations, const PodLimits *limits,
                   unsigned host_cpus, Sizing *ret, Error *e);

/* CPUs this process may use, at least 1. */
unsigned sizing_host_cpus(void);
