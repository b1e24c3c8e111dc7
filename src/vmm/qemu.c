/* SPDX-License-Identifier: MIT */

/* QEMU: the process, its sockets, its end. The sockets are made here and handed over listening: so they exist
 * when QEMU is started, nothing has to be awaited, and QEMU needs no directory at all. */

#include "vmm/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/process.h"
#include "vmm/jail.h"
#include "vmm/qemu-args.h"

/* QEMU's standard error is a memory file that cannot grow beyond this: a guest that provokes messages for
 * ever fills no disk, and it can be read after a restart, through /proc/PID/fd/2. */
#define STDERR_MAX (64 * 1024)
#define LAST_WORDS_MAX 1024
#define KERNEL_IN_JAIL "/vmlinux"

typedef enum Socket {
    SOCKET_QMP,
    SOCKET_CONSOLE,
    SOCKET_CONTROL,
    SOCKET_TASK,
    _SOCKET_MAX,
} Socket;

static const char *const socket_names[_SOCKET_MAX] = {"qmp.sock", "console.sock", "control.sock",
                                                      "task.sock"};

static void qemu_init(Vmm *vmm)
{
    qemu_of(vmm)->stderr_fd = -EBADF;
}

static void qemu_free(Vmm *vmm)
{
    Qemu *q = qemu_of(vmm);

    qmp_client_free(q->qmp);
    console_free(q->console);
    fd_close(q->stderr_fd);
    for (size_t i = 0; i < ELEMENTSOF(q->paths); i++)
        free(q->paths[i]);
    qemu_slots_free(q);
    free(q->shutdown);
}

/* Connections */

static void on_event(QmpClient *client, const char *event, json_t *data, void *userdata)
{
    const char *reason = NULL;
    Qemu *q = userdata;

    if (strcmp(event, "SHUTDOWN") == 0) {
        if (!q->shutdown && json_get_string(data, "reason", event, &reason, NULL) > 0)
            q->shutdown = strndup(reason, 64);
    } else if (strcmp(event, "GUEST_PANICKED") == 0) {
        q->panicked = true;
    } else if (strcmp(event, "DEVICE_DELETED") == 0 || strcmp(event, "DEVICE_UNPLUG_GUEST_ERROR") == 0) {
        vmm_enter(&q->vmm);
        qemu_slots_on_event(q, event, data);
        vmm_leave(&q->vmm);
    }
}

static void on_closed(QmpClient *client, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    /* The rule is that QEMU ends, which says more than this. If it does not, the deadlines do. But one that
     * speaks nonsense is not waited for. */
    if (e->number != -ECONNRESET)
        vmm_boot_failed(&q->vmm, e);
}

static int connect_in(Qemu *q, Socket which, int *ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(q->vmm.directory, socket_names[which]);
    int fd = path ? fd_connect_unix(path) : -ENOMEM;

    if (fd < 0)
        return error_set_errno(e, fd, "cannot connect to %s in %s", socket_names[which], q->vmm.directory);
    *ret = fd;
    return 0;
}

static int qemu_connect(Qemu *q, Error *e)
{
    int fd, r;

    r = connect_in(q, SOCKET_QMP, &fd, e);
    if (r < 0)
        return r;
    r = qmp_client_new(q->vmm.loop, fd, on_event, on_closed, q, &q->qmp);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a QMP connection");
    r = connect_in(q, SOCKET_CONSOLE, &fd, e);
    if (r < 0)
        return r;
    r = console_new(q->vmm.loop, fd, &q->console);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the console");
    return 0;
}

static int set_paths(Qemu *q, Error *e)
{
    q->paths[VMM_CHANNEL_CONTROL] = fs_join(q->vmm.directory, socket_names[SOCKET_CONTROL]);
    q->paths[VMM_CHANNEL_TASK] = fs_join(q->vmm.directory, socket_names[SOCKET_TASK]);
    if (!q->paths[VMM_CHANNEL_CONTROL] || !q->paths[VMM_CHANNEL_TASK])
        return error_set_errno(e, -ENOMEM, "cannot make a VM");
    return 0;
}

/* Start */

