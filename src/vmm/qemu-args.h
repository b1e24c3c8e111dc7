/* SPDX-License-Identifier: MIT */
#pragma once

/* QEMU's command line, built here and nowhere else. Works with QEMU 7.2 and later. Devices and back ends are
 * given as JSON, as over QMP, so that no value can be taken for syntax. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/vmm.h"

/* Places for hot-plug are the slots of conventional PCI buses, 31 on each, behind a bridge behind a root
 * port: a root port for each disk costs the guest 25 ms and 30 KiB (emulated; QEMU 7.2, Linux 6.12), for 40
 * of them a second. ACPI announces devices there as it does on PCI Express. The places of the cold-plugged
 * devices are fixed, so that a template and its clones agree. */
#define QEMU_SLOTS_PER_BRIDGE 31
#define QEMU_SLOTS_MAX (4 * QEMU_SLOTS_PER_BRIDGE)
#define QEMU_NICS_MAX 8

/* Descriptor sets: the root disk's, the state's that a template is saved to and a clone made from, and one for
 * each slot. */
#define QEMU_FDSET_ROOT 1
#define QEMU_FDSET_STATE 2
#define QEMU_FDSET_SLOT(slot) (16 + (slot))

typedef enum QemuMemory {
    QEMU_MEMORY_ANONYMOUS,
    QEMU_MEMORY_FILE,    /* a template: writes go to the file */
    QEMU_MEMORY_PRIVATE, /* a clone: maps the file copy-on-write, and cannot write it */
} QemuMemory;

/* What the builder needs beyond the specification: the numbers that descriptors have in QEMU, and paths as
 * QEMU sees them. */
typedef struct QemuSetup {
    const VmmSpec *spec;
    const char *kernel;
    int qmp_fd, console_fd, control_fd, task_fd; /* listening Unix sockets */
    int rootfs_fd;
    int state_fd; /* of what comes in */
    bool rootfs_is_device; /* a block device, not a file */
    const int *nic_fds;    /* as many as spec->n_nics */
    unsigned n_slots;      /* for hot-plug */
    unsigned tsc_khz;      /* with emulation: frequency of the guest's TSC, 0 if unknown */
    QemuMemory memory;
    const char *memory_path; /* with a file */
    bool incoming;           /* waits for a state instead of booting, and needs no kernel */
} QemuSetup;

/* Gives a NULL-terminated array that qemu_args_free() frees. Refuses a specification that QEMU cannot run. */
int qemu_args_build(const QemuSetup *setup, char ***ret, Error *e);
char **qemu_args_free(char **args);
DEFINE_CLEANUP_FUNC(char **, qemu_args_free)

/* Where a slot for hot-plug is: the id of its bus, and its address there. */
void qemu_slot_place(unsigned slot, char ret_bus[static 8], char ret_address[static 8]);
/* "02:00:00:00:00:07" */
void qemu_mac_string(const uint8_t mac[static 6], char ret[static 18]);
