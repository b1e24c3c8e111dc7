/* SPDX-License-Identifier: MIT */
#pragma once

/* VMs that are ready before they are asked for: clones of the template for the usual size of VM, whose agents
 * have answered. One is taken once and never comes back. The pool is filled in the background, a few VMs at a
 * time, to its target: `pool_size`, one more for each acquire that found it empty, at most `max_pool_size`, and
 * `pool_size` again when nobody has asked for a while. */

#include "sandbox/template.h"

typedef struct Pool Pool;

/* While `is_busy` says that pods are waiting for their VMs, none is started for later ones. */
typedef struct PoolHooks {
    bool (*is_busy)(void *userdata);
    void (*gone)(void *userdata); /* a VM of the pool is */
    void (*log)(int priority, const char *message, void *userdata);
    void *userdata;
} PoolHooks;

int pool_new(Loop *loop, const SandboxSettings *settings, TemplateStore *templates, const PoolHooks *hooks,
             Pool **ret, Error *e);
/* Forgets it; its VMs go on. */
Pool *pool_free(Pool *pool);

/* The size of its VMs. */
TemplateClass pool_class(const Pool *pool);

/* Gives a VM that is ready, runs, and is a clone of the template `key` to a pod, as sandbox_assign(). 1: it is
 * the caller's from now on; 0: there is none. */
int pool_assign(Pool *pool, const char *key, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                const int *tap_fds, size_t n_tap_fds, SandboxCloneFailed failed, SandboxPhaseFn callback,
                void *userdata, Sandbox **ret);

/* Puts in what a former owner had; takes `state` on success. */
int pool_adopt(Pool *pool, SandboxState *state, Error *e);

/* Fills it, as far as that is possible now; to be called when something has changed. */
void pool_fill(Pool *pool);

/* Ends all of its VMs, and starts no more. True: some are still on their way out; hooks.gone tells. */
bool pool_stop(Pool *pool);

bool pool_uses(const Pool *pool, const char *key);
unsigned pool_ready(const Pool *pool);
unsigned pool_target(const Pool *pool);
