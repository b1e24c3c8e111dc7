/* SPDX-License-Identifier: MIT */

/* Disks and NICs that come and go. Cloud Hypervisor wants a path for a disk, and the owner has a descriptor: the file
 * is put into the VMM's jail, where the path can mean nothing else, and taken out when the device is gone. */

#include "vmm/ch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/json.h"
#include "vmm/ch-requests.h"
#include "vmm/jail.h"

static bool is_disk(const char *id)
{
    return id[0] == 'd';
}

static const char *what_of(const char *id)
{
    return is_disk(id) ? "disk" : "network interface";
}

static const char *name_of(const ChDevice *device)
{
    return device->id + 2;
}

static void make_id(char kind, const char *name, char ret[static 2 + CH_NAME_MAX + 1])
{
    snprintf(ret, 2 + CH_NAME_MAX + 1, "%c.%s", kind, name);
}

static ChDevice *find(Ch *ch, const char *id)
{
    for (ChDevice *d = ch->devices; d; d = d->next)
        if (!d->gone && strcmp(d->id, id) == 0)
            return d;
    return NULL;
}

static bool name_is_valid(const char *name, size_t max)
{
    size_t n = strlen(name);

    /* No name that is "..", which would mean something as a path. */
    return n > 0 && n <= max && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static ChDevice *device_add(Ch *ch, const char *id, ChDeviceState state)
{
    ChDevice *device = calloc(1, sizeof(*device));

    if (!device)
        return NULL;
    device->ch = ch;
    device->state = state;
    snprintf(device->id, sizeof(device->id), "%s", id);
    device->next = ch->devices;
    ch->devices = device;
    return device;
}

static void device_drop(ChDevice *device)
{
    for (ChDevice **p = &device->ch->devices; *p; p = &(*p)->next)
        if (*p == device) {
            *p = device->next;
            break;
        }
    vmm_op_detach(device->op);
    free(device);
}

void ch_devices_free(Ch *ch)
{
    while (ch->devices)
        device_drop(ch->devices);
}

/* A mount that stays costs a little memory until the VM ends, and is replaced when the serial comes again. */
static void take_out(Ch *ch, const char *serial)
{
    _cleanup_free_ char *target = fs_join(CH_DISKS, serial);

    if (target)
        (void)jail_unplug(ch->vmm.pidfd, target, NULL);
}

/* The device is gone: forgets it, then ends the operation, whose callback may want the name at once. */
static void device_gone(ChDevice *device, const Error *e)
{
    VmmOp *op = device->op;

    /* The operation does not point to us any more when we are freed. */
    vmm_op_detach(op);
    device->op = NULL;
    if (is_disk(device->id))
        take_out(device->ch, name_of(device));
    if (device->request)
        device->gone = true;
    else
        device_drop(device);
    ch_finish(op, e);
}

/* Gives false when the device was gone before the answer came. */
static bool device_answered(ChDevice *device)
{
    device->request = false;
    if (!device->gone)
        return true;
    device_drop(device);
    return false;
}

static int device_request(ChDevice *device, const char *name, json_t *body, int fd, ChAnswerFn on_answer)
{
    int r = ch_put(device->ch, name, body, fd, on_answer, device);

    if (r >= 0)
        device->request = true;
    return r;
}

/* Removal */

static void on_remove_answered(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    ChDevice *device = userdata;

    if (!device_answered(device))
        return;
    if (!e)
        device->asked = true; /* the event device-removed ends it */
    if (!e || e->number == -ECONNRESET)
        return;
    if (e->number == -EREMOTEIO && strstr(error_message(e), "corresponding to the given identifier")) {
        /* The guest was asked before, and still may answer; or the event was lost. */
        if (!device->asked)
            device_gone(device, NULL);
        return;
    }
    device->state = CH_PRESENT;
    ch_finish(device->op, e);
}

static int device_remove(ChDevice *device)
{
    int r = device_request(device, "vm.remove-device", ch_remove_device(device->id), -EBADF, on_remove_answered);

    if (r >= 0)
        device->state = CH_REMOVING;
    return r;
}

void ch_device_removed(Ch *ch, const char *id)
{
    ChDevice *device = find(ch, id);

    /* A guest may let go of what it was not asked for. */
    if (device && device->state != CH_ADDING)
        device_gone(device, NULL);
}

static int remove_named(Ch *ch, char kind, const char *name, VmmOp *op, Error *e)
{
    char id[2 + CH_NAME_MAX + 1];
    ChDevice *device;
    int r;

    make_id(kind, name, id);
    device = strlen(name) <= CH_NAME_MAX ? find(ch, id) : NULL;
    if (!device)
        return error_set(e, -ENOENT, "there is no %s \"%.64s\" in the VM", what_of(id), name);
    if (device->op || device->request)
        return error_set(e, -EBUSY, "%s %s is just being added or removed", what_of(id), name);
    r = device_remove(device);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a request to Cloud Hypervisor");
    vmm_op_keep(op, &device->op);
    return 0;
}

int ch_remove_disk(Vmm *vmm, const char *serial, VmmOp *op, Error *e)
{
    return remove_named(ch_of(vmm), 'd', serial, op, e);
}

int ch_remove_nic(Vmm *vmm, const char *id, VmmOp *op, Error *e)
{
    return remove_named(ch_of(vmm), 'n', id, op, e);
}

/* Addition */

static void on_added(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    ChDevice *device = userdata;

    if (!device_answered(device))
        return;
    if (e) {
        device_gone(device, e);
        return;
    }
    device->state = CH_PRESENT;
    if (device->op)
        ch_finish(device->op, NULL);
    else
        (void)device_remove(device); /* too late: the caller was told that it failed */
}

static int device_new(Ch *ch, char kind, const char *name, ChDevice **ret, Error *e)
{
    size_t max = kind == 'd' ? CH_SERIAL_MAX : CH_NAME_MAX;
    char id[2 + CH_NAME_MAX + 1];

    make_id(kind, name, id);
    if (!name_is_valid(name, max))
        return error_set(e, -EINVAL,
                         "%s \"%.64s\": a name must be 1 to %zu letters, digits, '.', '_' or '-', and begin with "
                         "no '.'",
                         what_of(id), name, max);
    if (find(ch, id))
        return error_set(e, -EEXIST, "%s %s: there is one of that name", what_of(id), name);
    *ret = device_add(ch, id, CH_ADDING);
    return *ret ? 0 : error_set_errno(e, -ENOMEM, "%s %s", what_of(id), name);
}

static int device_start_adding(ChDevice *device, const char *request, json_t *body, int fd, VmmOp *op, Error *e)
{
    int r = device_request(device, request, body, fd, on_added);

    if (r < 0)
        return error_set_errno(e, r, "cannot send a request to Cloud Hypervisor");
    vmm_op_keep(op, &device->op);
    return 0;
}

static int put_in(Ch *ch, const VmmDisk *disk, Error *e)
{
    _cleanup_free_ char *target = fs_join(CH_DISKS, disk->serial);
    const char *path = disk->path ?: disk->serial;
    int flags = fcntl(disk->fd, F_GETFL), r;
    struct stat st;

    if (!target)
        return error_set_errno(e, -ENOMEM, "disk %s", path);
    if (flags < 0 || fstat(disk->fd, &st) < 0)
        return error_set_errno(e, -errno, "disk %s", path);
    if (S_ISBLK(st.st_mode))
        return error_set(e, -EOPNOTSUPP, "disk %s is a block device, which VMM driver cloud-hypervisor does not support",
                         path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, -EINVAL, "disk %s is neither a file nor a block device", path);
    if (!disk->read_only && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDWR)
        return error_set(e, -EROFS, "disk %s was not opened for writing", path);
    r = jail_let_open(disk->fd, !disk->read_only, ch->uid, ch->gid);
    if (r < 0)
        return error_set_errno(e, r, "cannot let the VMM open disk %s", path);
    r = jail_plug(ch->vmm.pidfd, disk->fd, target, !disk->read_only, e);
    if (r < 0)
        (void)error_prefix(e, "disk %s", path);
    return r;
}

int ch_add_disk(Vmm *vmm, const VmmDisk *disk, VmmOp *op, Error *e)
{
    Ch *ch = ch_of(vmm);
    ChDevice *device;
    int r;

    r = device_new(ch, 'd', disk->serial, &device, e);
    if (r < 0)
        return r;
    r = put_in(ch, disk, e);
    if (r >= 0) {
        r = device_start_adding(device, "vm.add-disk", ch_disk_config(device->id, disk->serial, disk->read_only),
                                -EBADF, op, e);
        if (r < 0)
            take_out(ch, disk->serial);
    }
    if (r < 0)
        device_drop(device);
    return r;
}

int ch_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e)
{
    Ch *ch = ch_of(vmm);
    ChDevice *device;
    int r;

    if (fcntl(nic->tap_fd, F_GETFD) < 0)
        return error_set_errno(e, -errno, "network interface %s: TAP", id);
    r = device_new(ch, 'n', id, &device, e);
    if (r < 0)
        return r;
    r = device_start_adding(device, "vm.add-net", ch_net_config(device->id, nic->mac), nic->tap_fd, op, e);
    if (r < 0)
        device_drop(device);
    return r;
}

