/* SPDX-License-Identifier: MIT */

#include "config/field.h"

#include <stdbool.h>

#include "config/config.h"

#define KERNEL_ARGS                                                                                          \
    "console=${KERNEL_CONSOLE} root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 panic=-1 " \
    "reboot=t net.ifnames=0"

static const char *const vmm_choices[] = {"auto", "cloud-hypervisor", "qemu", NULL};
static const char *const hotplug_choices[] = {"acpi", "virtio-mem", NULL};
static const char *const layer_choices[] = {"disk", "memory", NULL};
static const char *const annotation_choices[] = {"refuse", "warn", NULL};
static const char *const warm_choices[] = {"off", "annotated", "all", NULL};
static const char *const level_choices[] = {"error", "warning", "notice", "info", "debug", NULL};

#define FLAG(S, k)                                                                                           \
    {                                                                                                        \
        .key = #k, .type = CONFIG_BOOL, .offset = offsetof(S, k)                                             \
    }
#define FLAG_ON(S, k)                                                                                        \
    {                                                                                                        \
        .key = #k, .type = CONFIG_BOOL, .offset = offsetof(S, k), .default_text = "true"                     \
    }
#define NUMBER(S, k, value, low, high)                                                                       \
    {                                                                                                        \
        .key = #k, .type = CONFIG_NUMBER, .offset = offsetof(S, k), .default_number = value, .min = low,     \
        .max = high                                                                                          \
    }
#define TEXT(S, k, kind, value)                                                                              \
    {                                                                                                        \
        .key = #k, .type = kind, .offset = offsetof(S, k), .default_text = value                             \
    }
#define CHOICE(S, k, list, value)                                                                            \
    {                                                                                                        \
        .key = #k, .type = CONFIG_CHOICE, .offset = offsetof(S, k), .default_text = value, .choices = list   \
    }

/* Both structures begin with their VmmConfig, so its offsets hold in either. qemu_binary's default depends on
 * what is installed and is filled in by config.c. */
#define VMM_FIELDS                                                                                           \
    CHOICE(VmmConfig, vmm, vmm_choices, "auto"),                                                             \
        TEXT(VmmConfig, cloud_hypervisor_binary, CONFIG_PATH, "/usr/local/bin/cloud-hypervisor"),            \
        TEXT(VmmConfig, qemu_binary, CONFIG_PROGRAM, ""),                                                    \
        TEXT(VmmConfig, kernel_path, CONFIG_PATH, "/usr/share/cloudhv/guest/vmlinux"),                       \
        TEXT(VmmConfig, rootfs_path, CONFIG_PATH, "/usr/share/cloudhv/guest/rootfs.erofs"),                  \
        TEXT(VmmConfig, kernel_args, CONFIG_STRING, KERNEL_ARGS), FLAG(VmmConfig, allow_emulation),          \
        NUMBER(VmmConfig, default_vcpus, 1, 1, CONFIG_VCPUS_MAX),                                            \
        NUMBER(VmmConfig, max_default_vcpus, 0, 0, CONFIG_VCPUS_MAX),                                        \
        NUMBER(VmmConfig, default_memory_mb, 128, 64, 1U << 20),                                             \
        NUMBER(VmmConfig, hotplug_memory_mb, 0, 0, 1U << 20),                                                \
        CHOICE(VmmConfig, hotplug_method, hotplug_choices, "acpi"),                                          \
        NUMBER(VmmConfig, max_containers_per_vm, 5, 1, 32), FLAG(VmmConfig, tpm_enabled),                    \
        NUMBER(VmmConfig, vmm_uid_base, 1879048192, 1, UINT32_MAX - 1),                                      \
        NUMBER(VmmConfig, vmm_uid_count, 65536, 1, 1U << 24),                                                \
        NUMBER(VmmConfig, vmm_gid, 1879048192, 1, UINT32_MAX - 1),                                           \
        NUMBER(VmmConfig, boot_timeout_secs, 30, 1, 3600),                                                   \
        NUMBER(VmmConfig, operation_timeout_secs, 10, 1, 3600),                                              \
        NUMBER(VmmConfig, probe_timeout_msecs, 3000, 100, 600000)

_Static_assert(offsetof(ShimConfig, vmm) == 0 && offsetof(DaemonConfig, vmm) == 0,
               "the table of the VMM's fields is used for both structures");

const ConfigField config_shim_fields[] = {
    VMM_FIELDS,
    TEXT(ShimConfig, daemon_socket, CONFIG_PATH_OR_NOTHING, ""),
    TEXT(ShimConfig, state_dir, CONFIG_PATH, "/run/cloudhv/shim"),
    TEXT(ShimConfig, erofs_cache_dir, CONFIG_PATH, "/var/lib/cloudhv/erofs-cache"),
    NUMBER(ShimConfig, erofs_cache_max_mb, 10240, 1, 1U << 30),
    NUMBER(ShimConfig, image_max_mb, 16384, 1, 1U << 30),
    TEXT(ShimConfig, mkfs_erofs_binary, CONFIG_PATH, "/usr/lib/cloudhv/mkfs.erofs"),
    TEXT(ShimConfig, mke2fs_binary, CONFIG_PATH, "/sbin/mke2fs"),
    NUMBER(ShimConfig, conversion_timeout_secs, 600, 1, 86400),
    CHOICE(ShimConfig, writable_layer, layer_choices, "disk"),
    NUMBER(ShimConfig, scratch_size_mb, 10240, 16, 1U << 30),
    NUMBER(ShimConfig, inline_max_kb, 1024, 0, 65536),
    CHOICE(ShimConfig, bad_annotations, annotation_choices, "refuse"),
    FLAG(ShimConfig, ignore_lsm),
    CHOICE(ShimConfig, log_level, level_choices, "info"),
    {NULL},
};

const ConfigField config_daemon_fields[] = {
    VMM_FIELDS,
    TEXT(DaemonConfig, socket_path, CONFIG_PATH, "/run/cloudhv/daemon.sock"),
    TEXT(DaemonConfig, state_dir, CONFIG_PATH, "/run/cloudhv/daemon"),
    NUMBER(DaemonConfig, pool_size, 3, 0, 1000),
    NUMBER(DaemonConfig, max_pool_size, 10, 0, 1000),
    NUMBER(DaemonConfig, pool_idle_timeout_secs, 300, 1, 604800),
    NUMBER(DaemonConfig, pool_reserve_mb, 512, 0, 1U << 30),
    FLAG_ON(DaemonConfig, templates),
    TEXT(DaemonConfig, templates_dir, CONFIG_PATH, "/var/lib/cloudhv/templates"),
    NUMBER(DaemonConfig, max_templates, 8, 1, 1000),
    NUMBER(DaemonConfig, templates_max_mb, 4096, 1, 1U << 30),
    NUMBER(DaemonConfig, warmup_duration_secs, 30, 0, 3600),
    NUMBER(DaemonConfig, max_snapshots, 100, 0, 100000),
    CHOICE(DaemonConfig, warm_snapshots, warm_choices, "annotated"),
    CHOICE(DaemonConfig, log_level, level_choices, "info"),
    {NULL},
};