static char *read_stderr(Qemu *q)
{
    _cleanup_free_ char *text = malloc(STDERR_MAX);
    ssize_t k;

    if (!text || q->stderr_fd < 0)
        return NULL;
    k = pread(q->stderr_fd, text, STDERR_MAX, 0);
    if (k <= 0)
        return NULL;
    return console_text_tail(text, strnlen(text, (size_t)k), LAST_WORDS_MAX);
}

/* What the process is started with. */
typedef struct Start {
    int sockets[_SOCKET_MAX];
    int rootfs_fd;
    int *pass; /* all of them and the TAPs */
    size_t n_pass;
    char **args;
    Jail jail;
} Start;

static void start_clear(Start *s)
{
    for (size_t i = 0; i < _SOCKET_MAX; i++)
        fd_close(s->sockets[i]);
    fd_close(s->rootfs_fd);
    free(s->pass);
    qemu_args_free(s->args);
}

static uint64_t clock_nsec(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

#if defined(__x86_64__)
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

static int make_sockets(Qemu *q, Start *s, Error *e)
{
    for (size_t i = 0; i < _SOCKET_MAX; i++) {
        _cleanup_free_ char *path = fs_join(q->vmm.directory, socket_names[i]);

        if (!path)
            return error_set_errno(e, -ENOMEM, "cannot make sockets");
        s->sockets[i] = fd_listen_unix(path, 0600);
        if (s->sockets[i] < 0)
            return error_set_errno(e, s->sockets[i], "cannot make the socket %s", path);
    }
    return 0;
}

static int open_rootfs(const char *path, Start *s, bool *ret_is_device, Error *e)
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

static int collect_fds(const VmmSpec *spec, Start *s, int **ret_nics, Error *e)
{
    s->pass = calloc(_SOCKET_MAX + 1 + spec->n_nics, sizeof(*s->pass));
    if (!s->pass)
        return error_set_errno(e, -ENOMEM, "cannot start QEMU");
    for (size_t i = 0; i < _SOCKET_MAX; i++)
        s->pass[s->n_pass++] = s->sockets[i];
    s->pass[s->n_pass++] = s->rootfs_fd;
    *ret_nics = s->pass + s->n_pass;
    for (size_t i = 0; i < spec->n_nics; i++) {
        if (fcntl(spec->nics[i].tap_fd, F_GETFD) < 0)
            return error_set_errno(e, -errno, "network interface %zu: TAP", i);
        s->pass[s->n_pass++] = spec->nics[i].tap_fd;
    }
    return 0;
}

static int fill_jail(const VmmSpec *spec, Start *s, Error *e)
{
    int r;

    r = jail_init(&s->jail, spec->uid, spec->gid, e);
    if (r >= 0 && strchr(spec->binary, '/'))
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->binary}, e);
    if (r >= 0)
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->kernel, .target = KERNEL_IN_JAIL}, e);
    if (r >= 0 && !spec->emulate)
        r = jail_add_device(&s->jail, "/dev/kvm", e);
    return r;
}

/* NICs of a VM that has none are plugged in later, and need a place as well. What the last bridge has beyond
 * that costs nothing, and lets a slot rest before it is used again (qemu-device.c says why). */
static unsigned count_slots(const VmmSpec *spec)
{
    unsigned n = spec->max_hotplug_disks + (spec->n_nics == 0);

    return (n + QEMU_SLOTS_PER_BRIDGE - 1) / QEMU_SLOTS_PER_BRIDGE * QEMU_SLOTS_PER_BRIDGE;
}

