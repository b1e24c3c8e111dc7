/* SPDX-License-Identifier: MIT */

/* Hot-plug. A device is plugged in three steps (descriptor, back end, device) and unplugged in two (device,
 * once the guest has let go; back end). Each root port is a small state machine that goes on to a clean state
 * even when the caller's deadline has passed: what succeeds too late is undone.
 *
 * Commands of one connection are executed in order, so steps that undo need not wait for each other, and
 * names that depend on the port alone can be used again at once. The names tell a later owner all there is to
 * know: device "d3.SERIAL" is the disk SERIAL in root port 3, "n3.ID" the NIC. */

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

typedef struct PortNames {
    char device[PORT_NAME_MAX + 16], backend[16], bus[16], fdset_path[32];
    int fdset;
} PortNames;

static PortNames names_of(const QemuPort *port)
{
    PortNames n;

    n.fdset = QEMU_FDSET_PORT((int)port->index);
    snprintf(n.device, sizeof(n.device), "%c%u.%s", port->kind == PORT_DISK ? 'd' : 'n', port->index,
             port->name);
    snprintf(n.backend, sizeof(n.backend), "%s%u", port->kind == PORT_DISK ? "disk" : "net", port->index);
    snprintf(n.bus, sizeof(n.bus), "rp%u", port->index);
    snprintf(n.fdset_path, sizeof(n.fdset_path), "/dev/fdset/%i", n.fdset);
    return n;
}

int qemu_ports_new(Qemu *q, unsigned n, Error *e)
{
    if (n > QEMU_PORTS_MAX)
        return error_set(e, -E2BIG, "a VM cannot have %u hot-plug slots: %i at most", n, QEMU_PORTS_MAX);
    q->ports = calloc(n > 0 ? n : 1, sizeof(*q->ports));
    if (!q->ports)
        return error_set_errno(e, -ENOMEM, "cannot make a VM");
    q->n_ports = n;
    for (unsigned i = 0; i < n; i++) {
        q->ports[i].qemu = q;
        q->ports[i].index = i;
    }
    return 0;
}

static void port_release(QemuPort *port)
{
    *port = (QemuPort){.qemu = port->qemu, .index = port->index};
}

/* Frees the port, then ends the operation: the caller's callback may want the port at once. */
static void port_finish_free(QemuPort *port, const Error *e)
{
    VmmOp *op = port->op;

    port_release(port);
    qemu_finish(op, e);
}

static int port_call(QemuPort *port, const char *command, json_t *arguments, int fd, QmpAnswerFn on_answer)
{
    if (!arguments)
        return -ENOMEM;
    return qmp_client_call(port->qemu->qmp, command, arguments, fd, UINT64_MAX, on_answer, port);
}

/* Takes back the steps that `state` comes after. Nobody waits for that: where it fails, there was nothing to
 * take back, or the connection is gone. */
static void port_undo(QemuPort *port, PortState state)
{
    PortNames n = names_of(port);

    if (port->kind == PORT_DISK) {
        if (state > PORT_ADDING_BACKEND)
            (void)port_call(port, "blockdev-del", json_pack("{s:s}", "node-name", n.backend), -EBADF, NULL);
        (void)port_call(port, "remove-fd", json_pack("{s:i}", "fdset-id", n.fdset), -EBADF, NULL);
    } else {
        if (state > PORT_ADDING_BACKEND)
            (void)port_call(port, "netdev_del", json_pack("{s:s}", "id", n.backend), -EBADF, NULL);
        else
            (void)port_call(port, "closefd", json_pack("{s:s}", "fdname", n.backend), -EBADF, NULL);
    }
}

static void port_fail(QemuPort *port, const Error *e)
{
    port_undo(port, port->state);
    port_finish_free(port, e);
}

static void port_fail_errno(QemuPort *port, int number)
{
    _cleanup_error_ Error e = ERROR_INIT;

    (void)error_set_errno(&e, number, "cannot send a command to QEMU");
    port_fail(port, &e);
}

/* Removal */

static void on_backend_removed(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuPort *port = userdata;

    if (port->kind == PORT_DISK)
        (void)port_call(port, "remove-fd", json_pack("{s:i}", "fdset-id", names_of(port).fdset), -EBADF,
                        NULL);
    port_finish_free(port, e);
}

static void port_device_gone(QemuPort *port)
{
    PortNames n = names_of(port);
    int r;

    if (port->state == PORT_REMOVING_BACKEND)
        return;
    port->state = PORT_REMOVING_BACKEND;
    if (port->kind == PORT_DISK)
        r = port_call(port, "blockdev-del", json_pack("{s:s}", "node-name", n.backend), -EBADF,
                      on_backend_removed);
    else
        r = port_call(port, "netdev_del", json_pack("{s:s}", "id", n.backend), -EBADF, on_backend_removed);
    if (r < 0)
        port_fail_errno(port, r);
}

static void on_delete_answered(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuPort *port = userdata;

    if (!e || port->state != PORT_REMOVING)
        return; /* DEVICE_DELETED follows, or was first */
    if (e->number == -ENODEV) {
        port_device_gone(port);
        return;
    }
    /* The guest was asked before, and still may answer. */
    if (strstr(error_message(e), "already in the process of unplug"))
        return;
    port->state = PORT_PRESENT;
    qemu_finish(port->op, e);
}

