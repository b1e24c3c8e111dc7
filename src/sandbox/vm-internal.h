/* SPDX-License-Identifier: MIT */
#pragma once

/* The insides of a Sandbox, shared by the files that work on it: vm.c (its phases and its end), boot.c (its
 * beginning), clone.c (what is different about VMs that are clones or wait for a pod), disks.c, usage.c. */

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

/* What is different about a VM that is not booted for its pod; NULL members: nothing. Reached through pointers
 * so that a program that only boots has none of it. */
typedef struct SandboxVariant {
    /* The agent has answered. 1: the identity is next; 0: something else is under way. */
    int (*greeted)(Sandbox *sandbox, Error *e);
    /* The identity is taken. 1: the sandbox runs; 0: something else is under way. */
    int (*identified)(Sandbox *sandbox, Error *e);
    /* The VM failed before it ran. True: another one takes its place. */
    bool (*failed)(Sandbox *sandbox, const Error *e);
    void (*free)(Sandbox *sandbox);
} SandboxVariant;

/* How a VMM is started. */
typedef struct SandboxStart {
    const VmmNic *nics;
    size_t n_nics;
    const char *kernel_params; /* appended; NULL: none */
    const char *restore_from;  /* directory of a template; NULL: boot */
    const char *snapshot_to;   /* it is to become a template in this directory; NULL: not */
} SandboxStart;

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
    const SandboxVariant *variant;
    struct SandboxClone *clone; /* of the variant */
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

/* The only place where the phase changes. Returns false, and does nothing, for a change that cannot be. */
bool sandbox_set_phase(Sandbox *sandbox, SandboxPhase to, const Error *e);

/* Takes what a new sandbox is from the request. */
int sandbox_fill(Sandbox *sandbox, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                 const char *source);

/* Takes a uid and writes the state file. */
int sandbox_register(Sandbox *sandbox, Error *e);

/* Removes what sandbox_register() and sandbox_start() made. Nothing of the VM may run any more. */
void sandbox_remove_files(const Sandbox *sandbox);

/* Makes the VM's directory anew and starts a VMM; the phases follow. */
int sandbox_start(Sandbox *sandbox, const SandboxStart *start, Error *e);

/* Calls the agent, after which the pod's identity is sent, or what the variant says is done. */
int sandbox_greet(Sandbox *sandbox, Error *e);
int sandbox_send_identity(Sandbox *sandbox, Error *e);
/* Everything is done: the sandbox runs. */
void sandbox_run(Sandbox *sandbox);

/* The VM failed before it ran: an error of the acquire, unless another VM takes its place. */
void sandbox_boot_failed(Sandbox *sandbox, const Error *e);
/* Nothing of the VM runs any more: cleans up from the loop, since the caller may stand on its objects. */
void sandbox_schedule_cleanup(Sandbox *sandbox);
/* For vmm_adopt(). */
void sandbox_on_vmm_exit(Vmm *vmm, const VmmExit *exit, void *userdata);

/* Connects to the agent's control channel: `control` is then set. */
int sandbox_open_control(Sandbox *sandbox, Error *e);

/* The VM has ended or is about to: a change of disks that is going on fails. */
void sandbox_disk_change_abort(Sandbox *sandbox);
void sandbox_disk_change_free(DiskChange *change);
