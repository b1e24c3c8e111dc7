/* SPDX-License-Identifier: MIT */
#pragma once

/* Sandboxes: the VM of each pod from acquire to release, and the ttrpc service `cloudhv.daemon.v1.Sandboxes`
 * in front of them. The daemon serves it on its socket; a shim that is configured without a daemon serves it
 * to itself over a socket pair.
 *
 * On disk, below `state_dir` (root only):
 *   sandboxes/KEY.json  what is known of a sandbox, written before each side effect
 *   vm/KEY/             the VM's directory: sockets and console, which the VMM gets as descriptors
 * The uids of VMMs are registered in /run/cloudhv/uids (uid.h). KEY is 16 hexadecimal digits from namespace
 * and sandbox id, since socket paths are limited to 107 bytes. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/loop.h"
#include "config/config.h"
#include "ttrpc/ttrpc.h"
#include "vmm/vmm.h"

#define SANDBOX_KEY_SIZE 17 /* with the NUL */

/* Where VMs come from other than by a boot: templates, and a pool of their clones (clones.h). */
typedef struct SandboxClones SandboxClones;

/* Of both; their documentation is docs/configuration.md. */
typedef struct SandboxCloneSettings {
    const char *templates_dir;
    uint64_t max_templates, templates_max_mb;
    unsigned pool_size, max_pool_size;
    unsigned pool_vcpus; /* of each VM in the pool; its memory is the default */
    uint64_t pool_idle_usec;
    uint64_t pool_reserve_mb; /* MiB of available memory that filling the pool leaves alone */
    const char *proc;         /* instead of /proc, for tests; NULL: not */
} SandboxCloneSettings;

/* How VMs are run here. Strings without a mark belong to the configuration, which must outlive this. */
typedef struct SandboxSettings {
    const char *state_dir;
    const VmmDriver *driver;
    const char *vmm_binary, *kernel, *rootfs, *kernel_args;
    unsigned default_vcpus;
    uint64_t default_memory_mb; /* MiB */
    uid_t uid_base;             /* each VM takes one of [uid_base, uid_base + uid_count) */
    unsigned uid_count;
    gid_t gid;
    bool emulate;        /* run without KVM: it is not usable, and emulation is allowed */
    char *no_kvm_reason; /* owned; not NULL: KVM is not usable, and why */
    char *no_vmm_reason; /* owned; not NULL: no VM can be run here, and why */
    uint64_t boot_timeout_usec;
    uint64_t operation_timeout_usec;
    unsigned max_containers; /* per VM */
    /* Of several owners that share a state_dir (shims without a daemon), each has one sandbox: only that one
     * is taken over or cleaned up. NULL: all of them are ours. Borrowed. */
    const char *only_namespace, *only_sandbox_id;
    const SandboxClones *clones; /* NULL: each VM is booted for its pod */
    SandboxCloneSettings clone;
} SandboxSettings;

/* Takes the settings from the configuration and finds out whether KVM works (in a child process, for at most
 * the configured time). A host that can run no VM is no error here: each acquire will say why. */
int sandbox_settings_init(SandboxSettings *settings, const VmmConfig *config, const char *state_dir,
                          Error *e);
/* Has VMs cloned, and kept ready, where the VMM can do it. What `clone` points to must outlive the settings. */
void sandbox_settings_use_clones(SandboxSettings *settings, const SandboxCloneSettings *clone);
void sandbox_settings_clear(SandboxSettings *settings);
#define _cleanup_sandbox_settings_ _cleanup_(sandbox_settings_clear)

typedef struct SandboxService SandboxService;

/* Told when something happened that an operator wants to read: a line for the journal with its priority
 * (syslog). */
typedef void (*SandboxLogFn)(int priority, const char *namespace, const char *sandbox_id, const char *message,
                             void *userdata);

/* Makes the service and finds what an earlier one left in `state_dir`: VMs that run are taken over, the rest
 * of interrupted work is removed. `log` may be NULL. */
int sandbox_service_new(Loop *loop, const SandboxSettings *settings, SandboxLogFn log, void *userdata,
                        SandboxService **ret, Error *e);

/* Forgets everything; VMs go on. */
SandboxService *sandbox_service_free(SandboxService *service);
DEFINE_CLEANUP_FUNC(SandboxService *, sandbox_service_free)

/* Before the program ends in an orderly way: ends the VMs that belong to no pod. 0: there are none; otherwise `done`
 * is called, once, when there are not. Only with sandbox_settings_use_clones(). */
int sandbox_service_stop(SandboxService *service, void (*done)(void *userdata), void *userdata);

/* Registers the service with a server that must not outlive it. */
int sandbox_service_register(SandboxService *service, TtrpcServer *server);

/* Number of sandboxes that exist in any state. */
size_t sandbox_service_count(const SandboxService *service);

/* KEY of a sandbox. */
void sandbox_key(const char *namespace, const char *sandbox_id, char ret[static SANDBOX_KEY_SIZE]);

/* Ends and removes a sandbox from what is on disk alone, without a service: kills its processes, waits for
 * them and removes directory, uid and state. 1 when there was one, 0 when not. For `delete` after the owner
 * died. */
int sandbox_remove_leftover(const char *state_dir, const char *namespace, const char *sandbox_id, Error *e);