static int port_remove(QemuPort *port)
{
    int r;

    r = port_call(port, "device_del", json_pack("{s:s}", "id", names_of(port).device), -EBADF,
                  on_delete_answered);
    if (r >= 0)
        port->state = PORT_REMOVING;
    return r;
}

/* Addition */

static void on_device_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuPort *port = userdata;

    if (port->state != PORT_ADDING_DEVICE)
        return;
    if (e) {
        port_fail(port, e);
        return;
    }
    port->state = PORT_PRESENT;
    if (port->op)
        qemu_finish(port->op, NULL);
    else
        (void)port_remove(port); /* too late: the caller was told that it failed */
}

static void on_backend_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuPort *port = userdata;
    PortNames n = names_of(port);
    json_t *arguments;
    char mac[18];
    int r;

    if (e) {
        port_fail(port, e);
        return;
    }
    port->state = PORT_ADDING_DEVICE;
    if (!port->op) {
        port_fail(port, NULL);
        return;
    }
    if (port->kind == PORT_DISK) {
        arguments = json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-blk-pci", "id", n.device,
                              "drive", n.backend, "bus", n.bus, "serial", port->name);
    } else {
        qemu_mac_string(port->mac, mac);
        arguments = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-net-pci", "id", n.device,
                              "netdev", n.backend, "bus", n.bus, "mac", mac, "romfile", "");
    }
    r = port_call(port, "device_add", arguments, -EBADF, on_device_added);
    if (r < 0)
        port_fail_errno(port, r);
}

static json_t *block_node(const QemuPort *port, const PortNames *n)
{
    const char *driver = port->is_device ? "host_device" : "file";

    /* Always raw: what a guest writes must never be read as an image format with a backing file. */
    if (port->read_only)
        return json_pack("{s:s, s:s, s:b, s:{s:s, s:s, s:s, s:b}}", "driver", "raw", "node-name", n->backend,
                         "read-only", 1, "file", "driver", driver, "filename", n->fdset_path, "locking",
                         "off", "read-only", 1);
    return json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s, s:b, s:s}}", "driver", "raw", "node-name", n->backend,
                     "read-only", 0, "discard", "unmap", "file", "driver", driver, "filename", n->fdset_path,
                     "read-only", 0, "discard", "unmap");
}

static void on_fd_added(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    QemuPort *port = userdata;
    PortNames n = names_of(port);
    int r;

    if (e || !port->op) {
        port_fail(port, e);
        return;
    }
    port->state = PORT_ADDING_BACKEND;
    if (port->kind == PORT_DISK)
        r = port_call(port, "blockdev-add", block_node(port, &n), -EBADF, on_backend_added);
    else
        r = port_call(port, "netdev_add",
                      json_pack("{s:s, s:s, s:s}", "type", "tap", "id", n.backend, "fd", n.backend), -EBADF,
                      on_backend_added);
    if (r < 0)
        port_fail_errno(port, r);
}

/* Looking for ports */

static bool name_is_valid(const char *name, size_t max)
{
    size_t n = strlen(name);

    return n > 0 && n <= max &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static QemuPort *port_find(Qemu *q, PortKind kind, const char *name)
{
    for (unsigned i = 0; i < q->n_ports; i++)
        if (q->ports[i].state != PORT_FREE && q->ports[i].kind == kind && strcmp(q->ports[i].name, name) == 0)
            return &q->ports[i];
    return NULL;
}

static int port_take(Qemu *q, PortKind kind, const char *name, QemuPort **ret, Error *e)
{
    const char *what = kind == PORT_DISK ? "disk" : "network interface";

    if (!name_is_valid(name, kind == PORT_DISK ? SERIAL_MAX : PORT_NAME_MAX))
        return error_set(e, -EINVAL, "%s \"%.64s\": a name must be 1 to %i letters, digits, '.', '_' or '-'",
                         what, name, kind == PORT_DISK ? SERIAL_MAX : PORT_NAME_MAX);
    if (port_find(q, kind, name))
        return error_set(e, -EEXIST, "%s %s: there is one of that name", what, name);
    for (unsigned i = 0; i < q->n_ports; i++) {
        QemuPort *port = &q->ports[i];

        if (port->state != PORT_FREE)
            continue;
        port->kind = kind;
        memcpy(port->name, name, strlen(name) + 1);
        *ret = port;
        return 0;
    }
    return error_set(e, -ENOSPC, "%s %s: all %u hot-plug slots of the VM are in use", what, name, q->n_ports);
}

static int port_start_adding(QemuPort *port, const char *command, json_t *arguments, int fd, VmmOp *op,
                             Error *e)
{
    int r = port_call(port, command, arguments, fd, on_fd_added);

    if (r < 0) {
        port_release(port);
        return error_set_errno(e, r, "cannot send a command to QEMU");
    }
    port->state = PORT_ADDING_FD;
    vmm_op_keep(op, &port->op);
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
    QemuPort *port;
    int r;

    r = open_disk(disk, &is_device, &fd, e);
    if (r < 0)
        return r;
    r = port_take(qemu_of(vmm), PORT_DISK, disk->serial, &port, e);
    if (r < 0)
        return r;
    port->read_only = disk->read_only;
    port->is_device = is_device;
    return port_start_adding(port, "add-fd",
                             json_pack("{s:i, s:s}", "fdset-id", names_of(port).fdset, "opaque", port->name),
                             fd, op, e);
}

int qemu_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmOp *op, Error *e)
{
    QemuPort *port;
    int r;

    if (fcntl(nic->tap_fd, F_GETFD) < 0)
        return error_set_errno(e, -errno, "network interface %s: TAP", id);
    r = port_take(qemu_of(vmm), PORT_NIC, id, &port, e);
    if (r < 0)
        return r;
    memcpy(port->mac, nic->mac, sizeof(port->mac));
    return port_start_adding(port, "getfd", json_pack("{s:s}", "fdname", names_of(port).backend), nic->tap_fd,
                             op, e);
}

