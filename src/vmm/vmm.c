/* SPDX-License-Identifier: MIT */

#include "vmm/vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "vmm/driver.h"

#define TIMEOUT_DEFAULT_USEC (10 * USEC_PER_SEC)
/* How long a process that was sent SIGKILL may take to go; longer, and it hangs in the kernel. */
#define KILL_TIMEOUT_USEC (5 * USEC_PER_SEC)
#define STATE_VERSION 1

const VmmDriver *vmm_driver_by_name(const char *name)
{
    for (size_t i = 0; vmm_drivers[i]; i++)
        if (strcmp(vmm_drivers[i]->name, name) == 0)
            return vmm_drivers[i];
    return NULL;
}

const char *vmm_driver_name(const VmmDriver *driver)
{
    return driver->name;
}

int vmm_probe(const VmmDriver *driver, const char *binary, uint64_t timeout_usec, unsigned *ret_features,
              Error *e)
{
    if (driver->probe)
        return driver->probe(binary, timeout_usec, ret_features, e);
    *ret_features = driver->features;
    return 0;
}

/* Operations */

static VmmOp *op_free(VmmOp *op)
{
    if (op)
        loop_source_free(op->timer);
    free(op);
    return NULL;
}
DEFINE_CLEANUP_FUNC(VmmOp *, op_free)

void vmm_op_detach(VmmOp *op)
{
    if (op && op->slot)
        *op->slot = NULL;
    if (op)
        op->slot = NULL;
}

static void op_unlink(VmmOp *op)
{
    for (VmmOp **p = &op->vmm->ops; *p; p = &(*p)->next)
        if (*p == op) {
            *p = op->next;
            break;
        }
    vmm_op_detach(op);
}

void vmm_op_keep(VmmOp *op, VmmOp **slot)
{
    *slot = op;
    op->slot = slot;
}

void vmm_op_finish(VmmOp *op, const Error *e)
{
    _cleanup_(op_freep) VmmOp *owned = op;

    if (!op)
        return;
    op_unlink(op);
    op->timer = loop_source_free(op->timer);
    if (op->done && !op->vmm->dead)
        op->done(op->vmm, e, op->userdata);
}

static void finish_boot(Vmm *vmm)
{
    _cleanup_error_ Error e = ERROR_INIT;

    (void)error_move(&e, &vmm->boot_error);
    vmm_op_finish(vmm->boot, &e);
}

static void on_deadline(LoopSource *source, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    VmmOp *op = userdata;
    Vmm *vmm = op->vmm;

    vmm_enter(vmm);
    (void)error_set(&e, -ETIMEDOUT, "%s: %s %s took longer than %llu ms", vmm->driver->name, op->what,
                    vmm->name, (unsigned long long)(op->timeout_usec / USEC_PER_MSEC));
    if (op != vmm->boot) {
        vmm_op_finish(op, &e);
    } else if (vmm->boot_error.number == 0) {
        vmm_boot_failed(vmm, &e);
    } else {
        (void)error_prefix(&vmm->boot_error, "process %i was killed and does not go away", (int)vmm->pid);
        finish_boot(vmm);
    }
    vmm_leave(vmm);
}

static int op_new_timeout(Vmm *vmm, const char *what, uint64_t timeout_usec, VmmDoneFn done, void *userdata,
                          VmmOp **ret, Error *e)
{
    _cleanup_(op_freep) VmmOp *op = NULL;
    int r;

    op = calloc(1, sizeof(*op));
    if (!op)
        return error_set_errno(e, -ENOMEM, "%s %s", what, vmm->name);
    op->vmm = vmm;
    op->what = what;
    op->done = done;
    op->userdata = userdata;
    op->timeout_usec = timeout_usec;
    r = loop_add_timer(vmm->loop, timeout_usec, on_deadline, op, &op->timer);
    if (r < 0)
        return error_set_errno(e, r, "%s %s", what, vmm->name);
    op->next = vmm->ops;
    vmm->ops = op;
    *ret = TAKE_PTR(op);
    return 0;
}

static int op_new(Vmm *vmm, const char *what, VmmDoneFn done, void *userdata, VmmOp **ret, Error *e)
{
    return op_new_timeout(vmm, what, vmm->timeout_usec, done, userdata, ret, e);
}

/* Object */

static void vmm_destroy(Vmm *vmm)
{
    /* Before the driver's memory goes, where each has its slot. */
    while (vmm->ops) {
        VmmOp *op = vmm->ops;

        op_unlink(op);
        op_free(op);
    }
    vmm->driver->free(vmm);
    loop_source_free(vmm->exit_watch);
    fd_close(vmm->pidfd);
    error_clear(&vmm->boot_error);
    free(vmm->name);
    free(vmm->directory);
    free(vmm);
}

