/* SPDX-License-Identifier: MIT */

/* Hot-plug. A device is plugged in three steps (descriptor, back end, device) and unplugged in two (device,
 * once the guest has let go; back end). Each slot is a small state machine that goes on to a clean state
 * even when the caller's deadline has passed: what succeeds too late is undone.
 *
 * Commands of one connection are executed in order, so steps that undo need not wait for each other, and
 * names that depend on the slot alone can be used again at once. The names tell a later owner all there is to
 * know: device "d3.SERIAL" is the disk SERIAL in slot 3, "n3.ID" the NIC.
 *
 * QEMU's ACPI hot-plug (7.2 to 10) has two traps. While a removal is pending, each event makes the guest's
 * firmware ask for it once more, and the surplus request ejects whatever is in the slot by the time that the
 * guest gets to it: so a new device goes into the slot that has been free for longest. And the event
 * DEVICE_DELETED fails to come for one removal in a hundred: so QEMU is asked again, until it does not know the
 * device. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "vmm/qemu-args.h"
#include "vmm/qemu.h"

#define SERIAL_MAX 20 /* VIRTIO_BLK_ID_BYTES */
#define REMOVAL_RETRY_USEC (2 * USEC_PER_SEC) /* doubled each time */
/* A button that is pressed again before Linux acted on it, which takes 5 s and more, takes the request back. */
#define BUTTON_RETRY_USEC (30 * USEC_PER_SEC)

typedef struct SlotNames {
    char device[SLOT_NAME_MAX + 16], backend[16], fdset_path[32], bus[8], address[8];
    int fdset;
} SlotNames;

static SlotNames names_of(const QemuSlot *slot)
{
    SlotNames n;

    n.fdset = QEMU_FDSET_SLOT((int)slot->index);
    snprintf(n.device, sizeof(n.device), "%c%u.%s", slot->kind == SLOT_DISK ? 'd' : 'n', slot->index,
             slot->name);
    snprintf(n.backend, sizeof(n.backend), "%s%u", slot->kind == SLOT_DISK ? "disk" : "net", slot->index);
    qemu_slot_place(slot->qemu->machine, slot->index, n.bus, n.address);
    snprintf(n.fdset_path, sizeof(n.fdset_path), "/dev/fdset/%i", n.fdset);
    return n;
}

int qemu_slots_new(Qemu *q, unsigned n, Error *e)
{
    if (n > QEMU_SLOTS_MAX)
        return error_set(e, -E2BIG, "a VM cannot have %u hot-plug slots: %i at most", n, QEMU_SLOTS_MAX);
    q->slots = calloc(n > 0 ? n : 1, sizeof(*q->slots));
    if (!q->slots)
        return error_set_errno(e, -ENOMEM, "cannot make a VM");
    q->n_slots = n;
    for (unsigned i = 0; i < n; i++) {
        q->slots[i].qemu = q;
        q->slots[i].index = i;
    }
    return 0;
}

void qemu_slots_free(Qemu *q)
{
    for (unsigned i = 0; i < q->n_slots; i++)
        loop_source_free(q->slots[i].retry);
    free(q->slots);
}

bool qemu_slots_are_free(const Qemu *q)
{
    for (unsigned i = 0; i < q->n_slots; i++)
        if (q->slots[i].state != SLOT_FREE)
            return false;
    return true;
}

unsigned qemu_slots_used(const Qemu *q)
{
    unsigned n = q->n_slots;

    while (n > 0 && q->slots[n - 1].state == SLOT_FREE && q->slots[n - 1].freed == 0)
        n--;
    return n;
}

void qemu_slots_rest(Qemu *q, unsigned n_used)
{
    for (unsigned i = 0; i < n_used && i < q->n_slots; i++)
        q->slots[i].freed = ++q->n_freed;
}

static void slot_release(QemuSlot *slot)
{
    loop_source_free(slot->retry);
    *slot = (QemuSlot){.qemu = slot->qemu, .index = slot->index, .freed = ++slot->qemu->n_freed};
}

/* Frees the slot, then ends the operation: the caller's callback may want the slot at once. */
static void slot_finish_free(QemuSlot *slot, const Error *e)
{
    VmmOp *op = slot->op;

    slot_release(slot);
    qemu_finish(op, e);
}

