/* SPDX-License-Identifier: MIT */

/* What a QEMU is started with: its sockets, descriptors, command line and jail. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "vmm/qemu-args.h"
#include "vmm/qemu-start.h"
#include "vmm/qemu.h"

#define KERNEL_IN_JAIL "/vmlinux"
#define MEMORY_IN_JAIL "/ram"

const char *const qemu_socket_names[_QEMU_SOCKET_MAX] = {"qmp.sock", "console.sock", "control.sock",
                                                         "task.sock"};

#if defined(__x86_64__)
static uint64_t clock_nsec(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* TSC and clock at one moment: the pair with the least time between of several. */
static void sample_tsc(uint64_t *ret_tsc, uint64_t *ret_nsec)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        uint64_t before = clock_nsec(), tsc = __builtin_ia32_rdtsc(), after = clock_nsec();

        if (after - before < best) {
            best = after - before;
            *ret_tsc = tsc;
            *ret_nsec = before + best / 2;
        }
    }
}

/* The guest of an emulation sees the host's TSC. A millisecond is enough to measure it to 0.1 per mille, and
 * short enough to be spent here; only under emulation, which is for tests. */
static unsigned measure_tsc_khz(void)
{
    uint64_t tsc[2], nsec[2];

    sample_tsc(&tsc[0], &nsec[0]);
    while (clock_nsec() - nsec[0] < 1000000)
        ;
    sample_tsc(&tsc[1], &nsec[1]);
    return (unsigned)((tsc[1] - tsc[0]) * 1000000 / (nsec[1] - nsec[0]));
}
#else
static unsigned measure_tsc_khz(void)
{
    return 0; /* there is none */
}
#endif

static int make_sockets(Qemu *q, QemuStart *s, Error *e)
{
    for (size_t i = 0; i < _QEMU_SOCKET_MAX; i++) {
        _cleanup_free_ char *path = fs_join(q->vmm.directory, qemu_socket_names[i]);

        if (!path)
            return error_set_errno(e, -ENOMEM, "cannot make sockets");
        s->sockets[i] = fd_listen_unix(path, 0600);
        if (s->sockets[i] < 0)
            return error_set_errno(e, s->sockets[i], "cannot make the socket %s", path);
    }
    return 0;
}

