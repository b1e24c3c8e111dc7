/* SPDX-License-Identifier: MIT */
#pragma once

/* What Cloud Hypervisor is started with and asked for, as values without side effects, so that tests can hold them
 * against its OpenAPI file. All return a new reference, or NULL when out of memory. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/vmm.h"

/* What the VMM sees of the host: src/vmm/jail.h. */
#define CH_KERNEL "/vmlinux"
#define CH_ROOTFS "/rootfs"
#define CH_SOCKETS "/sockets" /* a directory that it may write to, until the VM runs */
#define CH_VSOCK "agent"
#define CH_TEMPLATE "/template" /* writable while one is made */
#define CH_MEMORY "ram"
#define CH_DISKS "/disks"

/* The vsock ports of the agent (src/agent/ports.h), and the one of the host that it connects to when it listens. */
#define CH_PORT_READY 1023
#define CH_PORT_NOBODY 1 /* of the guest: where nothing listens before a container runs */
#define CH_PORT_CONTROL 1024
#define CH_PORT_TASK 1025

/* The oldest version whose API this is, and one that pays twice for what a guest writes: 64 MiB of it took 125 to 141
 * of the host's, in 53.0 64. */
#define CH_VERSION_MIN 51
#define CH_VERSION_DOUBLE 52

/* 0, or -EINVAL when no such VM can be. */
int ch_check_spec(const VmmSpec *spec, Error *e);

json_t *ch_vm_config(const VmmSpec *spec);                              /* VmConfig */
json_t *ch_disk_config(const char *id, const char *serial, bool read_only); /* DiskConfig */
json_t *ch_net_config(const char *id, const uint8_t mac[static 6]);     /* NetConfig */
json_t *ch_remove_device(const char *id);                               /* VmRemoveDevice */
json_t *ch_resize_cpus(unsigned vcpus);                                 /* VmResize */
json_t *ch_resize_memory(uint64_t bytes);                               /* VmResizeZone */
json_t *ch_snapshot_config(void);                                       /* VmSnapshotConfig, into CH_TEMPLATE */
json_t *ch_restore_config(void);                                        /* RestoreConfig, from there */

/* Makes of the configuration that a template was saved with what its clones are made from: they get their memory
 * copy-on-write. -EINVAL when it is not such a configuration. */
int ch_config_for_clones(json_t *config);

/* Reads "53.0.0", "v51.1-12-gabc": the major number. -EINVAL. */
int ch_parse_version(const char *text, unsigned *ret);
