/* SPDX-License-Identifier: MIT */

#include "sandbox/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "base/trace.h"
#include "sandbox/uid.h"
#include "sandbox/vm-internal.h"

#define NICS_MAX 8

typedef struct SandboxClone {
    VmmNic nics[NICS_MAX]; /* of our own descriptors */
    size_t n_nics, n_plugged;
    SandboxCloneFailed failed;
    bool booted_instead; /* the clone did not work */
    bool ending;         /* and its VMM is on its way out */
    LoopSource *defer;
} SandboxClone;

static void clone_free(Sandbox *s)
{
    SandboxClone *c = s->clone;

    if (!c)
        return;
    for (size_t i = 0; i < c->n_nics; i++)
        fd_close(c->nics[i].tap_fd);
    loop_source_free(c->defer);
    free(c);
    s->clone = NULL;
}

static int clone_new(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                     size_t n_tap_fds, SandboxCloneFailed failed, Error *e)
{
    SandboxClone *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set_errno(e, -ENOMEM, "cannot make a clone");
    s->clone = c;
    c->failed = failed;
    for (size_t i = 0; i < n_tap_fds && i < NICS_MAX; i++) {
        int fd = fcntl(tap_fds[i], F_DUPFD_CLOEXEC, 3);

        if (fd < 0) {
            int r = error_set_errno(e, -errno, "cannot keep the pod's TAP");

            clone_free(s);
            return r;
        }
        c->nics[c->n_nics].tap_fd = fd;
        memcpy(c->nics[c->n_nics].mac, request->nics[i]->mac.data, sizeof(c->nics[0].mac));
        c->n_nics++;
    }
    return 0;
}

static int copy_string(char **to, const char *from)
{
    free(*to);
    *to = from ? strdup(from) : NULL;
    return !from || *to ? 0 : -ENOMEM;
}

/* --------------------------------------------------------------------------------------- network interfaces */

static int plug_next(Sandbox *s, Error *e);

static void on_plugged(_unused_ Vmm *vmm, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;
    int r;

    if (s->phase != SANDBOX_IDENTIFYING || !s->clone || s->clone->booted_instead)
        return;
    if (failure) {
        sandbox_boot_failed(s, failure);
        return;
    }
    TRACE("daemon.clone.nic-plugged");
    s->clone->n_plugged++;
    r = plug_next(s, &e);
    if (r < 0)
        sandbox_boot_failed(s, &e);
    else if (r > 0)
        sandbox_run(s);
}

/* 1: all of them are there. */
static int plug_next(Sandbox *s, Error *e)
{
    SandboxClone *c = s->clone;
    char id[16];

    if (c->booted_instead || c->n_plugged == c->n_nics)
        return 1;
    snprintf(id, sizeof(id), "nic%zu", c->n_plugged);
    return vmm_add_nic(s->vmm, id, &c->nics[c->n_plugged], on_plugged, s, e);
}

/* ------------------------------------------------------------------------------------ when it does not work */

/* A VM in the clone's place, of which nothing runs any more. */
static int boot_instead(Sandbox *s, Error *e)
{
    SandboxClone *c = s->clone;

    s->control = ttrpc_client_free(s->control);
    s->vmm = vmm_free(s->vmm);
    json_decref(s->state.vmm);
    s->state.vmm = NULL;
    s->vmm_ended = false;
    free(s->end_reason);
    s->end_reason = NULL;
    if (s->directory)
        (void)fs_remove_tree(s->directory);
    c->booted_instead = true;
    c->ending = false;
    if (copy_string(&s->state.source, "cold") < 0 || copy_string(&s->state.template, NULL) < 0 ||
        copy_string(&s->state.vm, NULL) < 0)
        return error_set_errno(e, -ENOMEM, "cannot boot a VM");
    if (sandbox_write_state(s, e) < 0)
        return e->number;
    TRACE("daemon.clone.boots-instead");
    return sandbox_start(s, &(SandboxStart){.nics = c->nics, .n_nics = c->n_nics}, e);
}

static void on_boot_instead(LoopSource *source, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;

    s->clone->defer = loop_source_free(source);
    if (s->phase == SANDBOX_IDENTIFYING)
        sandbox_set_phase(s, SANDBOX_BOOTING, NULL);
    if (s->phase == SANDBOX_BOOTING && boot_instead(s, &e) < 0)
        sandbox_boot_failed(s, &e);
}

static bool clone_failed(Sandbox *s, const Error *e)
{
    SandboxClone *c = s->clone;

    if ((s->phase != SANDBOX_BOOTING && s->phase != SANDBOX_IDENTIFYING) || (c->booted_instead && !c->ending))
        return false;
    if (!c->ending) {
        c->booted_instead = c->ending = true;
        c->failed.callback(s, s->state.template, e, c->failed.userdata);
        if (!s->vmm_ended && s->vmm && vmm_kill(s->vmm) < 0)
            return false;
    }
    if ((s->vmm_ended || !s->vmm) && !c->defer)
        return loop_add_defer(s->loop, on_boot_instead, s, &c->defer) >= 0;
    return true;
}

