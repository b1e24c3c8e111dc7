/* SPDX-License-Identifier: MIT */
#pragma once

/* A container: its first process, its execs, and what was made for it on the host and in the guest. Everything
 * made is noted here before it is made, so that one function, container_teardown(), serves both a Delete and the
 * undoing of a Create that failed. */

#include <stdbool.h>
#include <sys/types.h>

#include "oci/bundle.h"
#include "shim/process.h"

typedef struct Create Create;
typedef struct Shim Shim;
typedef struct Teardown Teardown;

/* A file that returns from the guest when the container has ended. */
typedef struct CopyBack {
    char *tree;
    char *path; /* on the host */
    dev_t device;
    ino_t inode;
} CopyBack;

struct Container {
    Shim *shim;
    Container *next;
    char *id;
    char *bundle;
    BundleKind kind;
    Process init;
    Process *execs;
    Create *create;     /* while it is being created */
    Teardown *teardown; /* while it is being taken down */
    TtrpcPending *copy_call;
    CopyBack *copy_backs;
    size_t n_copy_backs, next_copy_back;
    /* What there is to be taken down. */
    bool owns_pod;       /* the sandbox's or a plain container: the VM goes with it */
    bool disks_attached; /* the daemon was asked to attach them */
    bool in_agent;       /* the agent was asked to make it */
    char *scratch_path;  /* NULL: none */
};

/* Makes it and puts it into the shim's list. */
int container_new(Shim *shim, const char *id, const char *bundle, BundleKind kind, Container **ret);
/* Takes it out of the list and frees it; it must have been taken down. */
Container *container_free(Container *c);

Container *container_find(const Shim *shim, const char *id);
/* The container's first process for an empty `exec_id`. NULL when there is none of that name. */
Process *container_process(Container *c, const char *exec_id);

typedef void (*TeardownFn)(Container *c, void *userdata);

/* Removes all that was made for it. Goes on after failures, which are logged: what the daemon does not remove now
 * it removes once the shim and the bundle are gone. Calls back from the loop. */
int container_teardown(Container *c, TeardownFn callback, void *userdata);

/* To be called when its first process has ended: brings files back, then publishes the exit. */
void container_init_ended(Process *init);

/* The VM is gone. */
void container_lose(Container *c);