static int slot_call(QemuSlot *slot, const char *command, json_t *arguments, int fd, QmpAnswerFn on_answer)
{
    if (!arguments)
        return -ENOMEM;
    return qmp_client_call(slot->qemu->qmp, command, arguments, fd, UINT64_MAX, on_answer, slot);
}

/* Takes back the steps that `state` comes after. Nobody waits for that: where it fails, there was nothing to
 * take back, or the connection is gone. */
static void slot_undo(QemuSlot *slot, SlotState state)
{
    SlotNames n = names_of(slot);

    if (slot->kind == SLOT_DISK) {
        if (state > SLOT_ADDING_BACKEND)
            (void)slot_call(slot, "blockdev-del", json_pack("{s:s}", "node-name", n.backend), -EBADF, NULL);
        (void)slot_call(slot, "remove-fd", json_pack("{s:i}", "fdset-id", n.fdset), -EBADF, NULL);
    } else {
        if (state > SLOT_ADDING_BACKEND)
            (void)slot_call(slot, "netdev_del", json_pack("{s:s}", "id", n.backend), -EBADF, NULL);
        else
            (void)slot_call(slot, "closefd", json_pack("{s:s}", "fdname", n.backend), -EBADF, NULL);
    }
}

static void slot_fail(QemuSlot *slot, const Error *e)
{
    slot_undo(slot, slot->state);
    slot_finish_free(slot, e);
}

static void slot_fail_errno(QemuSlot *slot, int number)
{
    _cleanup_error_ Error e = ERROR_INIT;

    (void)error_set_errno(&e, number, "cannot send a command to QEMU");
    slot_fail(slot, &e);
}

/* Removal */

static void on_backend_removed(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuSlot *slot = userdata;

    if (slot->kind == SLOT_DISK)
        (void)slot_call(slot, "remove-fd", json_pack("{s:i}", "fdset-id", names_of(slot).fdset), -EBADF,
                        NULL);
    slot_finish_free(slot, e);
}

static void slot_device_gone(QemuSlot *slot)
{
    SlotNames n = names_of(slot);
    int r;

    if (slot->state == SLOT_REMOVING_BACKEND)
        return;
    slot->state = SLOT_REMOVING_BACKEND;
    slot->retry = loop_source_free(slot->retry);
    if (slot->kind == SLOT_DISK)
        r = slot_call(slot, "blockdev-del", json_pack("{s:s}", "node-name", n.backend), -EBADF,
                      on_backend_removed);
    else
        r = slot_call(slot, "netdev_del", json_pack("{s:s}", "id", n.backend), -EBADF, on_backend_removed);
    if (r < 0)
        slot_fail_errno(slot, r);
}

static void on_delete_answered(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuSlot *slot = userdata;

    if (!e || slot->state != SLOT_REMOVING)
        return; /* DEVICE_DELETED follows, or was first */
    if (e->number == -ENODEV) {
        slot_device_gone(slot);
        return;
    }
    /* The guest was asked before, and still may answer. */
    if (strstr(error_message(e), "already in the process of unplug"))
        return;
    slot->state = SLOT_PRESENT;
    qemu_finish(slot->op, e);
}

static int slot_ask_to_remove(QemuSlot *slot)
{
    return slot_call(slot, "device_del", json_pack("{s:s}", "id", names_of(slot).device), -EBADF,
                     on_delete_answered);
}

/* A guest that does not let go is asked until the operation's deadline. */
static void on_retry(LoopSource *source, void *userdata)
{
    QemuSlot *slot = userdata;

    if (slot->state != SLOT_REMOVING || !slot->op)
        return;
    slot->retry_usec *= 2;
    /* What cannot be sent or armed now leaves the operation to its deadline. */
    if (slot_ask_to_remove(slot) >= 0)
        (void)loop_source_set_timer(source, slot->retry_usec);
}