static const SandboxVariant clone_variant = {
    .identified = plug_next,
    .failed = clone_failed,
    .free = clone_free,
};

/* ------------------------------------------------------------------------------------------- a pod's clone */

static int begin(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                 size_t n_tap_fds, const SandboxOrigin *origin, SandboxCloneFailed failed, Error *e)
{
    _cleanup_error_ Error failure = ERROR_INIT;
    int r;

    r = sandbox_fill(s, request, "template");
    if (r >= 0)
        r = copy_string(&s->state.template, origin->key);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a sandbox");
    r = clone_new(s, request, tap_fds, n_tap_fds, failed, e);
    if (r >= 0)
        r = sandbox_register(s, e);
    if (r < 0)
        return r;
    r = sandbox_start(s, &(SandboxStart){.restore_from = origin->directory}, &failure);
    if (r >= 0)
        return 0;
    failed.callback(s, origin->key, &failure, failed.userdata);
    return boot_instead(s, e);
}

int sandbox_acquire_clone(Loop *loop, const SandboxSettings *settings,
                          const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                          size_t n_tap_fds, const SandboxOrigin *origin, SandboxCloneFailed failed,
                          SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e)
{
    Sandbox *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot make a sandbox");
    s->loop = loop;
    s->settings = settings;
    s->variant = &clone_variant;
    r = begin(s, request, tap_fds, n_tap_fds, origin, failed, e);
    if (r < 0) {
        sandbox_remove_files(s);
        sandbox_free(s);
        return r;
    }
    s->callback = callback;
    s->userdata = userdata;
    s->phase = SANDBOX_BOOTING;
    *ret = s;
    return 0;
}

/* ------------------------------------------------------------------------------------------ without a pod */

static int idle_greeted(Sandbox *s, Error *e)
{
    /* With the kernel's release. */
    if (sandbox_write_state(s, e) < 0)
        return e->number;
    TRACE("daemon.prepare.ready");
    sandbox_set_phase(s, SANDBOX_READY, NULL);
    return 0;
}

static const SandboxVariant idle_variant = {.greeted = idle_greeted};

static int fill_idle(Sandbox *s, const SandboxIdle *idle)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__Sizing sizing = CLOUDHV__DAEMON__V1__SIZING__INIT;
    _cleanup_free_ char *name = NULL;
    uint64_t number;
    int r;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        return -errno;
    /* No pod's: a namespace is never empty. */
    name = string_printf("%s-%016llx", idle->purpose, (unsigned long long)number);
    if (!name)
        return -ENOMEM;
    request.sandbox_id = name;
    request.sizing = &sizing;
    sizing.vcpus = idle->vcpus;
    sizing.memory_mb = idle->memory_mb;
    r = sandbox_fill(s, &request, idle->origin ? "template" : "cold");
    if (r >= 0)
        r = copy_string(&s->state.purpose, idle->purpose);
    if (r >= 0)
        r = copy_string(&s->state.template, idle->origin ? idle->origin->key : NULL);
    return r;
}

int sandbox_prepare(Loop *loop, const SandboxSettings *settings, const SandboxIdle *idle,
                    SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e)
{
    SandboxStart start = {.snapshot_to = idle->snapshot_to,
                          .restore_from = idle->origin ? idle->origin->directory : NULL};
    Sandbox *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot prepare a VM");
    s->loop = loop;
    s->settings = settings;
    s->variant = &idle_variant;
    r = fill_idle(s, idle);
    if (r < 0)
        (void)error_set_errno(e, r, "cannot prepare a VM");
    else
        r = sandbox_register(s, e);
    if (r >= 0)
        r = sandbox_start(s, &start, e);
    if (r < 0) {
        sandbox_remove_files(s);
        sandbox_free(s);
        return r;
    }
    s->callback = callback;
    s->userdata = userdata;
    s->phase = SANDBOX_BOOTING;
    *ret = s;
    return 0;
}

static void on_adopted(_unused_ Vmm *vmm, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;

    if (s->phase != SANDBOX_NEW)
        return;
    if (failure) {
        sandbox_boot_failed(s, failure);
        return;
    }
    sandbox_set_phase(s, SANDBOX_IDENTIFYING, NULL);
    if (s->phase == SANDBOX_IDENTIFYING && sandbox_greet(s, &e) < 0)
        sandbox_boot_failed(s, &e);
}

