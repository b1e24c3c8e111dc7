/* SPDX-License-Identifier: MIT */
#pragma once

/* What a VMM driver implements, and what vmm.c does for all of them: the process and its end, operations with
 * their deadlines, dispatch. Only files in src/vmm/ include this. */

#include "vmm/vmm.h"

typedef struct VmmOp VmmOp;

/* An operation that somebody waits for. It ends by vmm_op_finish(), by its deadline, or with the VMM; in each
 * case *slot, where the driver keeps it, becomes NULL. */
struct VmmOp {
    Vmm *vmm;
    VmmOp *next;
    VmmOp **slot;
    const char *what; /* static: "adding a disk" */
    VmmDoneFn done;
    void *userdata;
    uint64_t timeout_usec;
    LoopSource *timer;
};

/* NULL members: the driver cannot do it. Operations get a VmmOp of which they take over `slot`, and return 0
 * when it is under way; on failure, the caller disposes of it. They never finish it before they return. */
struct VmmDriver {
    const char *name;
    size_t size; /* of the driver's object, which begins with a Vmm */
    unsigned features;

    /* As vmm_probe(); NULL: all that the driver can do, it can do with every version. */
    int (*probe)(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e);
    void (*init)(Vmm *vmm); /* of the driver's members; all is zero before */
    /* Starts the process, by vmm_process_started(); vmm_booted() or vmm_boot_failed() follow. */
    int (*boot)(Vmm *vmm, const VmmSpec *spec, const char *template_directory, Error *e);
    /* Connects to the process, which is there; then as above. */
    int (*adopt)(Vmm *vmm, json_t *state, Error *e);
    int (*serialize)(Vmm *vmm, json_t *state);
    /* The process has ended: reads what it left. Gives a sentence on what it said, or NULL, and whether the
     * guest had asked for the end. */
    void (*ended)(Vmm *vmm, bool *ret_requested, char **ret_last_words);
    void (*free)(Vmm *vmm);

    unsigned (*features_of)(const Vmm *vmm); /* those that this VMM has; NULL: all */
    const char *(*warning)(const Vmm *vmm); /* as vmm_warning(); NULL: none */
    int (*channel)(Vmm *vmm, VmmChannel channel, VmmChannelAddress *ret);
    int (*add_disk)(Vmm *vmm, const VmmDisk *disk, VmmOp *op, Error *e);
    int (*remove_disk)(Vmm *vmm, const char *serial, VmmOp *op, Error *e);
    int (*add_nic)(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e);
    int (*remove_nic)(Vmm *vmm, const char *id, VmmOp *op, Error *e);
    int (*swap_slot)(Vmm *vmm, unsigned slot, const VmmDisk *disk, VmmOp *op, Error *e);
    int (*pause)(Vmm *vmm, VmmOp *op, Error *e);
    int (*resume)(Vmm *vmm, VmmOp *op, Error *e);
    int (*resize)(Vmm *vmm, unsigned vcpus, uint64_t memory, VmmOp *op, Error *e);
    int (*snapshot)(Vmm *vmm, const char *directory, VmmOp *op, Error *e);
};

struct Vmm {
    const VmmDriver *driver;
    Loop *loop;
    char *name, *directory;
    uint64_t timeout_usec;

    pid_t pid;
    int pidfd;
    uint64_t start_time;
    LoopSource *exit_watch;
    bool adopted;
    bool kill_requested;
    bool ended;

    VmmOp *boot; /* until the VM runs or has failed */
    Error boot_error;
    VmmOp *ops;
    VmmExitFn exited;
    void *userdata;
    unsigned busy; /* callbacks under way */
    bool dead;     /* freed in one of them */
};

extern const VmmDriver vmm_driver_qemu;
extern const VmmDriver vmm_driver_cloud_hypervisor;

/* Those that the program has: all of drivers.c, or the few of drivers-embedded.c. Ends with NULL. */
extern const VmmDriver *const vmm_drivers[];
/* Defined with the list: how the QEMU driver makes templates and clones; NULL: not in this program. */
extern const struct QemuTemplateOps *const qemu_template_ops;

/* Takes the pidfd, and watches it. */
int vmm_process_started(Vmm *vmm, pid_t pid, int pidfd, Error *e);

/* The VM runs. */
void vmm_booted(Vmm *vmm);
/* The VM cannot be started (or, when adopting, not be reached). A process that was started is killed, and the
 * failure reported when it is gone. */
void vmm_boot_failed(Vmm *vmm, const Error *e);

/* Ends an operation; NULL is fine, since a deadline may have passed meanwhile. */
void vmm_op_finish(VmmOp *op, const Error *e);
/* Takes it from there, for one that only the end of the VMM or the deadline can finish; NULL is fine. */
void vmm_op_detach(VmmOp *op);
/* Puts the operation where the driver keeps it. */
void vmm_op_keep(VmmOp *op, VmmOp **slot);

/* Callbacks may free the Vmm. Who goes on after one brackets it with these, and looks at `dead`. */
void vmm_enter(Vmm *vmm);
void vmm_leave(Vmm *vmm);
