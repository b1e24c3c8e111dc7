/* SPDX-License-Identifier: MIT */
#pragma once

/* One sandbox: a pod's VM and the control channel to its agent, as a state machine. The service (service.c)
 * owns these objects and speaks for them; this is the way from nothing to a VM with an identity, and back. */

#include "agent.pb-c.h"
#include "daemon.pb-c.h"
#include "sandbox/sandbox.h"
#include "sandbox/state.h"

typedef enum SandboxPhase {
    SANDBOX_NEW,
    SANDBOX_BOOTING,     /* the VMM is being started */
    SANDBOX_IDENTIFYING, /* the agent is awaited and gets the pod's identity */
    SANDBOX_READY,       /* the agent has answered, and there is no pod for it yet */
    SANDBOX_RUNNING,
    SANDBOX_ENDED,     /* the VMM is gone by itself; kept until released, for its reason */
    SANDBOX_RELEASING, /* the VMM is being killed */
    SANDBOX_GONE,      /* nothing is left of it */
    _SANDBOX_PHASE_MAX,
} SandboxPhase;

const char *sandbox_phase_name(SandboxPhase phase);

typedef struct Sandbox Sandbox;

/* Called at each change of phase; in SANDBOX_GONE for the last time, and the object may be freed then. `e`
 * says why a boot failed (the phase goes to SANDBOX_RELEASING then) or how the VMM ended (SANDBOX_ENDED). */
typedef void (*SandboxPhaseFn)(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata);

typedef void (*SandboxDoneFn)(Sandbox *sandbox, const Error *e, void *userdata);

/* Starts a VM for a pod; the descriptors of `tap_fds` stay the caller's. Ends in SANDBOX_RUNNING, or by way
 * of SANDBOX_RELEASING in SANDBOX_GONE. When this fails itself, nothing is left and no callback runs. */
int sandbox_acquire(Loop *loop, const SandboxSettings *settings,
                    const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                    size_t n_tap_fds, SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e);

/* Takes over what a state file describes; takes `state` (and zeroes it) on success. */
int sandbox_adopt(Loop *loop, const SandboxSettings *settings, SandboxState *state, SandboxPhaseFn callback,
                  void *userdata, Sandbox **ret, Error *e);

/* Ends the VM and removes all that was made for it; in the end the phase is SANDBOX_GONE. May be repeated. */
void sandbox_release(Sandbox *sandbox);

/* Attaches disks for a container; disks that are there already count as attached. On failure none of them
 * stays. Changes of one sandbox's disks are made one after another, in the order of the calls. */
int sandbox_add_container(Sandbox *sandbox, const char *container_id, Cloudhv__Daemon__V1__Disk *const *disks,
                          size_t n_disks, SandboxDoneFn done, void *userdata, Error *e);
/* Detaches them; an unknown container succeeds. */
int sandbox_remove_container(Sandbox *sandbox, const char *container_id, SandboxDoneFn done, void *userdata,
                             Error *e);

typedef struct SandboxUsage {
    uint64_t vmm_private;                     /* bytes that are the VMM's alone, guest memory included */
    uint64_t agent_private, agent_peak;       /* bytes; the latter resident, at the most */
    uint64_t agent_wakeups;                   /* since the boot */
    uint64_t memory_total, memory_available;  /* bytes, in the guest */
} SandboxUsage;

typedef void (*SandboxUsageFn)(Sandbox *sandbox, const SandboxUsage *usage, const Error *e, void *userdata);

/* Asks the agent of a running sandbox, and looks at the VMM. Calls back once, with `usage` or `e`, unless it fails
 * itself; when the sandbox is freed first, with -ECANCELED. */
int sandbox_get_usage(Sandbox *sandbox, SandboxUsageFn callback, void *userdata, Error *e);

/* Forgets the object; the VM, if there is one, goes on. */
Sandbox *sandbox_free(Sandbox *sandbox);

SandboxPhase sandbox_get_phase(const Sandbox *sandbox);
const char *sandbox_get_key(const Sandbox *sandbox);
const SandboxState *sandbox_get_state(const Sandbox *sandbox);
Vmm *sandbox_get_vmm(const Sandbox *sandbox); /* NULL before and after there is one */
/* How the VMM ended, NULL while it has not. */
const char *sandbox_get_end_reason(const Sandbox *sandbox);
/* Microseconds from the acquire to the VMM running, the agent answering, and the identity taken; 0: not yet.
 */
typedef struct SandboxTimes {
    uint64_t vmm, agent, identity;
} SandboxTimes;
SandboxTimes sandbox_get_times(const Sandbox *sandbox);
