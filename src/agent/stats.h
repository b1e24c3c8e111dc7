/* SPDX-License-Identifier: MIT */
#pragma once

/* What a container, or the whole pod, uses: a cgroup's files as containerd's metrics message. */

#include <stdint.h>

#include "base/error.h"
#include "containerd-cgroups.pb-c.h"

enum { STATS_DISKS_MAX = 64 };

typedef Io__Containerd__Cgroups__V2__Metrics StatsMetrics;

/* Reads a cgroup and packs the message. What a controller that is off would say is left 0. The caller frees
 * the bytes. -ENOENT: there is no such cgroup. */
int stats_read(const char *cgroup_directory, uint8_t **ret, size_t *ret_n, Error *e);

/* Takes the lines "key value" of memory.stat into the message; unknown keys are passed over. Pure. */
void stats_parse_memory(const char *text, Io__Containerd__Cgroups__V2__MemoryStat *ret);

/* Takes io.stat; gives how many entries were filled, at most STATS_DISKS_MAX. Pure. */
size_t stats_parse_io(const char *text, Io__Containerd__Cgroups__V2__IOEntry *entries);