static int slot_remove(QemuSlot *slot)
{
    int r;

    slot->retry_usec = slot->qemu->machine == QEMU_VIRT ? BUTTON_RETRY_USEC : REMOVAL_RETRY_USEC;
    r = slot->retry ? loop_source_set_timer(slot->retry, slot->retry_usec)
                    : loop_add_timer(slot->qemu->vmm.loop, slot->retry_usec, on_retry, slot, &slot->retry);
    if (r >= 0)
        r = slot_ask_to_remove(slot);
    if (r >= 0)
        slot->state = SLOT_REMOVING;
    return r;
}

/* Addition */

static void on_device_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuSlot *slot = userdata;

    if (slot->state != SLOT_ADDING_DEVICE)
        return;
    if (e) {
        slot_fail(slot, e);
        return;
    }
    slot->state = SLOT_PRESENT;
    if (slot->op)
        qemu_finish(slot->op, NULL);
    else
        (void)slot_remove(slot); /* too late: the caller was told that it failed */
}

static void on_backend_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuSlot *slot = userdata;
    SlotNames n = names_of(slot);
    json_t *arguments;
    char mac[18];
    int r;

    if (e) {
        slot_fail(slot, e);
        return;
    }
    slot->state = SLOT_ADDING_DEVICE;
    if (!slot->op) {
        slot_fail(slot, NULL);
        return;
    }
    if (slot->kind == SLOT_DISK) {
        arguments = json_pack("{s:s, s:s, s:s, s:s}", "driver", "virtio-blk-pci", "id", n.device, "drive",
                              n.backend, "serial", slot->name);
    } else {
        qemu_mac_string(slot->mac, mac);
        arguments = json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-net-pci", "id", n.device,
                              "netdev", n.backend, "mac", mac, "romfile", "");
    }
    /* On a conventional bus QEMU would add the registers of drivers older than virtio 1.0. */
    if (arguments && json_object_update_new(arguments, json_pack("{s:s, s:s, s:s}", "bus", n.bus, "addr",
                                                                 n.address, "disable-legacy", "on")) < 0) {
        json_decref(arguments);
        arguments = NULL;
    }
    r = slot_call(slot, "device_add", arguments, -EBADF, on_device_added);
    if (r < 0)
        slot_fail_errno(slot, r);
}

static json_t *block_node(const QemuSlot *slot, const SlotNames *n)
{
    const char *driver = slot->is_device ? "host_device" : "file";

    /* Always raw: what a guest writes must never be read as an image format with a backing file. */
    if (slot->read_only)
        return json_pack("{s:s, s:s, s:b, s:{s:s, s:s, s:s, s:b}}", "driver", "raw", "node-name", n->backend,
                         "read-only", 1, "file", "driver", driver, "filename", n->fdset_path, "locking",
                         "off", "read-only", 1);
    return json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s, s:b, s:s}}", "driver", "raw", "node-name", n->backend,
                     "read-only", 0, "discard", "unmap", "file", "driver", driver, "filename", n->fdset_path,
                     "read-only", 0, "discard", "unmap");
}

static void on_fd_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuSlot *slot = userdata;
    SlotNames n = names_of(slot);
    int r;

    if (e || !slot->op) {
        slot_fail(slot, e);
        return;
    }
    slot->state = SLOT_ADDING_BACKEND;
    if (slot->kind == SLOT_DISK)
        r = slot_call(slot, "blockdev-add", block_node(slot, &n), -EBADF, on_backend_added);
    else
        r = slot_call(slot, "netdev_add",
                      json_pack("{s:s, s:s, s:s}", "type", "tap", "id", n.backend, "fd", n.backend), -EBADF,
                      on_backend_added);
    if (r < 0)
        slot_fail_errno(slot, r);
}

/* Looking for slots */

