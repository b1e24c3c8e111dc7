/* SPDX-License-Identifier: MIT */
#pragma once

/* What the service asks of the place where VMs come from other than by a boot. It is reached through pointers
 * (SandboxSettings.clones), so that a program that only boots VMs, the shim, does not contain it. */

#include "sandbox/service.h"

struct SandboxClones {
    int (*open)(SandboxService *service, void **ret, Error *e);
    /* Forgets everything; VMs go on. */
    void (*close)(void *clones);
    /* Ends the VMs that belong to no pod. 0: there are none; otherwise `done` is called when there are not. */
    int (*stop)(void *clones, void (*done)(void *userdata), void *userdata);

    /* A VM for a pod, as sandbox_acquire(). 1: under way; 0: there is none for this pod, which is to be
     * booted. */
    int (*acquire)(void *clones, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                   const int *tap_fds, size_t n_tap_fds, SandboxPhaseFn callback, void *userdata,
                   Sandbox **ret, Error *e);
    /* Takes over a VM of a former owner that belongs to no pod; takes `state` on success. Otherwise the VM is
     * to be removed. */
    int (*adopt)(void *clones, SandboxState *state, Error *e);
    /* All that there is has been taken over, or a sandbox runs or is gone. */
    void (*changed)(void *clones);
    /* Adds to an answer what it has; what it points to is valid until the next call. */
    void (*fill_status)(void *clones, Cloudhv__Daemon__V1__StatusResponse *response);

    /* vmm_restore() */
    int (*restore)(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, const char *directory,
                   VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret, Error *e);
};