static int build_start(Qemu *q, const VmmSpec *spec, Start *s, Error *e)
{
    QemuSetup setup = {.spec = spec, .kernel = KERNEL_IN_JAIL, .n_slots = count_slots(spec)};
    int *nics = NULL, r;

    r = open_rootfs(spec->rootfs, s, &setup.rootfs_is_device, e);
    if (r < 0)
        return r;
    if (access(spec->kernel, R_OK) < 0)
        return error_set_errno(e, -errno, "cannot open the guest kernel %s", spec->kernel);
    if (strchr(spec->binary, '/') && access(spec->binary, X_OK) < 0)
        return error_set_errno(e, -errno, "cannot execute %s", spec->binary);
    r = make_sockets(q, s, e);
    if (r < 0)
        return r;
    r = collect_fds(spec, s, &nics, e);
    if (r < 0)
        return r;
    r = fill_jail(spec, s, e);
    if (r < 0)
        return r;
    setup.qmp_fd = s->sockets[SOCKET_QMP];
    setup.console_fd = s->sockets[SOCKET_CONSOLE];
    setup.control_fd = s->sockets[SOCKET_CONTROL];
    setup.task_fd = s->sockets[SOCKET_TASK];
    setup.rootfs_fd = s->rootfs_fd;
    setup.nic_fds = nics;
    setup.tsc_khz = spec->emulate ? measure_tsc_khz() : 0;
    return qemu_args_build(&setup, &s->args, e);
}

