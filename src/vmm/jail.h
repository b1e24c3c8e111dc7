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
    const char *plugs; /* a directory of one part for jail_plug(); NULL: none */
    unsigned max_fds;  /* descriptors that it may have; 0: as we */
} Jail;

#define JAIL_NO_GID ((gid_t)-1)

int jail_init(Jail *jail, uid_t uid, gid_t gid, Error *e);

/* Strings are borrowed. */
int jail_add_file(Jail *jail, const JailFile *file, Error *e);

/* Adds a device, and the group that may use it where not everybody may. -EACCES when that group may not. */
int jail_add_device(Jail *jail, const char *path, Error *e);

/* Enters the jail; userdata is the Jail. For ProcessSpec.prepare: in the forked child, before exec. */
int jail_enter(void *userdata);

/* Puts the file or directory that `fd` has into the jail of a process that is in it already, at `target` ("/disks/a"),
 * which is replaced. Needs CAP_SYS_CHROOT, and forks. The file is found by its descriptor, not by a path that could
 * mean another one by now. Whether the VMM may open it, its owner and mode say: jail_let_open(). */
int jail_plug(int pidfd, int fd, const char *target, bool writable, Error *e);

/* Takes it out again; what is not there is fine. Descriptors that the VMM has of it stay. */
int jail_unplug(int pidfd, const char *target, Error *e);

/* Lets a VMM's user open a regular file: one to be written becomes the user's own; one to be read becomes readable
 * for the group of VMMs, unless everybody may read it. */
int jail_let_open(int fd, bool writable, uid_t uid, gid_t gid);
