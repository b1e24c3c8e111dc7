/* SPDX-License-Identifier: MIT */
#pragma once

/* Volumes that live in the guest: an image's VOLUME, an emptyDir. The spec names them as
 * AGENT_VOLUMES_DIR/NAME, which is
 *
 * - for a container's own volume: a symbolic link to scratch/volumes/NAME in the container's directory, so that
 *   it counts against the scratch layer's size, or, in memory, a tmpfs;
 * - for a pod's volume: a tmpfs, since a scratch disk goes away with its container.
 *
 * A container's own volumes are noted as DIRECTORY/volumes/NAME, by which they are removed. Blocking: these
 * functions run in a worker. */

#include "agent.pb-c.h"
#include "base/error.h"

enum { AGENT_VOLUMES_MAX = 64 }; /* of one container */

/* Checks what does not need the file system: names, limits. */
int volumes_check(Cloudhv__Agent__V1__GuestVolume *const *volumes, size_t n, Error *e);

/* Makes the volumes of a container whose root file system is mounted in `directory`. A pod's volume that is
 * there already is used as it is. */
int volumes_make(const char *directory, Cloudhv__Agent__V1__GuestVolume *const *volumes, size_t n, Error *e);

/* Removes the container's own volumes; before its root file system is unmounted. */
int volumes_remove(const char *directory, Error *e);