int sandbox_adopt_idle(Loop *loop, const SandboxSettings *settings, SandboxState *state,
                       SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e)
{
    _cleanup_free_ char *file = NULL;
    Sandbox *s;
    int r;

    if (!state->vmm)
        return error_set(e, -ESRCH, "%s had no VMM yet when its owner ended", state->sandbox_id);
    s = calloc(1, sizeof(*s));
    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot take over %s", state->sandbox_id);
    s->loop = loop;
    s->settings = settings;
    s->variant = &idle_variant;
    s->started_usec = loop_now();
    sandbox_key(state->namespace, state->sandbox_id, s->key);
    s->directory = sandbox_state_vm_directory(settings->state_dir, s->key, state);
    file = state_file_path(settings->state_dir, s->key);
    if (!file || !s->directory)
        r = error_set_errno(e, -ENOMEM, "cannot take over %s", state->sandbox_id);
    else if (!uid_belongs(state->uid, file)) /* a pod was about to get it, and has its uid */
        r = error_set(e, -ESTALE, "%s was being given to a pod when its owner ended", state->sandbox_id);
    else
        r = vmm_adopt(loop, state->vmm, on_adopted, sandbox_on_vmm_exit, s, &s->vmm, e);
    if (r < 0) {
        sandbox_free(s);
        return r;
    }
    s->callback = callback;
    s->userdata = userdata;
    s->state = *state;
    *state = (SandboxState){0};
    *ret = s;
    return 0;
}

/* ------------------------------------------------------------------------------------- from idle to a pod's */

/* The VM's uid and directory become the pod's, step by step so that after a crash at any of them either the VM
 * is still nobody's, or its uid leads to the pod's state file. */
static int take_over_files(Sandbox *s, const char *old_file, Error *e)
{
    _cleanup_free_ char *file = state_file_path(s->settings->state_dir, s->key);
    int r;

    if (!file)
        return error_set_errno(e, -ENOMEM, "cannot give a VM to a pod");
    r = sandbox_write_state(s, e);
    if (r < 0)
        return r;
    TRACE("daemon.assign.state-written");
    r = uid_move(s->state.uid, old_file, file);
    if (r < 0) {
        (void)unlink(file);
        return error_set_errno(e, r, "cannot give a VM's uid %u to a pod", s->state.uid);
    }
    TRACE("daemon.assign.uid-moved");
    (void)unlink(old_file);
    TRACE("daemon.assign.old-state-removed");
    return 0;
}

/* What the state was before, but for what belongs to the VM. */
static void swap_states(Sandbox *s, SandboxState *other)
{
    SandboxState now = s->state;

    s->state = *other;
    *other = now;
}

static int become(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, Error *e)
{
    _cleanup_sandbox_state_ SandboxState old = {0};
    _cleanup_free_ char *old_file = state_file_path(s->settings->state_dir, s->key);
    char old_key[SANDBOX_KEY_SIZE];
    int r = old_file ? 0 : -ENOMEM;

    memcpy(old_key, s->key, sizeof(old_key));
    swap_states(s, &old);
    free(s->hostname);
    free(s->domainname);
    free(s->sysctls); /* there are none */
    s->hostname = s->domainname = NULL;
    s->sysctls = NULL;
    s->times = (SandboxTimes){0};
    if (r >= 0)
        r = sandbox_fill(s, request, "pool");
    if (r >= 0 && (copy_string(&s->state.template, old.template) < 0 ||
                   copy_string(&s->state.vm, old.vm ?: old_key) < 0 ||
                   copy_string(&s->state.kernel_release, old.kernel_release) < 0))
        r = -ENOMEM;
    s->state.uid = old.uid;
    s->state.vcpus = old.vcpus;
    s->state.memory_mb = old.memory_mb;
    s->state.vmm = json_incref(old.vmm);
    if (r < 0)
        (void)error_set_errno(e, r, "cannot give a VM to a pod");
    else
        r = take_over_files(s, old_file, e);
    if (r >= 0)
        return 0;
    swap_states(s, &old);
    memcpy(s->key, old_key, sizeof(old_key));
    return r;
}

int sandbox_assign(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                   size_t n_tap_fds, SandboxCloneFailed failed, SandboxPhaseFn callback, void *userdata,
                   Error *e)
{
    _cleanup_error_ Error failure = ERROR_INIT;
    int r;

    if (s->phase != SANDBOX_READY)
        return error_set(e, -EBUSY, "the VM is %s", sandbox_phase_name(s->phase));
    r = clone_new(s, request, tap_fds, n_tap_fds, failed, e);
    if (r < 0)
        return r;
    r = become(s, request, e);
    if (r < 0) {
        clone_free(s);
        return r;
    }
    s->variant = &clone_variant;
    /* Who is told from here on has no sandbox yet. */
    s->callback = NULL;
    sandbox_set_phase(s, SANDBOX_IDENTIFYING, NULL);
    if (sandbox_send_identity(s, &failure) < 0)
        sandbox_boot_failed(s, &failure);
    s->callback = callback;
    s->userdata = userdata;
    return 0;
}

bool sandbox_vmm_runs(const Sandbox *s)
{
    _cleanup_close_ int pidfd = -EBADF;
    struct pollfd p;

    if (!s->vmm || s->vmm_ended || process_open(vmm_pid(s->vmm), vmm_start_time(s->vmm), &pidfd) < 0)
        return false;
    /* One that has ended and is not reaped yet can still be opened. */
    p = (struct pollfd){.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}