/* After a restart */

/* What the guest was asked to let go of is in the configuration no more. */
static bool is_configured(json_t *info, const char *id)
{
    json_t *devices = json_object_get(json_object_get(info, "config"), is_disk(id) ? "disks" : "net"), *item;
    size_t i;

    json_array_foreach (devices, i, item) {
        const char *other = json_string_value(json_object_get(item, "id"));

        if (other && strcmp(other, id) == 0)
            return true;
    }
    return false;
}

static bool is_ours(const char *id)
{
    return (id[0] == 'd' && id[1] == '.' && name_is_valid(id + 2, CH_SERIAL_MAX)) ||
           (id[0] == 'n' && id[1] == '.' && name_is_valid(id + 2, CH_NAME_MAX));
}

int ch_devices_discover(Ch *ch, json_t *info, Error *e)
{
    json_t *tree = json_object_get(info, "device_tree"), *value;
    const char *key;

    if (!json_is_object(tree))
        return error_set(e, -EBADMSG, "Cloud Hypervisor does not tell what devices the VM has");
    json_object_foreach (tree, key, value) {
        ChDevice *device;

        if (!is_ours(key) || find(ch, key))
            continue;
        device = device_add(ch, key, CH_PRESENT);
        if (!device)
            return error_set_errno(e, -ENOMEM, "cannot keep the VM's devices");
        device->asked = !is_configured(info, key);
    }
    return 0;
}
