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

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/process.h"
#include "vmm/qemu-args.h"
#include "vmm/qemu-start.h"

/* QEMU's standard error is a memory file that cannot grow beyond this: a guest that provokes messages for
 * ever fills no disk, and it can be read after a restart, through /proc/PID/fd/2. */
#define STDERR_MAX (64 * 1024)
#define LAST_WORDS_MAX 1024

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
    if (qemu_template_ops)
        qemu_template_ops->clear(q);
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
    } else if (qemu_template_ops && strcmp(event, "MIGRATION") == 0) {
        vmm_enter(&q->vmm);
        qemu_template_ops->on_event(q, data);
        vmm_leave(&q->vmm);
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

static int connect_in(Qemu *q, QemuSocket which, int *ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(q->vmm.directory, qemu_socket_names[which]);
    int fd = path ? fd_connect_unix(path) : -ENOMEM;

    if (fd < 0)
        return error_set_errno(e, fd, "cannot connect to %s in %s", qemu_socket_names[which], q->vmm.directory);
    *ret = fd;
    return 0;
}

static int qemu_connect(Qemu *q, Error *e)
{
    int fd, r;

    r = connect_in(q, QEMU_SOCKET_QMP, &fd, e);
    if (r < 0)
        return r;
    r = qmp_client_new(q->vmm.loop, fd, on_event, on_closed, q, &q->qmp);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a QMP connection");
    r = connect_in(q, QEMU_SOCKET_CONSOLE, &fd, e);
    if (r < 0)
        return r;
    r = console_new(q->vmm.loop, fd, &q->console);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the console");
    return 0;
}

static int set_paths(Qemu *q, Error *e)
{
    q->paths[VMM_CHANNEL_CONTROL] = fs_join(q->vmm.directory, qemu_socket_names[QEMU_SOCKET_CONTROL]);
    q->paths[VMM_CHANNEL_TASK] = fs_join(q->vmm.directory, qemu_socket_names[QEMU_SOCKET_TASK]);
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

static int check_supported(const VmmSpec *spec, const char *from, Error *e)
{
    if (spec->max_memory > spec->memory)
        return error_set(e, -EOPNOTSUPP, "VMM driver qemu does not support memory that grows");
    if (spec->max_vcpus > spec->vcpus)
        return error_set(e, -EOPNOTSUPP, "VMM driver qemu does not support vCPUs that are added later");
    if ((from || spec->template_directory) && !qemu_template_ops)
        return error_set(e, -EOPNOTSUPP, "this program makes no templates and no clones");
    if ((from || spec->template_directory) && spec->n_nics > 0)
        return error_set(e, -EINVAL, "a template and its clones start without network interfaces, not %zu",
                         spec->n_nics);
    if (from && spec->template_directory)
        return error_set(e, -EINVAL, "a clone of a template cannot become a template");
    if ((from || spec->template_directory) && qemu_machine_of(spec->binary) == QEMU_VIRT)
        return error_set(e, -EOPNOTSUPP, "VMM driver qemu does not support templates of arm64 guests");
    if (!spec->emulate && qemu_machine_of(spec->binary) != QEMU_MACHINE_OF_HOST)
        return error_set(e, -EOPNOTSUPP, "%s cannot use this host's KVM, it is for another architecture",
                         spec->binary);
    return 0;
}

/* What there is of the VM before its process. */
static int prepare(Qemu *q, const VmmSpec *spec, const char *from, QemuStart *s, Error *e)
{
    unsigned n_slots = qemu_count_slots(spec);
    int r;

    q->machine = qemu_machine_of(spec->binary);
    r = check_supported(spec, from, e);
    if (r >= 0)
        r = set_paths(q, e);
    if (r >= 0)
        r = qemu_slots_new(q, n_slots, e);
    if (r >= 0 && (from || spec->template_directory))
        r = qemu_template_ops->prepare(q, spec, from, &s->state_fd, e);
    if (r >= 0)
        r = qemu_start_build(q, spec, from, s, e);
    return r >= 0 ? make_stderr(q, e) : r;
}

static int qemu_boot(Vmm *vmm, const VmmSpec *spec, const char *template_directory, Error *e)
{
    _cleanup_(qemu_start_clear) QemuStart s = QEMU_START_INIT;
    Qemu *q = qemu_of(vmm);
    int pidfd, r;
    pid_t pid;

    r = prepare(q, spec, template_directory, &s, e);
    if (r < 0)
        return r;
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
    if (template_directory)
        return qemu_template_ops->load(q, e);
    r = qmp_client_call(q->qmp, "query-status", NULL, -EBADF, UINT64_MAX, on_status, q);
    return r < 0 ? error_set_errno(e, r, "cannot talk to QEMU") : 0;
}

/* Restart of the owner */

static int qemu_serialize(Vmm *vmm, json_t *state)
{
    Qemu *q = qemu_of(vmm);

    if (json_object_set_new(state, "slots", json_integer(q->n_slots)) < 0 ||
        json_object_set_new(state, "virt", json_boolean(q->machine == QEMU_VIRT)) < 0)
        return -ENOMEM;
    return 0;
}

static int qemu_adopt(Vmm *vmm, json_t *state, Error *e)
{
    Qemu *q = qemu_of(vmm);
    bool virt = QEMU_MACHINE_OF_HOST == QEMU_VIRT; /* an older release's state has no such key */
    uint64_t n_slots = 0;
    char path[64];
    int r;

    r = json_get_uint(state, "slots", "state of a VM", 0, QEMU_SLOTS_MAX, &n_slots, e);
    if (r >= 0)
        r = json_get_bool(state, "virt", "state of a VM", &virt, e);
    if (r < 0)
        return r;
    q->machine = virt ? QEMU_VIRT : QEMU_Q35;
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

static unsigned qemu_features_of(const Vmm *vmm)
{
    unsigned features = QEMU_FEATURES;

    (void)qemu_features_of_version(qmp_client_version(qemu_of((Vmm *)vmm)->qmp), &features);
    if (qemu_of((Vmm *)vmm)->machine == QEMU_VIRT)
        features &= ~(unsigned)VMM_TEMPLATE;
    return features;
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

static int probe(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e)
{
    if (qemu_template_ops)
        return qemu_template_ops->probe(binary, timeout_usec, ret_features, e);
    *ret_features = QEMU_FEATURES & ~(unsigned)VMM_TEMPLATE;
    return 0;
}

static int snapshot(Vmm *vmm, const char *directory, VmmOp *op, Error *e)
{
    if (qemu_template_ops)
        return qemu_template_ops->snapshot(vmm, directory, op, e);
    return error_set(e, -EOPNOTSUPP, "this program makes no templates");
}

const VmmDriver vmm_driver_qemu = {
    .name = "qemu",
    .size = sizeof(Qemu),
    .features = QEMU_FEATURES,
    .probe = probe,
    .init = qemu_init,
    .boot = qemu_boot,
    .adopt = qemu_adopt,
    .serialize = qemu_serialize,
    .ended = qemu_ended,
    .free = qemu_free,
    .features_of = qemu_features_of,
    .channel = qemu_channel,
    .add_disk = qemu_add_disk,
    .remove_disk = qemu_remove_disk,
    .add_nic = qemu_add_nic,
    .remove_nic = qemu_remove_nic,
    .pause = qemu_pause,
    .resume = qemu_resume,
    .snapshot = snapshot,
};
