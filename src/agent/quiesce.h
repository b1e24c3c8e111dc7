/* SPDX-License-Identifier: MIT */
#pragma once

/* What the VM does before it is frozen as a template: one container, from a disk that the host has plugged for
 * it, is made, run and removed. What the kernel allocates for that and what is read of crun is then shared by
 * all clones, which would each have had to pay for it. Afterwards nothing of it is left: no mount, no process,
 * no cgroup. And nothing is done that clones must not share: no socket of a network, no interface that is up,
 * no boot id. */

#include "agent/container.h"

typedef struct Quiesce Quiesce;

int quiesce_new(Containers *containers, Quiesce **ret);
Quiesce *quiesce_free(Quiesce *quiesce);
DEFINE_CLEANUP_FUNC(Quiesce *, quiesce_free)

/* Begins; `done` follows. `disk` is the serial of a disk with a root file system that has the agent, as the
 * VM's own; empty: there is none, and only what is cached is written back. -EBUSY while it is under way. */
int quiesce_begin(Quiesce *quiesce, const char *disk, ContainerDoneFn done, void *userdata, Error *e);