static int make_stderr(Qemu *q, Error *e)
{
    q->stderr_fd = memfd_create("qemu-stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (q->stderr_fd < 0 || ftruncate(q->stderr_fd, STDERR_MAX) < 0 ||
        fcntl(q->stderr_fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return error_set_errno(e, -errno, "cannot make a memory file");
    return 0;
}

static void on_status(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error wrong = ERROR_INIT;
    const char *status = NULL;
    Qemu *q = userdata;

    /* A lost connection: see on_closed(). */
    if (e && e->number == -ECONNRESET)
        return;
    if (!e && json_get_string(value, "status", "query-status", &status, NULL) > 0 &&
        strcmp(status, "running") == 0) {
        vmm_booted(&q->vmm);
        return;
    }
    if (!e)
        (void)error_set(&wrong, -EIO, "QEMU does not run the VM, its state is \"%.64s\"",
                        status ?: "unknown");
    vmm_boot_failed(&q->vmm, e ?: &wrong);
}

static int check_supported(const VmmSpec *spec, Error *e)
{
    if (spec->max_memory > spec->memory)
        return error_set(e, -EOPNOTSUPP, "VMM driver qemu does not support memory that grows");
    if (spec->max_vcpus > spec->vcpus)
        return error_set(e, -EOPNOTSUPP, "VMM driver qemu does not support vCPUs that are added later");
    return 0;
}

static int qemu_boot(Vmm *vmm, const VmmSpec *spec, const char *template_directory, Error *e)
{
    _cleanup_(start_clear) Start s = {.sockets = {-EBADF, -EBADF, -EBADF, -EBADF}, .rootfs_fd = -EBADF};
    Qemu *q = qemu_of(vmm);
    int pidfd, r;
    pid_t pid;

    r = check_supported(spec, e);
    if (r >= 0)
        r = set_paths(q, e);
    if (r >= 0)
        r = qemu_slots_new(q, count_slots(spec), e);
    if (r >= 0)
        r = build_start(q, spec, &s, e);
    if (r >= 0)
        r = make_stderr(q, e);
    if (r >= 0)
        r = process_spawn(&(ProcessSpec){.argv = (const char *const *)s.args,
                                         .stdin_fd = -EBADF,
                                         .stdout_fd = q->stderr_fd,
                                         .stderr_fd = q->stderr_fd,
                                         .pass_fds = s.pass,
                                         .n_pass_fds = s.n_pass,
                                         .prepare = jail_enter,
                                         .userdata = &s.jail},
                          &pid, &pidfd, e);
    if (r < 0) {
        _cleanup_free_ char *said = read_stderr(q);

        if (said && *said)
            (void)error_prefix(e, "%s", said);
        return r;
    }
    r = vmm_process_started(vmm, pid, pidfd, e);
    if (r >= 0)
        r = qemu_connect(q, e);
    if (r < 0)
        return r;
    r = qmp_client_call(q->qmp, "query-status", NULL, -EBADF, UINT64_MAX, on_status, q);
    return r < 0 ? error_set_errno(e, r, "cannot talk to QEMU") : 0;
}

/* Restart of the owner */

static int qemu_serialize(Vmm *vmm, json_t *state)
{
    return json_object_set_new(state, "slots", json_integer(qemu_of(vmm)->n_slots)) < 0 ? -ENOMEM : 0;
}

static int qemu_adopt(Vmm *vmm, json_t *state, Error *e)
{
    Qemu *q = qemu_of(vmm);
    uint64_t n_slots = 0;
    char path[64];
    int r;

    r = json_get_uint(state, "slots", "state of a VM", 0, QEMU_SLOTS_MAX, &n_slots, e);
    if (r < 0)
        return r;
    r = set_paths(q, e);
    if (r >= 0)
        r = qemu_slots_new(q, (unsigned)n_slots, e);
    if (r >= 0)
        r = qemu_connect(q, e);
    if (r < 0)
        return r;
    /* Only for messages. */
    snprintf(path, sizeof(path), "/proc/%i/fd/2", (int)vmm->pid);
    q->stderr_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return qemu_slots_discover(q, e);
}

/* The end */

static const char *describe_shutdown(const Qemu *q)
{
    if (q->panicked)
        return "the guest's kernel panicked";
    if (!q->shutdown)
        return NULL;
    if (strcmp(q->shutdown, "guest-shutdown") == 0)
        return "the guest shut down";
    if (strcmp(q->shutdown, "guest-reset") == 0)
        return "the guest reset itself, as its kernel does after a panic";
    if (strcmp(q->shutdown, "guest-panic") == 0)
        return "the guest's kernel panicked";
    if (strcmp(q->shutdown, "host-signal") == 0)
        return "QEMU was asked to end by a signal";
    return "QEMU ended in order";
}

static void qemu_ended(Vmm *vmm, bool *ret_requested, char **ret_last_words)
{
    _cleanup_free_ char *said = NULL, *console = NULL;
    Qemu *q = qemu_of(vmm);
    const char *shutdown;

    if (q->qmp)
        qmp_client_drain(q->qmp);
    if (q->console) {
        console_drain(q->console);
        console = console_tail(q->console, LAST_WORDS_MAX);
    }
    said = read_stderr(q);
    shutdown = describe_shutdown(q);
    *ret_requested = !q->panicked && q->shutdown && strcmp(q->shutdown, "guest-shutdown") == 0;
    *ret_last_words = string_printf("%s%sits last words: \"%s\"; the guest's console ended: \"%s\"",
                                    shutdown ?: "", shutdown ? "; " : "", said ?: "", console ?: "");
}

/* Operations */

void qemu_finish(VmmOp *op, const Error *e)
{
    if (e && e->number == -ECONNRESET)
        vmm_op_detach(op);
    else
        vmm_op_finish(op, e);
}

static int qemu_channel(Vmm *vmm, VmmChannel channel, VmmChannelAddress *ret)
{
    *ret = (VmmChannelAddress){.serial = true, .path = qemu_of(vmm)->paths[channel]};
    return 0;
}

static void on_state_changed(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    q->state_changing = false;
    qemu_finish(q->state_op, e);
}

static int change_state(Qemu *q, const char *command, VmmOp *op, Error *e)
{
    int r;

    if (q->state_changing)
        return error_set(e, -EBUSY, "it is just being paused or resumed");
    r = qmp_client_call(q->qmp, command, NULL, -EBADF, UINT64_MAX, on_state_changed, q);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a command to QEMU");
    q->state_changing = true;
    vmm_op_keep(op, &q->state_op);
    return 0;
}

static int qemu_pause(Vmm *vmm, VmmOp *op, Error *e)
{
    return change_state(qemu_of(vmm), "stop", op, e);
}

static int qemu_resume(Vmm *vmm, VmmOp *op, Error *e)
{
    return change_state(qemu_of(vmm), "cont", op, e);
}

const VmmDriver vmm_driver_qemu = {
    .name = "qemu",
    .size = sizeof(Qemu),
    .features = VMM_HOTPLUG_DISK | VMM_HOTPLUG_NIC | VMM_PAUSE,
    .init = qemu_init,
    .boot = qemu_boot,
    .adopt = qemu_adopt,
    .serialize = qemu_serialize,
    .ended = qemu_ended,
    .free = qemu_free,
    .channel = qemu_channel,
    .add_disk = qemu_add_disk,
    .remove_disk = qemu_remove_disk,
    .add_nic = qemu_add_nic,
    .remove_nic = qemu_remove_nic,
    .pause = qemu_pause,
    .resume = qemu_resume,
};