static int open_rootfs(const char *path, QemuStart *s, bool *ret_is_device, Error *e)
{
    struct stat st;

    s->rootfs_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (s->rootfs_fd < 0 || fstat(s->rootfs_fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot open the guest's root file system %s", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(e, -EINVAL, "%s is neither a file nor a block device", path);
    *ret_is_device = S_ISBLK(st.st_mode);
    return 0;
}

static int collect_fds(const VmmSpec *spec, QemuStart *s, int **ret_nics, Error *e)
{
    s->pass = calloc(_QEMU_SOCKET_MAX + 2 + spec->n_nics, sizeof(*s->pass));
    if (!s->pass)
        return error_set_errno(e, -ENOMEM, "cannot start QEMU");
    for (size_t i = 0; i < _QEMU_SOCKET_MAX; i++)
        s->pass[s->n_pass++] = s->sockets[i];
    s->pass[s->n_pass++] = s->rootfs_fd;
    if (s->state_fd >= 0)
        s->pass[s->n_pass++] = s->state_fd;
    *ret_nics = s->pass + s->n_pass;
    for (size_t i = 0; i < spec->n_nics; i++) {
        if (fcntl(spec->nics[i].tap_fd, F_GETFD) < 0)
            return error_set_errno(e, -errno, "network interface %zu: TAP", i);
        s->pass[s->n_pass++] = spec->nics[i].tap_fd;
    }
    return 0;
}

/* A QEMU that was built to be moved has its firmware in a directory beside it. */
static int add_binary(const VmmSpec *spec, QemuStart *s, Error *e)
{
    const char *slash = strrchr(spec->binary, '/');
    struct stat st;
    int r;

    if (!slash)
        return 0;
    r = jail_add_file(&s->jail, &(JailFile){.source = spec->binary}, e);
    if (r < 0)
        return r;
    s->firmware = string_printf("%.*s/qemu", (int)(slash - spec->binary), spec->binary);
    if (!s->firmware)
        return error_set_errno(e, -ENOMEM, "cannot start QEMU");
    if (stat(s->firmware, &st) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    return jail_add_file(&s->jail, &(JailFile){.source = s->firmware}, e);
}

/* QEMU opens the memory by its name, so this is a file that it sees: a clone's cannot be written there
 * whatever its mode, and whoever has the mount. */
static int add_memory(const VmmSpec *spec, const char *from, QemuStart *s, Error *e)
{
    const char *directory = from ?: spec->template_directory;

    if (!directory)
        return 0;
    s->memory = qemu_template_memory_path(directory);
    if (!s->memory)
        return error_set_errno(e, -ENOMEM, "cannot start QEMU");
    return jail_add_file(
        &s->jail, &(JailFile){.source = s->memory, .target = MEMORY_IN_JAIL, .writable = !from}, e);
}

static int fill_jail(const VmmSpec *spec, const char *from, QemuStart *s, Error *e)
{
    int r;

    r = jail_init(&s->jail, spec->uid, spec->gid, e);
    if (r >= 0)
        r = add_binary(spec, s, e);
    if (r >= 0 && !from)
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->kernel, .target = KERNEL_IN_JAIL}, e);
    if (r >= 0)
        r = add_memory(spec, from, s, e);
    if (r >= 0 && !spec->emulate)
        r = jail_add_device(&s->jail, "/dev/kvm", e);
    return r;
}

/* NICs of a VM that has none are plugged in later, and need a place as well. What the last bridge has beyond
 * that costs nothing, and lets a slot rest before it is used again (qemu-device.c says why). */
unsigned qemu_count_slots(const VmmSpec *spec)
{
    unsigned n = spec->max_hotplug_disks + (spec->n_nics == 0);
    unsigned per_port = qemu_slots_per_port(qemu_machine_of(spec->binary));

    return (n + per_port - 1) / per_port * per_port;
}

static int check_files(const VmmSpec *spec, const char *from, Error *e)
{
    if (!from && access(spec->kernel, R_OK) < 0)
        return error_set_errno(e, -errno, "cannot open the guest kernel %s", spec->kernel);
    if (strchr(spec->binary, '/') && access(spec->binary, X_OK) < 0)
        return error_set_errno(e, -errno, "cannot execute %s", spec->binary);
    return 0;
}

int qemu_start_build(Qemu *q, const VmmSpec *spec, const char *from, QemuStart *s, Error *e)
{
    QemuSetup setup = {.spec = spec,
                       .machine = q->machine,
                       .kernel = KERNEL_IN_JAIL,
                       .n_slots = qemu_count_slots(spec),
                       .memory = from                       ? QEMU_MEMORY_PRIVATE
                                 : spec->template_directory ? QEMU_MEMORY_FILE
                                                            : QEMU_MEMORY_ANONYMOUS,
                       .memory_path = MEMORY_IN_JAIL,
                       .incoming = from};
    int *nics = NULL, r;

    r = open_rootfs(spec->rootfs, s, &setup.rootfs_is_device, e);
    if (r >= 0)
        r = check_files(spec, from, e);
    if (r >= 0)
        r = make_sockets(q, s, e);
    if (r >= 0)
        r = collect_fds(spec, s, &nics, e);
    if (r >= 0)
        r = fill_jail(spec, from, s, e);
    if (r < 0)
        return r;
    setup.qmp_fd = s->sockets[QEMU_SOCKET_QMP];
    setup.console_fd = s->sockets[QEMU_SOCKET_CONSOLE];
    setup.control_fd = s->sockets[QEMU_SOCKET_CONTROL];
    setup.task_fd = s->sockets[QEMU_SOCKET_TASK];
    setup.rootfs_fd = s->rootfs_fd;
    setup.state_fd = s->state_fd;
    setup.nic_fds = nics;
    setup.tsc_khz = spec->emulate && !from && q->machine == QEMU_Q35 ? measure_tsc_khz() : 0;
    return qemu_args_build(&setup, &s->args, e);
}

void qemu_start_clear(QemuStart *s)
{
    for (size_t i = 0; i < _QEMU_SOCKET_MAX; i++)
        fd_close(s->sockets[i]);
    fd_close(s->rootfs_fd);
    fd_close(s->state_fd);
    free(s->pass);
    free(s->firmware);
    free(s->memory);
    qemu_args_free(s->args);
}
