/* SPDX-License-Identifier: MIT */
#pragma once

/* What a QEMU is started with. The driver's own. */

#include "vmm/jail.h"
#include "vmm/qemu.h"

typedef enum QemuSocket {
    QEMU_SOCKET_QMP,
    QEMU_SOCKET_CONSOLE,
    QEMU_SOCKET_CONTROL,
    QEMU_SOCKET_TASK,
    _QEMU_SOCKET_MAX,
} QemuSocket;

/* Names in the VM's directory. */
extern const char *const qemu_socket_names[_QEMU_SOCKET_MAX];

typedef struct QemuStart {
    int sockets[_QEMU_SOCKET_MAX];
    int rootfs_fd;
    int state_fd; /* of a clone */
    int *pass;    /* all of them and the TAPs */
    size_t n_pass;
    char **args;
    char *firmware, *memory; /* paths that the jail has */
    Jail jail;
} QemuStart;

#define QEMU_START_INIT                                                                                      \
    ((QemuStart){.sockets = {-EBADF, -EBADF, -EBADF, -EBADF}, .rootfs_fd = -EBADF, .state_fd = -EBADF})

/* Slots for hot-plug that the VM has. */
unsigned qemu_count_slots(const VmmSpec *spec);

/* Makes all of it. `from`: the template's directory that the VM is a clone of, whose state_fd is set already;
 * NULL: it boots. */
int qemu_start_build(Qemu *q, const VmmSpec *spec, const char *from, QemuStart *s, Error *e);
void qemu_start_clear(QemuStart *s);
