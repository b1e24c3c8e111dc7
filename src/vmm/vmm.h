/* SPDX-License-Identifier: MIT */
#pragma once

/* Virtual machine monitors behind one interface. A Vmm is one VMM process with one VM in it. The drivers, one
 * file each, declare what they can do; what a driver lacks answers -EOPNOTSUPP with a sentence that names it.
 *
 * Everything that waits for the VMM is asynchronous: a function that takes a VmmDoneFn calls it exactly once,
 * from the loop, and never from inside itself. Each has a deadline (VmmSpec.timeout_usec); when it passes,
 * the operation fails with -ETIMEDOUT and the VM is left to the caller, who as a rule kills it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/json.h"
#include "base/loop.h"

typedef struct Vmm Vmm;
typedef struct VmmDriver VmmDriver;

typedef enum VmmFeature {
    VMM_HOTPLUG_DISK = 1 << 0,
    VMM_HOTPLUG_NIC = 1 << 1,
    VMM_HOTPLUG_CPU = 1 << 2,
    VMM_HOTPLUG_MEMORY = 1 << 3,
    VMM_PAUSE = 1 << 4,
    VMM_TEMPLATE = 1 << 5,  /* snapshot to a template, and clones that map its memory copy-on-write */
    VMM_SLOT_SWAP = 1 << 6, /* exchange the medium of a disk that is there already */
    VMM_TPM = 1 << 7,
    VMM_PMEM = 1 << 8,
} VmmFeature;

typedef struct VmmNic {
    int tap_fd; /* opened with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR; the caller's, duplicated for the VMM */
    uint8_t mac[6];
} VmmNic;

/* How a VM is made. Strings and arrays are copied where they are kept. */
typedef struct VmmSpec {
    const char *name;      /* of the process, for ps and messages */
    const char *directory; /* the VM's own, exists, absolute; sockets, console and stderr files go there */
    const char *binary;
    const char *kernel, *rootfs; /* PVH ELF kernel; erofs, attached read-only as the first disk */
    const char *kernel_args;     /* complete */
    unsigned vcpus, max_vcpus;
    uint64_t memory, max_memory; /* bytes; more than `memory` asks for room to hot-plug */
    const VmmNic *nics;
    size_t n_nics;
    unsigned max_hotplug_disks; /* how many can be added later */
    /* The VM is to become a template: its memory is a file in this directory, which exists, on a disk file
     * system, and has no template. Such a VM has no NIC, as the one that is saved has no device in a slot.
     * What is in the directory goes with the Vmm unless vmm_snapshot() has succeeded. NULL: any other VM. */
    const char *template_directory;
    bool emulate;               /* no KVM: run by emulation (QEMU's TCG) */
    uid_t uid;                  /* the VMM runs as, with no capability and no-new-privileges */
    gid_t gid;
    uint64_t boot_timeout_usec; /* until the VM runs; 0: as for each other operation */
    uint64_t timeout_usec;      /* for each operation */
} VmmSpec;

typedef struct VmmDisk {
    const char *serial; /* at most 20 bytes; names the disk in later calls */
    int fd;             /* of a regular file or block device; the caller's, duplicated for the VMM */
    const char *path;   /* where `fd` comes from, for drivers that need one and for messages */
    bool read_only;
} VmmDisk;

/* How a VMM ended. `reason` is a sentence for users and the journal: status, last words on stderr, last lines
 * of the guest's console. Valid during the callback. */
typedef struct VmmExit {
    bool requested;    /* by vmm_kill() or a shutdown of the guest */
    bool status_known; /* false for an adopted VMM, which is not our child */
    int status;        /* wait status */
    const char *reason;
} VmmExit;

typedef void (*VmmDoneFn)(Vmm *vmm, const Error *e /* NULL: success */, void *userdata);
typedef void (*VmmExitFn)(Vmm *vmm, const VmmExit *exit, void *userdata);

typedef enum VmmChannel {
    VMM_CHANNEL_CONTROL,
    VMM_CHANNEL_TASK,
    _VMM_CHANNEL_MAX,
} VmmChannel;

typedef struct VmmChannelAddress {
    bool serial;      /* virtio-serial port: speak the link layer; otherwise hybrid vsock */
    const char *path; /* Unix socket; valid as long as the Vmm */
    uint32_t port;    /* hybrid vsock: port for "CONNECT" */
} VmmChannelAddress;

