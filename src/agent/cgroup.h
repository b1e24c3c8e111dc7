/* SPDX-License-Identifier: MIT */
#pragma once

/* A container's cgroup (v2), below AGENT_CGROUP_PARENT. crun makes and removes it; the agent watches it, kills
 * what is in it and reads its events. Containers may make cgroups of their own below it. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/loop.h"

/* Makes the parent of all containers' cgroups and turns every controller on, from the root down. */
int cgroup_setup(Error *e);

/* The cgroup of a container: as crun's cgroupsPath, and as a directory. The caller frees them; NULL when out
 * of memory. */
char *cgroup_spec_path(const char *id);
char *cgroup_directory(const char *id);

/* Kills every process in the cgroup and below it, at once and without a race (cgroup.kill). A cgroup that
 * does not exist has no processes. */
int cgroup_kill(const char *directory);

/* Sends another signal to every process, as far as they can be listed. */
int cgroup_signal(const char *directory, int signal);

/* Lists the processes of the cgroup and those below it, `max` at most. The caller frees the list. */
int cgroup_processes(const char *directory, size_t max, pid_t **ret, size_t *ret_n);

/* 1 when the cgroup or one below it has processes, 0 when not or when it does not exist. */
int cgroup_is_populated(const char *directory);

/* Holds all processes of the cgroup, or lets them go on; cgroup.events tells when that is reached. */
int cgroup_freeze(const char *directory, bool frozen);
/* Whether all are held. */
bool cgroup_is_frozen(const char *directory);

/* How many processes of the cgroup the OOM killer has ended; 0 when it cannot be known. */
uint64_t cgroup_oom_kills(const char *directory);

/* Removes the cgroup and those below it; they must have no processes. */
int cgroup_remove(const char *directory);

/* The value of a "key value" line, as in cgroup.events and memory.events; -ENOENT when there is none. Pure. */
int cgroup_event_value(const char *text, const char *key, uint64_t *ret);

/* Calls back each time that cgroup.events changes (a process came into an empty cgroup, or the last one
 * left). */
typedef struct CgroupWatch CgroupWatch;
int cgroup_watch_new(Loop *loop, const char *directory, LoopFn callback, void *userdata, CgroupWatch **ret);
CgroupWatch *cgroup_watch_free(CgroupWatch *watch);
