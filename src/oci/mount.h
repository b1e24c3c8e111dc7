/* SPDX-License-Identifier: MIT */
#pragma once

/* One entry of a specification's mounts, read and checked. Does no I/O. */

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

typedef enum MountType {
    MOUNT_BIND,
    MOUNT_CGROUP,
    MOUNT_DEVPTS,
    MOUNT_MQUEUE,
    MOUNT_PROC,
    MOUNT_SYSFS,
    MOUNT_TMPFS,
} MountType;

typedef struct Mount {
    const char *destination; /* absolute; into the JSON */
    const char *source;      /* of a bind: absolute */
    MountType type;
    bool read_only;
    const char *propagation; /* the option that asks for propagation from or to the node; NULL: none */
    json_t *options;         /* new array: those that the guest gets, without bind, rbind, ro and rw; owned */
} Mount;

/* Reads an entry. Unknown types and options are refused by name. `ignore_lsm` leaves SELinux contexts out. */
int mount_read(json_t *entry, bool ignore_lsm, Mount *ret, Error *e);
void mount_clear(Mount *mount);
#define _cleanup_mount_ _cleanup_(mount_clear)

/* Name as the guest's runtime knows it. */
const char *mount_type_name(MountType type);