/* "qemu", "cloud-hypervisor"; NULL for any other name. */
const VmmDriver *vmm_driver_by_name(const char *name);
const char *vmm_driver_name(const VmmDriver *driver);

/* What the driver can do with this program: runs it once, to ask for its version, for at most `timeout_usec`.
 * To be called when a program starts, not for each VM. */
int vmm_probe(const VmmDriver *driver, const char *binary, uint64_t timeout_usec, unsigned *ret_features,
              Error *e);

/* Starts a VMM and boots a VM. Calls `done` when the VM runs (its kernel is executing; the agent may still
 * need a while), or has failed: then the process is gone already, and `e` says why, with what the VMM had to
 * say. `exited` is called once if the VMM ends after that. On immediate failure nothing is left behind and no
 * callback runs. */
int vmm_boot(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, VmmDoneFn done, VmmExitFn exited,
             void *userdata, Vmm **ret, Error *e);

/* What is needed to find the VMM again after a restart: a JSON object for the state file (a new reference).
 */
int vmm_serialize(Vmm *vmm, json_t **ret);

/* Takes over a running VMM from what vmm_serialize() gave. `done` when its control socket answers. -ESRCH
 * when the process is gone. */
int vmm_adopt(Loop *loop, json_t *state, VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret,
              Error *e);

/* Kills the VMM (SIGKILL); `exited` follows. Ended already: nothing happens. */
int vmm_kill(Vmm *vmm);

/* Forgets the object: closes sockets and sources, callbacks end. The process, if it still runs, goes on. */
Vmm *vmm_free(Vmm *vmm);
DEFINE_CLEANUP_FUNC(Vmm *, vmm_free)

unsigned vmm_features(const Vmm *vmm); /* VmmFeature, or-ed: of its driver with this VMM */
/* What an operator should know of this VMM, a sentence; NULL: nothing. */
const char *vmm_warning(const Vmm *vmm);
pid_t vmm_pid(const Vmm *vmm);
uint64_t vmm_start_time(const Vmm *vmm); /* field 22 of /proc/PID/stat */
const VmmDriver *vmm_driver(const Vmm *vmm);
int vmm_channel(const Vmm *vmm, VmmChannel channel, VmmChannelAddress *ret);

/* Devices. Removal is done when the guest has let go of the device. */
int vmm_add_disk(Vmm *vmm, const VmmDisk *disk, VmmDoneFn done, void *userdata, Error *e);
int vmm_remove_disk(Vmm *vmm, const char *serial, VmmDoneFn done, void *userdata, Error *e);
int vmm_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmDoneFn done, void *userdata, Error *e);
int vmm_remove_nic(Vmm *vmm, const char *id, VmmDoneFn done, void *userdata, Error *e);
int vmm_swap_slot(Vmm *vmm, unsigned slot, const VmmDisk *disk /* NULL: empty */, VmmDoneFn done,
                  void *userdata, Error *e);

int vmm_pause(Vmm *vmm, VmmDoneFn done, void *userdata, Error *e);
int vmm_resume(Vmm *vmm, VmmDoneFn done, void *userdata, Error *e);
/* vCPUs and bytes the VM should have; 0: unchanged. The guest brings them online by the agent's Resize. */
int vmm_resize(Vmm *vmm, unsigned vcpus, uint64_t memory, VmmDoneFn done, void *userdata, Error *e);

/* Saves a paused VM, booted with that template_directory, as a template. Its files then belong to root and can
 * be read by spec.gid, and by nobody be written. All that can be done with the VM then is to kill it, which
 * has to come before the first clone. From the pause on, nobody may use a channel of the VM, connect or
 * disconnect. A failure leaves no template. */
int vmm_snapshot(Vmm *vmm, const char *directory, VmmDoneFn done, void *userdata, Error *e);
/* Starts a clone of the template in `directory`, of which the VM has to be as specified; its NICs are plugged in
 * later. -ENOENT: there is no template. -ESTALE: it is damaged, or was made with another VMM or for another VM,
 * and has to be made again. */
int vmm_restore(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, const char *directory,
                VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret, Error *e);
