/* SPDX-License-Identifier: MIT */
#pragma once

/* The Cloud Hypervisor driver's object, shared by its files. */

#include <jansson.h>

#include "vmm/ch-client.h"
#include "vmm/ch-events.h"
#include "vmm/console.h"
#include "vmm/driver.h"

#define CH_SERIAL_MAX 20 /* bytes, by virtio-blk */
#define CH_NAME_MAX 40

typedef enum ChDeviceState {
    CH_ADDING,
    CH_PRESENT,
    CH_REMOVING, /* the guest was asked to let go */
} ChDeviceState;

/* A disk or NIC that can be taken out again. Its id in Cloud Hypervisor is "d.SERIAL" or "n.ID". */
typedef struct ChDevice ChDevice;
struct ChDevice {
    struct Ch *ch;
    ChDevice *next;
    ChDeviceState state;
    bool asked;        /* Cloud Hypervisor has taken the request to remove it, and takes no second one */
    bool request;      /* one of it is under way */
    bool gone;         /* only kept for that */
    VmmOp *op;         /* NULL: nobody waits any more */
    char id[2 + CH_NAME_MAX + 1];
};

/* In the VM's directory: the VMM's CH_SOCKETS. */
#define CH_SOCKETS_NAME "sockets"
/* More connections than a template has had. */
#define CH_RENEWALS 4

typedef struct Ch {
    Vmm vmm; /* first */
    uid_t uid;
    gid_t gid;
    char *channel; /* Unix socket of the vsock device, where the VMM cannot reach it any more */
    ChClient *client;
    Console *console;
    int stderr_fd;
    int events_fd;
    LoopSource *events_io;
    ChEvents events;
    int ready_fd; /* the agent is awaited here */
    LoopSource *ready_io;
    bool clone;
    struct {
        int fd;
        LoopSource *io;
    } renewals[CH_RENEWALS]; /* of a clone's channel */
    void (*on_renewed)(struct Ch *ch);
    unsigned version; /* the major number; 0: not known yet */
    bool vm_runs, agent_listens; /* both: it has booted */
    ChDevice *devices;
    VmmOp *state_op; /* pausing or resuming */
    bool state_changing;
    VmmOp *resize_op;
    unsigned resizing; /* requests under way */
    Error resize_error;
    VmmOp *snapshot_op;
    bool snapshotting;
    char *template_directory; /* what is made in it is ours until it is a template */
    bool shut_down, reset;    /* as the guest asked */
} Ch;

static inline Ch *ch_of(Vmm *vmm)
{
    return (Ch *)vmm;
}

/* Ends an operation, unless the connection is lost: then the VMM's end is about to, and can say why. */
void ch_finish(VmmOp *op, const Error *e);

/* A request of an operation: the operation's deadline is what limits it. Steals `body`. */
int ch_put(Ch *ch, const char *name, json_t *body, int fd, ChAnswerFn on_answer, void *userdata);

#define CH_FEATURES                                                                                          \
    (VMM_HOTPLUG_DISK | VMM_HOTPLUG_NIC | VMM_HOTPLUG_CPU | VMM_HOTPLUG_MEMORY | VMM_PAUSE | VMM_TEMPLATE)

/* ch-start.c */
void ch_init(Vmm *vmm);
int ch_boot(Vmm *vmm, const VmmSpec *spec, const char *template_directory, Error *e);
int ch_adopt(Vmm *vmm, json_t *state, Error *e);
int ch_serialize(Vmm *vmm, json_t *state);

/* ch-channel.c */
/* To be called once the VM runs. */
int ch_channel_secure(Ch *ch, Error *e);
/* Makes the channel of a clone usable; calls back when it is. */
int ch_channel_renew(Ch *ch, void (*on_renewed)(Ch *ch), Error *e);
void ch_channel_free(Ch *ch);

/* ch-device.c */
void ch_devices_free(Ch *ch);
/* Reads from vm.info which there are in a VM that was taken over. */
int ch_devices_discover(Ch *ch, json_t *info, Error *e);
void ch_device_removed(Ch *ch, const char *id);
int ch_add_disk(Vmm *vmm, const VmmDisk *disk, VmmOp *op, Error *e);
int ch_remove_disk(Vmm *vmm, const char *serial, VmmOp *op, Error *e);
int ch_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e);
int ch_remove_nic(Vmm *vmm, const char *id, VmmOp *op, Error *e);

/* cloud-hypervisor.c */
/* Reads what has arrived on the event stream. */
void ch_read_events(Ch *ch);