static int remove_named(Qemu *q, PortKind kind, const char *name, VmmOp *op, Error *e)
{
    const char *what = kind == PORT_DISK ? "disk" : "network interface";
    QemuPort *port = port_find(q, kind, name);
    int r;

    if (!port)
        return error_set(e, -ENOENT, "there is no %s \"%.64s\" in the VM", what, name);
    if (port->op || (port->state != PORT_PRESENT && port->state != PORT_REMOVING))
        return error_set(e, -EBUSY, "%s %s is just being added or removed", what, name);
    r = port_remove(port);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a command to QEMU");
    vmm_op_keep(op, &port->op);
    return 0;
}

int qemu_remove_disk(Vmm *vmm, const char *serial, VmmOp *op, Error *e)
{
    return remove_named(qemu_of(vmm), PORT_DISK, serial, op, e);
}

int qemu_remove_nic(Vmm *vmm, const char *id, VmmOp *op, Error *e)
{
    return remove_named(qemu_of(vmm), PORT_NIC, id, op, e);
}

/* Events */

/* Takes "d3.SERIAL" apart. What does not match is none of ours. */
static QemuPort *parse_device(Qemu *q, const char *device, PortKind *ret_kind, const char **ret_name)
{
    unsigned index;
    char kind, *end;

    kind = device[0];
    if ((kind != 'd' && kind != 'n') || device[1] < '0' || device[1] > '9')
        return NULL;
    index = (unsigned)strtoul(device + 1, &end, 10);
    if (*end != '.' || index >= q->n_ports ||
        !name_is_valid(end + 1, kind == 'd' ? SERIAL_MAX : PORT_NAME_MAX))
        return NULL;
    *ret_kind = kind == 'd' ? PORT_DISK : PORT_NIC;
    *ret_name = end + 1;
    return &q->ports[index];
}

void qemu_ports_on_event(Qemu *q, const char *event, json_t *data)
{
    _cleanup_error_ Error e = ERROR_INIT;
    const char *device = NULL, *name;
    QemuPort *port;
    PortKind kind;

    if (json_get_string(data, "device", event, &device, NULL) <= 0)
        return;
    port = parse_device(q, device, &kind, &name);
    if (!port || port->state == PORT_FREE || port->kind != kind || strcmp(port->name, name) != 0)
        return;
    if (strcmp(event, "DEVICE_DELETED") == 0) {
        if (port->state == PORT_PRESENT || port->state == PORT_REMOVING)
            port_device_gone(port);
        return;
    }
    if (port->state != PORT_REMOVING)
        return;
    port->state = PORT_PRESENT;
    (void)error_set(&e, -EBUSY, "the guest does not let go of %s %s",
                    kind == PORT_DISK ? "disk" : "network interface", name);
    qemu_finish(port->op, &e);
}

/* After a restart */

/* What an owner left half done when it died: back ends without a device. For most there are none. */
static void sweep_port(QemuPort *port)
{
    for (PortKind kind = PORT_DISK; kind <= PORT_NIC; kind++) {
        port->kind = kind;
        port_undo(port, PORT_PRESENT);
        if (kind == PORT_NIC)
            port_undo(port, PORT_ADDING_FD);
    }
    port_release(port);
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
        QemuPort *port;
        PortKind kind;

        port = device ? parse_device(q, device, &kind, &name) : NULL;
        if (!port || port->state != PORT_FREE)
            continue;
        port->state = PORT_PRESENT;
        port->kind = kind;
        memcpy(port->name, name, strlen(name) + 1);
    }
    for (unsigned k = 0; k < q->n_ports; k++)
        if (q->ports[k].state == PORT_FREE)
            sweep_port(&q->ports[k]);
    vmm_booted(&q->vmm);
}

int qemu_ports_discover(Qemu *q, Error *e)
{
    int r = qmp_client_call(q->qmp, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), -EBADF,
                            UINT64_MAX, on_listed, q);

    return r < 0 ? error_set_errno(e, r, "cannot ask QEMU for its devices") : 0;
}
