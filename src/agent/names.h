/* SPDX-License-Identifier: MIT */
#pragma once

/* Names that come from the host and become parts of paths, and the agent's places in the guest. */

#include <stdbool.h>
#include <stddef.h>

#define AGENT_RUN_DIR "/run/cloudhv"
#define AGENT_TREES_DIR AGENT_RUN_DIR "/trees"
#define AGENT_VOLUMES_DIR AGENT_RUN_DIR "/volumes"
#define AGENT_CONTAINERS_DIR AGENT_RUN_DIR "/containers"
#define AGENT_CRUN_DIR AGENT_RUN_DIR "/crun"
#define AGENT_CGROUP_MOUNT "/sys/fs/cgroup"
#define AGENT_CGROUP_PARENT "/cloudhv" /* under the mount; one cgroup for each container below it */

enum {
    AGENT_NAME_MAX = 128,
    AGENT_CONTAINERS_MAX = 128,
    AGENT_EXECS_MAX = 64, /* in one container */
};

/* A container id, tree, volume or serial: 1 to 128 letters, digits and "._-+@:", not starting with '.' or
 * '-', so that it is one component of a path and never an option. */
bool name_is_valid(const char *name);

/* A relative path without empty, "." and ".." components, at most 4095 bytes. */
bool name_path_is_valid(const char *path);