static bool name_is_valid(const char *name, size_t max)
{
    size_t n = strlen(name);

    return n > 0 && n <= max &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static QemuSlot *slot_find(Qemu *q, SlotKind kind, const char *name)
{
    for (unsigned i = 0; i < q->n_slots; i++)
        if (q->slots[i].state != SLOT_FREE && q->slots[i].kind == kind && strcmp(q->slots[i].name, name) == 0)
            return &q->slots[i];
    return NULL;
}

static int slot_take(Qemu *q, SlotKind kind, const char *name, QemuSlot **ret, Error *e)
{
    const char *what = kind == SLOT_DISK ? "disk" : "network interface";
    QemuSlot *slot = NULL;

    if (!name_is_valid(name, kind == SLOT_DISK ? SERIAL_MAX : SLOT_NAME_MAX))
        return error_set(e, -EINVAL, "%s \"%.64s\": a name must be 1 to %i letters, digits, '.', '_' or '-'",
                         what, name, kind == SLOT_DISK ? SERIAL_MAX : SLOT_NAME_MAX);
    if (slot_find(q, kind, name))
        return error_set(e, -EEXIST, "%s %s: there is one of that name", what, name);
    for (unsigned i = 0; i < q->n_slots; i++)
        if (q->slots[i].state == SLOT_FREE && (!slot || q->slots[i].freed < slot->freed))
            slot = &q->slots[i];
    if (!slot)
        return error_set(e, -ENOSPC, "%s %s: all %u hot-plug slots of the VM are in use", what, name,
                         q->n_slots);
    slot->kind = kind;
    memcpy(slot->name, name, strlen(name) + 1);
    *ret = slot;
    return 0;
}

static int slot_start_adding(QemuSlot *slot, const char *command, json_t *arguments, int fd, VmmOp *op,
                             Error *e)
{
    int r = slot_call(slot, command, arguments, fd, on_fd_added);

    if (r < 0) {
        slot_release(slot);
        return error_set_errno(e, r, "cannot send a command to QEMU");
    }
    slot->state = SLOT_ADDING_FD;
    vmm_op_keep(op, &slot->op);
    return 0;
}

/* The descriptor that QEMU gets can do what the disk needs and no more: the caller's own may be writable. */
static int open_disk(const VmmDisk *disk, bool *ret_is_device, int *ret_fd, Error *e)
{
    int flags = fcntl(disk->fd, F_GETFL), wanted = disk->read_only ? O_RDONLY : O_RDWR, fd;
    const char *path = disk->path ?: disk->serial;
    struct stat st;
    char proc[64];

    if (flags < 0 || fstat(disk->fd, &st) < 0)
        return error_set_errno(e, -errno, "disk %s", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(e, -EINVAL, "disk %s is neither a file nor a block device", path);
    if (!disk->read_only && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDWR)
        return error_set(e, -EROFS, "disk %s was not opened for writing", path);
    if ((flags & O_ACCMODE) == wanted && !(flags & O_PATH)) {
        fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
    } else {
        snprintf(proc, sizeof(proc), "/proc/self/fd/%i", disk->fd);
        fd = open(proc, wanted | O_CLOEXEC | O_NOCTTY);
    }
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open disk %s", path);
    *ret_is_device = S_ISBLK(st.st_mode);
    *ret_fd = fd;
    return 0;
}

int qemu_add_disk(Vmm *vmm, const VmmDisk *disk, VmmOp *op, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    bool is_device = false;
    QemuSlot *slot;
    int r;

    r = open_disk(disk, &is_device, &fd, e);
    if (r < 0)
        return r;
    r = slot_take(qemu_of(vmm), SLOT_DISK, disk->serial, &slot, e);
    if (r < 0)
        return r;
    slot->read_only = disk->read_only;
    slot->is_device = is_device;
    return slot_start_adding(slot, "add-fd",
                             json_pack("{s:i, s:s}", "fdset-id", names_of(slot).fdset, "opaque", slot->name),
                             fd, op, e);
}

int qemu_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e)
{
    QemuSlot *slot;
    int r;

    if (fcntl(nic->tap_fd, F_GETFD) < 0)
        return error_set_errno(e, -errno, "network interface %s: TAP", id);
    r = slot_take(qemu_of(vmm), SLOT_NIC, id, &slot, e);
    if (r < 0)
        return r;
    memcpy(slot->mac, nic->mac, sizeof(slot->mac));
    return slot_start_adding(slot, "getfd", json_pack("{s:s}", "fdname", names_of(slot).backend), nic->tap_fd,
                             op, e);
}

static int remove_named(Qemu *q, SlotKind kind, const char *name, VmmOp *op, Error *e)
{
    const char *what = kind == SLOT_DISK ? "disk" : "network interface";
    QemuSlot *slot = slot_find(q, kind, name);
    int r;

    if (!slot)
        return error_set(e, -ENOENT, "there is no %s \"%.64s\" in the VM", what, name);
    if (slot->op || (slot->state != SLOT_PRESENT && slot->state != SLOT_REMOVING))
        return error_set(e, -EBUSY, "%s %s is just being added or removed", what, name);
    r = slot_remove(slot);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a command to QEMU");
    vmm_op_keep(op, &slot->op);
    return 0;
}

int qemu_remove_disk(Vmm *vmm, const char *serial, VmmOp *op, Error *e)
{
    return remove_named(qemu_of(vmm), SLOT_DISK, serial, op, e);
}

int qemu_remove_nic(Vmm *vmm, const char *id, VmmOp *op, Error *e)
{
    return remove_named(qemu_of(vmm), SLOT_NIC, id, op, e);
}

/* Events */

/* Takes "d3.SERIAL" apart. What does not match is none of ours. */
static QemuSlot *parse_device(Qemu *q, const char *device, SlotKind *ret_kind, const char **ret_name)
{
    unsigned index;
    char kind, *end;

    kind = device[0];
    if ((kind != 'd' && kind != 'n') || device[1] < '0' || device[1] > '9')
        return NULL;
    index = (unsigned)strtoul(device + 1, &end, 10);
    if (*end != '.' || index >= q->n_slots ||
        !name_is_valid(end + 1, kind == 'd' ? SERIAL_MAX : SLOT_NAME_MAX))
        return NULL;
    *ret_kind = kind == 'd' ? SLOT_DISK : SLOT_NIC;
    *ret_name = end + 1;
    return &q->slots[index];
}

void qemu_slots_on_event(Qemu *q, const char *event, json_t *data)
{
    _cleanup_error_ Error e = ERROR_INIT;
    const char *device = NULL, *name;
    QemuSlot *slot;
    SlotKind kind;

    if (json_get_string(data, "device", event, &device, NULL) <= 0)
        return;
    slot = parse_device(q, device, &kind, &name);
    if (!slot || slot->state == SLOT_FREE || slot->kind != kind || strcmp(slot->name, name) != 0)
        return;
    if (strcmp(event, "DEVICE_DELETED") == 0) {
        if (slot->state == SLOT_PRESENT || slot->state == SLOT_REMOVING)
            slot_device_gone(slot);
        return;
    }
    if (slot->state != SLOT_REMOVING)
        return;
    slot->state = SLOT_PRESENT;
    (void)error_set(&e, -EBUSY, "the guest does not let go of %s %s",
                    kind == SLOT_DISK ? "disk" : "network interface", name);
    qemu_finish(slot->op, &e);
}

/* After a restart */

/* What an owner left half done when it died: back ends without a device. For most there are none. */
static void sweep_slot(QemuSlot *slot)
{
    for (SlotKind kind = SLOT_DISK; kind <= SLOT_NIC; kind++) {
        slot->kind = kind;
        slot_undo(slot, SLOT_PRESENT);
        if (kind == SLOT_NIC)
            slot_undo(slot, SLOT_ADDING_FD);
    }
    slot_release(slot);
}

static void on_listed(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;
    size_t i;
    json_t *item;

    if (e) {
        vmm_boot_failed(&q->vmm, e);
        return;
    }
    json_array_foreach (value, i, item) {
        const char *device = json_string_value(json_object_get(item, "name")), *name;
        QemuSlot *slot;
        SlotKind kind;

        slot = device ? parse_device(q, device, &kind, &name) : NULL;
        if (!slot || slot->state != SLOT_FREE)
            continue;
        slot->state = SLOT_PRESENT;
        slot->kind = kind;
        memcpy(slot->name, name, strlen(name) + 1);
    }
    for (unsigned k = 0; k < q->n_slots; k++)
        if (q->slots[k].state == SLOT_FREE)
            sweep_slot(&q->slots[k]);
    vmm_booted(&q->vmm);
}

int qemu_slots_discover(Qemu *q, Error *e)
{
    int r = qmp_client_call(q->qmp, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), -EBADF,
                            UINT64_MAX, on_listed, q);

    return r < 0 ? error_set_errno(e, r, "cannot ask QEMU for its devices") : 0;
}
