/* SPDX-License-Identifier: MIT */
#pragma once

/* Sandboxes whose VM is a clone of a template, and VMs that belong to no pod: those that wait for one, and the
 * one that becomes a template. They are Sandbox objects like those that vm.h boots, with the same phases and
 * the same end. */

#include "sandbox/vm.h"

/* A template to be cloned. */
typedef struct SandboxOrigin {
    const char *key, *directory;
} SandboxOrigin;

/* Told when a clone came to nothing and its pod's VM is booted instead. `e` says why. */
typedef void (*SandboxCloneFailedFn)(Sandbox *sandbox, const char *key, const Error *e, void *userdata);

typedef struct SandboxCloneFailed {
    SandboxCloneFailedFn callback;
    void *userdata;
} SandboxCloneFailed;

/* As sandbox_acquire(), by a clone; the NICs are plugged once it has its identity. Should the clone not work,
 * a VM is booted in its place. */
int sandbox_acquire_clone(Loop *loop, const SandboxSettings *settings,
                          const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                          size_t n_tap_fds, const SandboxOrigin *origin, SandboxCloneFailed failed,
                          SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e);

/* A VM without a pod. */
typedef struct SandboxIdle {
    const char *purpose; /* "pool" or "template" */
    unsigned vcpus;
    uint64_t memory_mb;
    const SandboxOrigin *origin; /* NULL: booted */
    const char *snapshot_to;     /* directory of a template to be, or NULL */
} SandboxIdle;

/* Starts one. Ends in SANDBOX_READY, or by way of SANDBOX_RELEASING in SANDBOX_GONE. */
int sandbox_prepare(Loop *loop, const SandboxSettings *settings, const SandboxIdle *idle,
                    SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e);

/* Takes one over that a state file describes; takes `state` (and zeroes it) on success. Goes on as above. */
int sandbox_adopt_idle(Loop *loop, const SandboxSettings *settings, SandboxState *state,
                       SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e);

/* Makes a VM that is ready a pod's: from here on as by sandbox_acquire_clone(). When this fails itself, the VM
 * is still nobody's, and to be released. */
int sandbox_assign(Sandbox *sandbox, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                   const int *tap_fds, size_t n_tap_fds, SandboxCloneFailed failed, SandboxPhaseFn callback,
                   void *userdata, Error *e);

/* Whether the VMM's process runs, as the kernel has it now. */
bool sandbox_vmm_runs(const Sandbox *sandbox);
