/* SPDX-License-Identifier: MIT */
#pragma once

/* What a VMM is confined to: a user of its own, no capability and no way to gain one, empty network, IPC and
 * host-name namespaces, and a file system that has the host's programs and libraries, read-only, the files
 * named for it, and nothing else. It gets disks, TAPs and sockets as descriptors.
 *
 * The VMM is in a session of its own and gets no signal when its parent ends: it outlives a restart of it. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/* A file, directory or device that the VMM sees, at a path of one or two parts ("/vmlinux", "/dev/kvm"). */
typedef struct JailFile {
    const char *source; /* on the host */
    const char *target; /* in the jail; NULL: the same path, of any depth */
    bool writable;
    bool device; /* a device node, usable as such */
} JailFile;

typedef struct Jail {
    uid_t uid;
    gid_t gid;
    gid_t device_gid; /* one more group, for a device; (gid_t)-1: none */
    JailFile files[8];
    size_t n_files;
} Jail;

#define JAIL_NO_GID ((gid_t)-1)

int jail_init(Jail *jail, uid_t uid, gid_t gid, Error *e);

/* Strings are borrowed. */
int jail_add_file(Jail *jail, const JailFile *file, Error *e);

/* Adds a device, and the group that may use it where not everybody may. -EACCES when that group may not. */
int jail_add_device(Jail *jail, const char *path, Error *e);

/* Enters the jail; userdata is the Jail. For ProcessSpec.prepare: in the forked child, before exec. */
int jail_enter(void *userdata);