void vmm_enter(Vmm *vmm)
{
    vmm->busy++;
}

void vmm_leave(Vmm *vmm)
{
    if (--vmm->busy == 0 && vmm->dead)
        vmm_destroy(vmm);
}

Vmm *vmm_free(Vmm *vmm)
{
    if (!vmm)
        return NULL;
    vmm->dead = true;
    if (vmm->busy == 0)
        vmm_destroy(vmm);
    return NULL;
}

static int vmm_new(Loop *loop, const VmmDriver *driver, const char *name, const char *directory,
                   uint64_t timeout_usec, Vmm **ret, Error *e)
{
    _cleanup_(vmm_freep) Vmm *vmm = NULL;

    if (!name || !directory || directory[0] != '/')
        return error_set(e, -EINVAL, "a VM needs a name and a directory with an absolute path");
    vmm = calloc(1, driver->size);
    if (!vmm)
        return error_set_errno(e, -ENOMEM, "cannot make a VM");
    vmm->driver = driver;
    vmm->loop = loop;
    vmm->pidfd = -EBADF;
    driver->init(vmm);
    vmm->timeout_usec = timeout_usec > 0 ? timeout_usec : TIMEOUT_DEFAULT_USEC;
    vmm->name = strdup(name);
    vmm->directory = strdup(directory);
    if (!vmm->name || !vmm->directory)
        return error_set_errno(e, -ENOMEM, "cannot make a VM");
    *ret = TAKE_PTR(vmm);
    return 0;
}

/* The end of the process */

static char *exit_reason(Vmm *vmm, bool status_known, int status, const char *last_words)
{
    _cleanup_free_ char *how = status_known ? process_status_string(status) : NULL;

    return string_printf("VMM of %s (%s, pid %i) ended%s%s%s%s%s", vmm->name, vmm->driver->name,
                         (int)vmm->pid, how ? " with " : "", how ?: "",
                         vmm->kill_requested ? ", as requested" : "", last_words ? "; " : "",
                         last_words ?: "");
}

static void process_ended(Vmm *vmm, VmmExit *ve)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (vmm->boot) {
        if (vmm->boot_error.number == 0)
            (void)error_set(&vmm->boot_error, -ECHILD, "%s", ve->reason);
        else
            (void)error_set(&vmm->boot_error, vmm->boot_error.number, "%s (%s)",
                            error_message(&vmm->boot_error), ve->reason);
        finish_boot(vmm);
        return;
    }
    (void)error_set(&e, -ESRCH, "%s", ve->reason);
    while (vmm->ops && !vmm->dead)
        vmm_op_finish(vmm->ops, &e);
    if (vmm->exited && !vmm->dead)
        vmm->exited(vmm, ve, vmm->userdata);
}

static void on_exit_watch(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    _cleanup_free_ char *reason = NULL, *last_words = NULL;
    Vmm *vmm = userdata;
    VmmExit ve = {0};
    int r;

    vmm->exit_watch = loop_source_free(vmm->exit_watch);
    vmm_enter(vmm);
    r = process_reap(vmm->pidfd, &ve.status);
    ve.status_known = r > 0;
    vmm->ended = true;
    /* May still finish operations with what was answered in time. */
    vmm->driver->ended(vmm, &ve.requested, &last_words);
    ve.requested = ve.requested || vmm->kill_requested;
    reason = exit_reason(vmm, ve.status_known, ve.status, last_words);
    ve.reason = reason ?: "VMM ended";
    if (!vmm->dead)
        process_ended(vmm, &ve);
    vmm_leave(vmm);
}

int vmm_process_started(Vmm *vmm, pid_t pid, int pidfd, Error *e)
{
    int r;

    vmm->pid = pid;
    vmm->pidfd = pidfd;
    r = process_start_time(pid, &vmm->start_time);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the start time of process %i", (int)pid);
    r = loop_add_io(vmm->loop, pidfd, EPOLLIN, on_exit_watch, vmm, &vmm->exit_watch);
    if (r < 0)
        return error_set_errno(e, r, "cannot watch process %i", (int)pid);
    return 0;
}

/* A process that nobody will ever hear of. */
static void discard_process(Vmm *vmm)
{
    siginfo_t si;

    if (vmm->pidfd < 0 || vmm->adopted)
        return;
    (void)process_kill(vmm->pidfd, SIGKILL);
    (void)waitid((idtype_t)P_PIDFD, (id_t)vmm->pidfd, &si, WEXITED);
}

/* Boot */

