/* SPDX-License-Identifier: MIT */
#pragma once

/* QEMU's command line, built here and nowhere else. Works with QEMU 7.2 and later. Devices and back ends are
 * given as JSON, as over QMP, so that no value can be taken for syntax. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/vmm.h"

/* The machine that a guest finds itself in, which follows from its architecture. */
typedef enum QemuMachine {
    QEMU_Q35,  /* x86-64 */
    QEMU_VIRT, /* arm64 */
} QemuMachine;

#if defined(__aarch64__)
#define QEMU_MACHINE_OF_HOST QEMU_VIRT
#else
#define QEMU_MACHINE_OF_HOST QEMU_Q35
#endif

/* Places for hot-plug are, on q35, the slots of conventional PCI buses, 31 on each, behind a bridge behind a
 * root port: a root port for each disk costs the guest 25 ms and 30 KiB (emulated; QEMU 7.2, Linux 6.12), for
 * 40 of them a second. ACPI announces devices there as it does on PCI Express. On virt, a guest that is
 * started without a firmware has no ACPI, and a conventional bus would announce a device by a button, after
 * which Linux waits for 5 s: each place is a root port. The places of the cold-plugged devices are fixed, so
 * that a template and its clones agree. */
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
    QemuMachine machine;
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

/* By the name of the program: "qemu-system-aarch64" has the one, "qemu-system-x86_64" the other, and what does
 * not end in an architecture ("qemu-kvm") is taken for the host's. */
QemuMachine qemu_machine_of(const char *binary);

/* Slots for hot-plug behind each root port. */
unsigned qemu_slots_per_port(QemuMachine machine);
/* Where a slot for hot-plug is: the id of its bus, and its address there. */
void qemu_slot_place(QemuMachine machine, unsigned slot, char ret_bus[static 8], char ret_address[static 8]);
/* "02:00:00:00:00:07" */
void qemu_mac_string(const uint8_t mac[static 6], char ret[static 18]);
