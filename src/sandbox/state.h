/* SPDX-License-Identifier: MIT */
#pragma once

/* What is kept on disk of a sandbox. */

#include "base/error.h"
#include "base/json.h"
#include "sandbox/sandbox.h"

#define STATE_VERSION 1

typedef struct SandboxContainer {
    char *id;
    char **serials; /* of the disks attached for it, in order */
    size_t n_serials;
} SandboxContainer;

/* Everything that must survive a restart. Strings and arrays are owned. */
typedef struct SandboxState {
    char *namespace;
    char *sandbox_id;
    char *bundle;
    char *source; /* "cold", "template", "pool" */
    char *purpose;  /* of a VM that belongs to no pod: "pool", "template"; otherwise NULL */
    char *template; /* key of the one that it is a clone of, or NULL */
    char *vm;       /* name of the VM's directory, NULL: as the sandbox's key */
    uint32_t shim_pid;
    uint64_t shim_start_time;
    uid_t uid;
    bool running; /* the agent has taken the pod's identity */
    unsigned vcpus;
    uint64_t memory_mb;
    uint64_t since_usec; /* CLOCK_REALTIME of the acquire */
    char *kernel_release;
    bool emulated;
    json_t *vmm; /* vmm_serialize(), NULL before there is a VMM */
    SandboxContainer *containers;
    size_t n_containers;
} SandboxState;

void sandbox_state_clear(SandboxState *state);
#define _cleanup_sandbox_state_ _cleanup_(sandbox_state_clear)

/* Paths below state_dir; the caller frees them; NULL when out of memory. */
char *state_file_path(const char *state_dir, const char *key);
char *state_vm_directory(const char *state_dir, const char *key);
/* The same of a sandbox whose VM may have been another's before. */
char *sandbox_state_vm_directory(const char *state_dir, const char *key, const SandboxState *state);

/* Makes state_dir and what lies below it. */
int state_prepare_directory(const char *state_dir, Error *e);

int sandbox_state_write(const char *state_dir, const char *key, const SandboxState *state, Error *e);
/* -ENOENT when there is none; -EPROTO when another version wrote it. `ret` must be zeroed. */
int sandbox_state_read(const char *state_dir, const char *key, SandboxState *ret, Error *e);

/* Containers of a state. */
SandboxContainer *sandbox_state_find_container(SandboxState *state, const char *id);
/* Adds a container without disks; NULL when out of memory. */
SandboxContainer *sandbox_state_add_container(SandboxState *state, const char *id);
void sandbox_state_drop_container(SandboxState *state, const char *id);
int sandbox_container_add_serial(SandboxContainer *container, const char *serial);
