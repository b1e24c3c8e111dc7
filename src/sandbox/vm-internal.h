/* SPDX-License-Identifier: MIT */
#pragma once

/* The insides of a Sandbox, shared by the files that work on it: vm.c (from boot to end) and disks.c. */

#include "sandbox/vm.h"

/* A change of a sandbox's disks in progress: one container's, disk after disk. */
typedef struct DiskChange DiskChange;
struct DiskChange {
    DiskChange *next;
    char *container_id;
    size_t n_done;
    bool adding;
    Error failure; /* set: the disks added before are being taken out again */
    struct {
        char *serial, *path;
        bool read_only;
    } * disks;
    size_t n_disks;
    SandboxDoneFn done;
    void *userdata;
};

struct Sandbox {
    Loop *loop;
    const SandboxSettings *settings;
    char key[SANDBOX_KEY_SIZE];
    SandboxPhase phase;
    SandboxState state;
    char *directory;
    char *hostname, *domainname;
    Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry **sysctls;
    size_t n_sysctls;
    Vmm *vmm;
    TtrpcClient *control;
    LoopSource *cleanup_defer;
    LoopSource *change_defer;
    DiskChange *change; /* the one in progress, and those that wait behind it */
    bool vmm_ended;     /* seen, so nothing of the VMM runs any more */
    char *end_reason;
    Error boot_error;
    uint64_t started_usec;
    SandboxTimes times;
    SandboxPhaseFn callback;
    void *userdata;
};

/* Writes the state file as the sandbox is now. */
int sandbox_write_state(Sandbox *sandbox, Error *e);

/* Connects to the agent's control channel: `control` is then set. */
int sandbox_open_control(Sandbox *sandbox, Error *e);

/* The VM has ended or is about to: a change of disks that is going on fails. */
void sandbox_disk_change_abort(Sandbox *sandbox);
void sandbox_disk_change_free(DiskChange *change);