void vmm_booted(Vmm *vmm)
{
    /* Failed already, and on its way out. */
    if (!vmm->boot || vmm->boot_error.number < 0)
        return;
    vmm_op_finish(vmm->boot, NULL);
}

void vmm_boot_failed(Vmm *vmm, const Error *e)
{
    if (!vmm->boot || vmm->boot_error.number < 0)
        return;
    (void)error_set(&vmm->boot_error, e->number, "cannot %s %s: %s", vmm->adopted ? "take over" : "start",
                    vmm->name, error_message(e));
    if (vmm->adopted) {
        finish_boot(vmm);
        return;
    }
    (void)process_kill(vmm->pidfd, SIGKILL);
    (void)loop_source_set_timer(vmm->boot->timer, KILL_TIMEOUT_USEC);
}

static int vmm_start(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, const char *template_directory,
                     VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret, Error *e)
{
    _cleanup_(vmm_freep) Vmm *vmm = NULL;
    VmmOp *op;
    int r;

    r = vmm_new(loop, driver, spec->name, spec->directory, spec->timeout_usec, &vmm, e);
    if (r < 0)
        return r;
    r = op_new_timeout(vmm, "starting", spec->boot_timeout_usec ?: vmm->timeout_usec, done, userdata, &op, e);
    if (r < 0)
        return r;
    vmm_op_keep(op, &vmm->boot);
    vmm->exited = exited;
    vmm->userdata = userdata;
    r = driver->boot(vmm, spec, template_directory, e);
    if (r < 0) {
        discard_process(vmm);
        (void)error_prefix(e, "cannot start %s", spec->name);
        return r;
    }
    *ret = TAKE_PTR(vmm);
    return 0;
}

static int lacks(const VmmDriver *driver, const char *operation, Error *e)
{
    return error_set(e, -EOPNOTSUPP, "VMM driver %s does not support %s", driver->name, operation);
}

int vmm_boot(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, VmmDoneFn done, VmmExitFn exited,
             void *userdata, Vmm **ret, Error *e)
{
    if (spec->template_directory && !(driver->features & VMM_TEMPLATE))
        return lacks(driver, "templates", e);
    return vmm_start(loop, driver, spec, NULL, done, exited, userdata, ret, e);
}

int vmm_restore(Loop *loop, const VmmDriver *driver, const VmmSpec *spec, const char *directory,
                VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret, Error *e)
{
    if (!(driver->features & VMM_TEMPLATE))
        return lacks(driver, "clones of templates", e);
    return vmm_start(loop, driver, spec, directory, done, exited, userdata, ret, e);
}

/* State file */

int vmm_serialize(Vmm *vmm, json_t **ret)
{
    _cleanup_json_ json_t *state = NULL;
    int r;

    state = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:I}", "version", STATE_VERSION, "driver",
                      vmm->driver->name, "name", vmm->name, "directory", vmm->directory, "pid",
                      (json_int_t)vmm->pid, "start_time", (json_int_t)vmm->start_time, "timeout_usec",
                      (json_int_t)vmm->timeout_usec);
    if (!state)
        return -ENOMEM;
    r = vmm->driver->serialize(vmm, state);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(state);
    return 0;
}

typedef struct State {
    const VmmDriver *driver;
    const char *name, *directory;
    uint64_t pid, start_time, timeout_usec;
} State;

static int read_state(json_t *json, State *ret, Error *e)
{
    static const char what[] = "state of a VM";
    const char *driver = NULL;
    uint64_t version = 0;
    State s = {0};
    int r;

    r = json_get_uint(json, "version", what, 1, STATE_VERSION, &version, e);
    if (r >= 0)
        r = json_get_string(json, "driver", what, &driver, e);
    if (r >= 0)
        r = json_get_string(json, "name", what, &s.name, e);
    if (r >= 0)
        r = json_get_string(json, "directory", what, &s.directory, e);
    if (r >= 0)
        r = json_get_uint(json, "pid", what, 1, INT32_MAX, &s.pid, e);
    if (r >= 0)
        r = json_get_uint(json, "start_time", what, 1, INT64_MAX, &s.start_time, e);
    if (r >= 0)
        r = json_get_uint(json, "timeout_usec", what, 1, INT64_MAX, &s.timeout_usec, e);
    if (r < 0)
        return r;
    if (version == 0 || !driver || s.pid == 0 || s.start_time == 0)
        return error_set(e, -EINVAL, "%s: version, driver, pid or start_time is missing", what);
    s.driver = vmm_driver_by_name(driver);
    if (!s.driver)
        return error_set(e, -EOPNOTSUPP, "%s: there is no VMM driver \"%s\"", what, driver);
    *ret = s;
    return 0;
}

