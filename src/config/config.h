/* SPDX-License-Identifier: MIT */
#pragma once

/* Configuration of the shim (config.json) and of the daemon (daemon.json).
 *
 * Each file is looked for in /usr/share/cloudhv, /opt/cloudhv and /etc/cloudhv; all that exist are read, and
 * a key in a later one wins. The environment's CLOUDHV_CONFIG_DIR replaces the three places by one. What no
 * file says has the built-in default. An unknown key, a wrong type, a number out of range and a path that is
 * not absolute are errors that name file, key and reason. docs/configuration.md describes every key. */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

/* The most vCPUs a guest can have: NR_CPUS of its kernel. */
#define CONFIG_VCPUS_MAX 32

/* What shapes a VM; in both files. Strings are owned and never NULL. */
typedef struct VmmConfig {
    char *vmm; /* "cloud-hypervisor", "qemu", or "auto" */
    char *cloud_hypervisor_binary;
    char *qemu_binary; /* absolute, or a name to be looked up in PATH */
    char *kernel_path;
    char *rootfs_path;
    char *kernel_args; /* complete: ${KERNEL_CONSOLE} is filled in */
    bool allow_emulation;
    uint64_t default_vcpus;
    uint64_t max_default_vcpus; /* 0: as many as the host has */
    uint64_t default_memory_mb;
    uint64_t hotplug_memory_mb;
    char *hotplug_method; /* "acpi" or "virtio-mem" */
    uint64_t max_containers_per_vm;
    bool tpm_enabled;
    uint64_t vmm_uid_base;
    uint64_t vmm_uid_count;
    uint64_t vmm_gid;
    uint64_t boot_timeout_secs;
    uint64_t operation_timeout_secs;
    uint64_t probe_timeout_msecs;
} VmmConfig;

typedef struct ShimConfig {
    VmmConfig vmm;
    char *daemon_socket; /* "": the shim boots its VM itself */
    char *state_dir;     /* of the VMs that the shim boots itself */
    char *erofs_cache_dir;
    uint64_t erofs_cache_max_mb;
    uint64_t image_max_mb;
    char *mkfs_erofs_binary;
    char *mke2fs_binary;
    uint64_t conversion_timeout_secs;
    char *writable_layer; /* "disk" or "memory" */
    uint64_t scratch_size_mb;
    uint64_t inline_max_kb; /* of files copied into the guest, for each container */
    char *bad_annotations;  /* "refuse" or "warn" */
    bool ignore_lsm;
    char *log_level; /* "error", "warning", "notice", "info", "debug" */
} ShimConfig;

typedef struct DaemonConfig {
    VmmConfig vmm;
    char *socket_path;
    char *state_dir;
    uint64_t pool_size;
    uint64_t max_pool_size;
    uint64_t pool_idle_timeout_secs;
    uint64_t pool_reserve_mb; /* MiB that filling the pool leaves available */
    bool templates;           /* clone VMs where the VMM can */
    char *templates_dir;
    uint64_t max_templates;
    uint64_t templates_max_mb;
    uint64_t warmup_duration_secs;
    uint64_t max_snapshots;
    char *warm_snapshots;        /* "off", "annotated" or "all" */
    char *log_level;
} DaemonConfig;

/* Reads the layers of config.json. */
int shim_config_load(ShimConfig **ret, Error *e);

/* Reads `file` alone, or the layers of daemon.json when it is NULL. */
int daemon_config_load(const char *file, DaemonConfig **ret, Error *e);

/* Accept NULL, return NULL. */
ShimConfig *shim_config_free(ShimConfig *config);
DaemonConfig *daemon_config_free(DaemonConfig *config);
DEFINE_CLEANUP_FUNC(ShimConfig *, shim_config_free)
DEFINE_CLEANUP_FUNC(DaemonConfig *, daemon_config_free)
#define _cleanup_shim_config_ _cleanup_(shim_config_freep)
#define _cleanup_daemon_config_ _cleanup_(daemon_config_freep)

/* Syslog priority of a `log_level`. */
int config_log_priority(const char *level);
