/* SPDX-License-Identifier: MIT */
#pragma once

/* The pod's process namespace, for pods whose containers share one (shareProcessNamespace): its first process
 * is a program of the agent's that does nothing but collect orphans. Made when the first container asks. */

#include "agent/reaper.h"
#include "base/error.h"

/* argv[1] that turns the agent's binary into that first process. */
#define PODPID_ARGUMENT "--pod-init"

typedef struct PodPid PodPid;

int podpid_new(Reaper *reaper, PodPid **ret);
/* Ends the namespace, and with it every process in it. */
PodPid *podpid_free(PodPid *pod);
DEFINE_CLEANUP_FUNC(PodPid *, podpid_free)

/* The path of the namespace, such as "/proc/17/ns/pid", which stays valid until the process ends. Makes the
 * namespace if there is none. */
int podpid_get(PodPid *pod, const char **ret_path, Error *e);

/* What the first process does. */
_Noreturn void podpid_main(void);