int vmm_adopt(Loop *loop, json_t *state, VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret,
              Error *e)
{
    _cleanup_(vmm_freep) Vmm *vmm = NULL;
    int pidfd, r;
    VmmOp *op;
    State s = {0};

    r = read_state(state, &s, e);
    if (r < 0)
        return r;
    r = vmm_new(loop, s.driver, s.name, s.directory, s.timeout_usec, &vmm, e);
    if (r < 0)
        return r;
    vmm->adopted = true;
    r = process_open((pid_t)s.pid, s.start_time, &pidfd);
    if (r < 0)
        return error_set_errno(e, r, "cannot take over %s: process %i", s.name, (int)s.pid);
    r = vmm_process_started(vmm, (pid_t)s.pid, pidfd, e);
    if (r < 0)
        return r;
    r = op_new(vmm, "taking over", done, userdata, &op, e);
    if (r < 0)
        return r;
    vmm_op_keep(op, &vmm->boot);
    vmm->exited = exited;
    vmm->userdata = userdata;
    r = s.driver->adopt(vmm, state, e);
    if (r < 0) {
        (void)error_prefix(e, "cannot take over %s", s.name);
        return r;
    }
    *ret = TAKE_PTR(vmm);
    return 0;
}

int vmm_kill(Vmm *vmm)
{
    if (vmm->ended)
        return 0;
    vmm->kill_requested = true;
    return process_kill(vmm->pidfd, SIGKILL);
}

/* What there is to know */

unsigned vmm_features(const Vmm *vmm)
{
    return vmm->driver->features_of ? vmm->driver->features_of(vmm) : vmm->driver->features;
}

const char *vmm_warning(const Vmm *vmm)
{
    return vmm->driver->warning ? vmm->driver->warning(vmm) : NULL;
}

pid_t vmm_pid(const Vmm *vmm)
{
    return vmm->pid;
}

uint64_t vmm_start_time(const Vmm *vmm)
{
    return vmm->start_time;
}

const VmmDriver *vmm_driver(const Vmm *vmm)
{
    return vmm->driver;
}

int vmm_channel(const Vmm *vmm, VmmChannel channel, VmmChannelAddress *ret)
{
    if ((unsigned)channel >= _VMM_CHANNEL_MAX)
        return -EINVAL;
    return vmm->driver->channel((Vmm *)vmm, channel, ret);
}

/* Dispatch */

static int begin(Vmm *vmm, bool supported, const char *what, VmmDoneFn done, void *userdata, VmmOp **ret,
                 Error *e)
{
    if (!supported)
        return lacks(vmm->driver, what, e);
    if (vmm->ended)
        return error_set(e, -ESRCH, "%s %s: its VMM has ended", what, vmm->name);
    if (vmm->boot)
        return error_set(e, -EBUSY, "%s %s: the VM does not run yet", what, vmm->name);
    return op_new(vmm, what, done, userdata, ret, e);
}

static int began(VmmOp *op, int r, Error *e)
{
    if (r >= 0)
        return 0;
    (void)error_prefix(e, "%s: %s %s", op->vmm->driver->name, op->what, op->vmm->name);
    op_unlink(op);
    op_free(op);
    return r;
}

#define DISPATCH(member, what, ...)                                                                          \
    ({                                                                                                       \
        VmmOp *_op;                                                                                          \
        int _r = begin(vmm, vmm->driver->member, what, done, userdata, &_op, e);                             \
        _r < 0 ? _r : began(_op, vmm->driver->member(vmm, ##__VA_ARGS__, _op, e), e);                        \
    })

int vmm_add_disk(Vmm *vmm, const VmmDisk *disk, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(add_disk, "adding a disk to", disk);
}

int vmm_remove_disk(Vmm *vmm, const char *serial, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(remove_disk, "removing a disk from", serial);
}

int vmm_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(add_nic, "adding a network interface to", id, nic);
}

int vmm_remove_nic(Vmm *vmm, const char *id, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(remove_nic, "removing a network interface from", id);
}

int vmm_swap_slot(Vmm *vmm, unsigned slot, const VmmDisk *disk, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(swap_slot, "exchanging a disk of", slot, disk);
}

int vmm_pause(Vmm *vmm, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(pause, "pausing");
}

int vmm_resume(Vmm *vmm, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(resume, "resuming");
}

int vmm_resize(Vmm *vmm, unsigned vcpus, uint64_t memory, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(resize, "resizing", vcpus, memory);
}

int vmm_snapshot(Vmm *vmm, const char *directory, VmmDoneFn done, void *userdata, Error *e)
{
    return DISPATCH(snapshot, "saving a template of", directory);
}
