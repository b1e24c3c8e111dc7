/* SPDX-License-Identifier: MIT */

#include "agent/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"

enum {
    PORT_NAME_MAX = 256,
    VSOCK_BACKLOG = 8,
};

typedef struct Port {
    const char *name;
    TtrpcServer *server;
    bool open;
    int vsock_fd;
    LoopSource *vsock_source;
} Port;

struct Ports {
    UeventSubscription *subscription;
    Port list[2];
    int ready_fd;
    LoopSource *ready_source;
};

int port_find(const char *sysfs_ports, const char *name, char **ret_device)
{
    _cleanup_closedir_ DIR *dir = opendir(sysfs_ports);
    struct dirent *de;

    if (!dir)
        return -errno;
    while ((errno = 0, de = readdir(dir))) {
        _cleanup_free_ char *path = NULL, *text = NULL;

        if (de->d_name[0] == '.')
            continue;
        path = string_printf("%s/%s/name", sysfs_ports, de->d_name);
        if (!path)
            return -ENOMEM;
        if (fs_read_file(path, PORT_NAME_MAX, &text, NULL) < 0)
            continue; /* a port gets its name after it appeared */
        text[strcspn(text, "\n")] = 0;
        if (strcmp(text, name) != 0)
            continue;
        *ret_device = strdup(de->d_name);
        return *ret_device ? 0 : -ENOMEM;
    }
    return errno ? -errno : -ENOENT;
}

static int port_open(Port *port)
{
    _cleanup_free_ char *device = NULL, *path = NULL;
    int fd, r;

    r = port_find("/sys/class/virtio-ports", port->name, &device);
    if (r < 0)
        return r;
    path = fs_join("/dev", device);
    if (!path)
        return -ENOMEM;
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -errno;
    return ttrpc_server_add_serial(port->server, fd);
}

static void on_ports(void *userdata)
{
    Ports *ports = userdata;
    bool all = true;

    for (size_t i = 0; i < ELEMENTSOF(ports->list); i++) {
        Port *port = &ports->list[i];
        int r = port->open ? 0 : port_open(port);

        /* ENXIO and ENODEV: the port is about to be ready, or to go; an event tells. */
        if (r >= 0)
            port->open = true;
        else if (r != -ENOENT && r != -ENXIO && r != -ENODEV)
            log_error_errno(r, "cannot serve the port %s", port->name);
        all = all && port->open;
    }
    if (all)
        ports->subscription = uevent_unsubscribe(ports->subscription);
}

static void on_vsock(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    struct sockaddr_vm peer = {0};
    socklen_t size = sizeof(peer);
    Port *port = userdata;
    int connection;

    connection = accept4(fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0)
        return;
    /* Containers can make vsock sockets too, where the machine has a loopback. */
    if (peer.svm_cid != VMADDR_CID_HOST) {
        log_warning("refusing a connection to %s from the context %u", port->name, peer.svm_cid);
        close(connection);
        return;
    }
    (void)ttrpc_server_add_connection(port->server, connection);
}

static int port_listen_vsock(Loop *loop, Port *port, unsigned number)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = number};
    _cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, VSOCK_BACKLOG) < 0)
        return -errno;
    r = loop_add_io(loop, fd, EPOLLIN, on_vsock, port, &port->vsock_source);
    if (r < 0)
        return r;
    port->vsock_fd = TAKE_FD(fd);
    return 0;
}

static void on_ready(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Ports *ports = userdata;

    /* Made or refused: the host knows, or did not ask. */
    ports->ready_source = loop_source_free(source);
    ports->ready_fd = fd_close(ports->ready_fd);
}

static int say_ready(Loop *loop, Ports *ports)
{
    struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = PORTS_READY_VSOCK};

    ports->ready_fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ports->ready_fd < 0)
        return -errno;
    if (connect(ports->ready_fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS)
        return -errno;
    return loop_add_io(loop, ports->ready_fd, EPOLLOUT, on_ready, ports, &ports->ready_source);
}

/* Whether the machine has a vsock device, and not only the kernel the protocol. */
static bool vsock_is_there(void)
{
    _cleanup_close_ int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    unsigned cid = VMADDR_CID_ANY;

    return fd >= 0 && ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) >= 0 && cid != VMADDR_CID_ANY &&
           cid != VMADDR_CID_LOCAL;
}

int ports_new(Loop *loop, UeventMonitor *monitor, TtrpcServer *control, TtrpcServer *task, Ports **ret, Error *e)
{
    _cleanup_(ports_freep) Ports *ports = calloc(1, sizeof(*ports));
    int r;

    if (!ports)
        return error_set(e, -ENOMEM, "out of memory");
    ports->ready_fd = -EBADF;
    ports->list[0] = (Port){.name = PORTS_CONTROL_NAME, .server = control, .vsock_fd = -EBADF};
    ports->list[1] = (Port){.name = PORTS_TASK_NAME, .server = task, .vsock_fd = -EBADF};
    if (vsock_is_there()) {
        r = port_listen_vsock(loop, &ports->list[0], PORTS_CONTROL_VSOCK);
        if (r >= 0)
            r = port_listen_vsock(loop, &ports->list[1], PORTS_TASK_VSOCK);
        if (r >= 0)
            r = say_ready(loop, ports);
        if (r < 0)
            return error_set_errno(e, r, "cannot listen on vsock");
    }
    r = uevent_subscribe(monitor, "virtio-ports", on_ports, ports, &ports->subscription);
    if (r < 0)
        return error_set_errno(e, r, "cannot watch for ports");
    on_ports(ports);
    *ret = TAKE_PTR(ports);
    return 0;
}

Ports *ports_free(Ports *ports)
{
    if (!ports)
        return NULL;
    uevent_unsubscribe(ports->subscription);
    loop_source_free(ports->ready_source);
    fd_close(ports->ready_fd);
    for (size_t i = 0; i < ELEMENTSOF(ports->list); i++) {
        loop_source_free(ports->list[i].vsock_source);
        fd_close(ports->list[i].vsock_fd);
    }
    free(ports);
    return NULL;
}
