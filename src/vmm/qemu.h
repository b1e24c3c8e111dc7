/* SPDX-License-Identifier: MIT */
#pragma once

/* The QEMU driver's object, shared by its files. */

#include <jansson.h>

#include "vmm/console.h"
#include "vmm/driver.h"
#include "vmm/qemu-args.h"
#include "vmm/qemu-template.h"
#include "vmm/qmp-client.h"

typedef enum SlotState {
    SLOT_FREE,
    SLOT_ADDING_FD,      /* the descriptor is on its way to QEMU */
    SLOT_ADDING_BACKEND, /* the block node or network back end */
    SLOT_ADDING_DEVICE,
    SLOT_PRESENT,
    SLOT_REMOVING,         /* the guest was asked to let go */
    SLOT_REMOVING_BACKEND, /* it has */
} SlotState;

typedef enum SlotKind {
    SLOT_DISK,
    SLOT_NIC,
} SlotKind;

/* Saving a template, or starting from one. */
typedef enum QemuMigration {
    MIGRATION_NONE,
    MIGRATION_SAVE_PREPARING,
    MIGRATION_SAVE_RUNNING,
    MIGRATION_SAVE_FAILED, /* and QEMU's reason asked for */
    MIGRATION_SAVED,       /* there is a template, and QEMU is stopped */
    MIGRATION_LOAD_PREPARING,
    MIGRATION_LOAD_RUNNING,
    MIGRATION_LOAD_RESUMING,
} QemuMigration;

/* Serials of disks, and ids of NICs, become part of names in QEMU. */
#define SLOT_NAME_MAX 40

/* A slot for hot-plug, with the device that is in it. */
typedef struct QemuSlot {
    struct Qemu *qemu;
    unsigned index;
    SlotState state;
    SlotKind kind;
    bool read_only, is_device; /* of a disk; a block device */
    uint8_t mac[6];
    char name[SLOT_NAME_MAX + 1];
    VmmOp *op;         /* NULL: nobody waits any more */
    uint64_t freed;    /* which of the VM's slots were freed before this one; 0: never used */
    LoopSource *retry; /* of a removal */
    uint64_t retry_usec;
} QemuSlot;

#define QEMU_FEATURES (VMM_HOTPLUG_DISK | VMM_HOTPLUG_NIC | VMM_PAUSE | VMM_TEMPLATE)

typedef struct Qemu {
    Vmm vmm; /* first */
    char *paths[_VMM_CHANNEL_MAX];
    QmpClient *qmp;
    Console *console;
    int stderr_fd; /* a memfd */
    QemuMachine machine;
    QemuSlot *slots;
    unsigned n_slots;
    uint64_t n_freed;    /* slots, so far */
    VmmOp *state_op;     /* pausing or resuming */
    bool state_changing; /* also when nobody waits for it any more */
    QemuTemplate *template_; /* that this VM becomes */
    QemuTemplateOrigin origin; /* of the template that it comes from */
    QemuMigration migration;
    VmmOp *save_op;
    char *shutdown;      /* reason in QEMU's event SHUTDOWN, or NULL */
    bool panicked;       /* GUEST_PANICKED */
} Qemu;

static inline Qemu *qemu_of(Vmm *vmm)
{
    return (Qemu *)vmm;
}

/* Ends an operation, unless the connection is lost: then the VMM's end is about to, and can say why. */
void qemu_finish(VmmOp *op, const Error *e);

/* Templates and clones are reached through qemu_template_ops, so that a program which has none is not larger for
 * them. */
typedef struct QemuTemplateOps {
    int (*probe)(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e);
    /* What is there before the process: of a clone of the template in `from`, or (NULL) of a template to be. */
    int (*prepare)(Qemu *q, const VmmSpec *spec, const char *from, int *ret_state_fd, Error *e);
    /* Loads the state, and resumes the VM; then calls vmm_booted() or vmm_boot_failed(). */
    int (*load)(Qemu *q, Error *e);
    int (*snapshot)(Vmm *vmm, const char *directory, VmmOp *op, Error *e);
    void (*on_event)(Qemu *q, json_t *data); /* MIGRATION */
    void (*clear)(Qemu *q);
} QemuTemplateOps;

/* qemu-migrate.c */
extern const QemuTemplateOps qemu_template_ops_all;

/* qemu-probe.c */
int qemu_probe(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e);
/* The features of a version, "10.0.13" and what may follow; -EBADMSG. */
int qemu_features_of_version(const char *version, unsigned *ret_features);

/* qemu-device.c */
bool qemu_slots_are_free(const Qemu *q);
/* How many, from the first, ever had a device; and the same for a clone of such a VM. */
unsigned qemu_slots_used(const Qemu *q);
void qemu_slots_rest(Qemu *q, unsigned n_used);
int qemu_slots_new(Qemu *q, unsigned n, Error *e);
void qemu_slots_free(Qemu *q);
/* Finds out what is in the slots of a VM that was taken over, then calls vmm_booted() or vmm_boot_failed().
 */
int qemu_slots_discover(Qemu *q, Error *e);
/* DEVICE_DELETED and DEVICE_UNPLUG_GUEST_ERROR */
void qemu_slots_on_event(Qemu *q, const char *event, json_t *data);
int qemu_add_disk(Vmm *vmm, const VmmDisk *disk, VmmOp *op, Error *e);
int qemu_remove_disk(Vmm *vmm, const char *serial, VmmOp *op, Error *e);
int qemu_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e);
int qemu_remove_nic(Vmm *vmm, const char *id, VmmOp *op, Error *e);
