/* SPDX-License-Identifier: MIT */

#include "sandbox/vm-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/sha256.h"
#include "base/trace.h"
#include "sandbox/uid.h"

#define PROTOCOL_VERSION 1
#define ENTROPY_SIZE 64
#define KERNEL_RELEASE_MAX 64
#define KILL_TIMEOUT_USEC (5 * USEC_PER_SEC)

const char *sandbox_phase_name(SandboxPhase phase)
{
    static const char *const names[_SANDBOX_PHASE_MAX] = {
        [SANDBOX_NEW] = "new",         [SANDBOX_BOOTING] = "booting", [SANDBOX_IDENTIFYING] = "booting",
        [SANDBOX_READY] = "ready",     [SANDBOX_RUNNING] = "running", [SANDBOX_ENDED] = "ended",
        [SANDBOX_RELEASING] = "releasing", [SANDBOX_GONE] = "gone",
    };

    return phase < _SANDBOX_PHASE_MAX ? names[phase] : "invalid";
}

void sandbox_key(const char *namespace, const char *sandbox_id, char ret[static SANDBOX_KEY_SIZE])
{
    char hex[SHA256_HEX_SIZE];
    Sha256 s;

    sha256_init(&s);
    sha256_add_string(&s, namespace);
    sha256_add_string(&s, sandbox_id);
    sha256_finish_hex(&s, hex);
    memcpy(ret, hex, SANDBOX_KEY_SIZE - 1);
    ret[SANDBOX_KEY_SIZE - 1] = 0;
}

static bool phase_may_follow(SandboxPhase from, SandboxPhase to)
{
    switch (from) {
    case SANDBOX_NEW:
        return to == SANDBOX_BOOTING || to == SANDBOX_RELEASING || to == SANDBOX_ENDED ||
               to == SANDBOX_IDENTIFYING || to == SANDBOX_RUNNING;
    case SANDBOX_BOOTING:
        return to == SANDBOX_IDENTIFYING || to == SANDBOX_RELEASING;
    case SANDBOX_IDENTIFYING:
        return to == SANDBOX_READY || to == SANDBOX_RUNNING || to == SANDBOX_BOOTING /* another VM */ ||
               to == SANDBOX_RELEASING;
    case SANDBOX_READY:
        return to == SANDBOX_IDENTIFYING || to == SANDBOX_RELEASING;
    case SANDBOX_RUNNING:
        return to == SANDBOX_ENDED || to == SANDBOX_RELEASING;
    case SANDBOX_ENDED:
        return to == SANDBOX_RELEASING;
    case SANDBOX_RELEASING:
        return to == SANDBOX_GONE;
    case SANDBOX_GONE:
    case _SANDBOX_PHASE_MAX:
        break;
    }
    return false;
}

bool sandbox_set_phase(Sandbox *s, SandboxPhase to, const Error *e)
{
    if (!phase_may_follow(s->phase, to))
        return false;
    s->phase = to;
    if (s->callback)
        s->callback(s, to, e, s->userdata);
    return true;
}

int sandbox_write_state(Sandbox *s, Error *e)
{
    return sandbox_state_write(s->settings->state_dir, s->key, &s->state, e);
}

/* -------------------------------------------------------------------------------------------- the end */

/* Removes what was made on the host. Nothing of the VM runs any more. */
static void remove_files(const char *directory, const char *file, uid_t uid)
{
    if (!directory || !file)
        return; /* without memory; the next owner of state_dir does it */
    (void)fs_remove_tree(directory);
    TRACE("daemon.release.directory-removed");
    if (uid != 0)
        uid_give(uid, file);
    TRACE("daemon.release.uid-given-back");
    (void)unlink(file);
    TRACE("daemon.release.state-removed");
}

void sandbox_remove_files(const Sandbox *s)
{
    _cleanup_free_ char *file = state_file_path(s->settings->state_dir, s->key), *directory = NULL;

    directory = sandbox_state_vm_directory(s->settings->state_dir, s->key, &s->state);
    remove_files(directory, file, s->state.uid);
}

static void on_cleanup(LoopSource *source, void *userdata)
{
    Sandbox *s = userdata;

    s->cleanup_defer = loop_source_free(source);
    s->control = ttrpc_client_free(s->control);
    s->vmm = vmm_free(s->vmm);
    sandbox_remove_files(s);
    sandbox_set_phase(s, SANDBOX_GONE, s->boot_error.number ? &s->boot_error : NULL);
}

/* The VMM has ended or there was none: clean up from the loop, since the caller may stand on our objects. */
void sandbox_schedule_cleanup(Sandbox *s)
{
    if (!s->cleanup_defer && loop_add_defer(s->loop, on_cleanup, s, &s->cleanup_defer) < 0)
        on_cleanup(NULL, s);
}

void sandbox_release(Sandbox *s)
{
    if (!sandbox_set_phase(s, SANDBOX_RELEASING, NULL))
        return;
    sandbox_disk_change_abort(s);
    if (s->vmm_ended || !s->vmm || vmm_kill(s->vmm) < 0)
        sandbox_schedule_cleanup(s);
}

void sandbox_boot_failed(Sandbox *s, const Error *e)
{
    if (s->variant && s->variant->failed && s->variant->failed(s, e))
        return;
    if (s->boot_error.number == 0)
        error_set(&s->boot_error, e->number, "%s", error_message(e));
    sandbox_release(s);
}

void sandbox_on_vmm_exit(Vmm *vmm, const VmmExit *exit, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;

    free(s->end_reason);
    s->end_reason = strdup(exit->reason);
    s->vmm_ended = true;
    TRACE("daemon.vmm.exited");
    switch (s->phase) {
    case SANDBOX_NEW: /* it was being taken over */
    case SANDBOX_RUNNING:
        error_set(&e, -ECONNABORTED, "%s", exit->reason);
        sandbox_disk_change_abort(s);
        sandbox_set_phase(s, SANDBOX_ENDED, &e);
        break;
    case SANDBOX_BOOTING:
    case SANDBOX_IDENTIFYING:
    case SANDBOX_READY:
        error_set(&e, -ECONNABORTED, "the VM ended %s: %s",
                  s->phase == SANDBOX_READY ? "before it had a pod" : "while it was booting", exit->reason);
        sandbox_boot_failed(s, &e);
        break;
    case SANDBOX_RELEASING:
        /* What the VMM and the guest had to say belongs to the error of a boot that timed out. */
        if (s->boot_error.number && exit->reason && !strstr(s->boot_error.message ?: "", exit->reason))
            error_set(&s->boot_error, s->boot_error.number, "%s; %s", error_message(&s->boot_error),
                      exit->reason);
        sandbox_schedule_cleanup(s);
        break;
    default:
        break;
    }
}

static int copy_string(char **to, const char *from)
{
    *to = strdup(from);
    return *to ? 0 : -ENOMEM;
}

static int copy_sysctls(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request)
{
    s->sysctls = calloc(request->n_sysctls ?: 1, sizeof(*s->sysctls));
    if (!s->sysctls)
        return -ENOMEM;
    for (size_t i = 0; i < request->n_sysctls; i++) {
        Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry *entry = malloc(sizeof(*entry));

        if (!entry)
            return -ENOMEM;
        cloudhv__agent__v1__identity_request__sysctls_entry__init(entry);
        s->sysctls[s->n_sysctls++] = entry;
        if (copy_string(&entry->key, request->sysctls[i]->key) < 0 ||
            copy_string(&entry->value, request->sysctls[i]->value) < 0)
            return -ENOMEM;
    }
    return 0;
}

static uint64_t realtime_usec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / NSEC_PER_USEC;
}

int sandbox_fill(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const char *source)
{
    const Cloudhv__Daemon__V1__Sizing *sizing = request->sizing;

    s->started_usec = loop_now();
    sandbox_key(request->namespace_, request->sandbox_id, s->key);
    s->state.vcpus = sizing && sizing->vcpus ? sizing->vcpus : s->settings->default_vcpus;
    s->state.memory_mb = sizing && sizing->memory_mb ? sizing->memory_mb : s->settings->default_memory_mb;
    s->state.shim_pid = request->shim_pid;
    s->state.shim_start_time = request->shim_start_time;
    s->state.since_usec = realtime_usec();
    s->state.emulated = s->settings->emulate;
    if (copy_string(&s->state.namespace, request->namespace_) < 0 ||
        copy_string(&s->state.sandbox_id, request->sandbox_id) < 0 ||
        copy_string(&s->state.bundle, request->bundle) < 0 || copy_string(&s->state.source, source) < 0 ||
        copy_string(&s->hostname, request->hostname) < 0 ||
        copy_string(&s->domainname, request->domainname) < 0)
        return -ENOMEM;
    return copy_sysctls(s, request);
}

int sandbox_register(Sandbox *s, Error *e)
{
    const SandboxSettings *settings = s->settings;
    _cleanup_free_ char *file = state_file_path(settings->state_dir, s->key);
    int r;

    if (!file)
        return error_set_errno(e, -ENOMEM, "cannot make a sandbox");
    r = uid_take(settings->uid_base, settings->uid_count, file, &s->state.uid, e);
    if (r < 0)
        return r;
    TRACE("daemon.acquire.uid-taken");
    r = sandbox_write_state(s, e);
    if (r < 0)
        return r;
    TRACE("daemon.acquire.state-written");
    return 0;
}

static int begin(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                 size_t n_tap_fds, Error *e)
{
    SandboxStart start = {.n_nics = n_tap_fds};
    VmmNic nics[8];
    int r;

    r = sandbox_fill(s, request, "cold");
    if (r < 0)
        return error_set_errno(e, r, "cannot make a sandbox");
    r = sandbox_register(s, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n_tap_fds; i++) {
        nics[i].tap_fd = tap_fds[i];
        memcpy(nics[i].mac, request->nics[i]->mac.data, sizeof(nics[i].mac));
    }
    start.nics = nics;
    start.kernel_params = request->sizing ? request->sizing->kernel_params : NULL;
    return sandbox_start(s, &start, e);
}

int sandbox_acquire(Loop *loop, const SandboxSettings *settings,
                    const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                    size_t n_tap_fds, SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e)
{
    Sandbox *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot make a sandbox");
    s->loop = loop;
    s->settings = settings;
    r = begin(s, request, tap_fds, n_tap_fds, e);
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

/* ------------------------------------------------------------------------------------- after a restart */

static void on_adopted(Vmm *vmm, const Error *failure, void *userdata)
{
    /* A VMM whose control socket does not answer still runs its pod; what needs the socket will fail by
     * itself. */
    sandbox_set_phase(userdata, SANDBOX_RUNNING, failure);
}

int sandbox_adopt(Loop *loop, const SandboxSettings *settings, SandboxState *state, SandboxPhaseFn callback,
                  void *userdata, Sandbox **ret, Error *e)
{
    Sandbox *s;
    int r;

    if (!state->running || !state->vmm)
        return error_set(e, -ESRCH, "sandbox %s was not ready yet when its owner ended", state->sandbox_id);
    s = calloc(1, sizeof(*s));
    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot take over sandbox %s", state->sandbox_id);
    s->loop = loop;
    s->settings = settings;
    s->callback = callback;
    s->userdata = userdata;
    sandbox_key(state->namespace, state->sandbox_id, s->key);
    s->directory = sandbox_state_vm_directory(settings->state_dir, s->key, state);
    r = vmm_adopt(loop, state->vmm, on_adopted, sandbox_on_vmm_exit, s, &s->vmm, e);
    if (r < 0) {
        sandbox_free(s);
        return r;
    }
    s->state = *state;
    *state = (SandboxState){0};
    *ret = s;
    return 0;
}

int sandbox_remove_leftover(const char *state_dir, const char *namespace, const char *sandbox_id, Error *e)
{
    _cleanup_free_ char *file = NULL, *directory = NULL;
    _cleanup_sandbox_state_ SandboxState state = {0};
    char key[SANDBOX_KEY_SIZE];
    uid_t uid = 0;
    int r;

    sandbox_key(namespace, sandbox_id, key);
    file = state_file_path(state_dir, key);
    if (!file)
        return error_set_errno(e, -ENOMEM, "cannot remove sandbox %s", sandbox_id);
    /* By the registry, which knows the uid before the state is written and when it can't be read. */
    r = uid_find(file, &uid);
    if (r > 0)
        r = uid_kill(uid, file, KILL_TIMEOUT_USEC);
    if (r < 0)
        return error_set_errno(e, r, "cannot end the VM of sandbox %s (uid %u)", sandbox_id, uid);
    if (uid == 0 && access(file, F_OK) < 0)
        return 0;
    /* Of a VM that was another's before, or by a file that can't be read, the directory has another name. */
    if (sandbox_state_read(state_dir, key, &state, NULL) < 0)
        state.vm = NULL;
    directory = sandbox_state_vm_directory(state_dir, key, &state);
    remove_files(directory, file, uid);
    return 1;
}

/* ---------------------------------------------------------------------------------------------- object */

Sandbox *sandbox_free(Sandbox *s)
{
    if (!s)
        return NULL;
    /* Calls that end here must not start anything any more. */
    s->phase = SANDBOX_GONE;
    s->callback = NULL;
    if (s->variant && s->variant->free)
        s->variant->free(s);
    loop_source_free(s->cleanup_defer);
    sandbox_disk_change_abort(s);
    ttrpc_client_free(s->control);
    vmm_free(s->vmm);
    for (size_t i = 0; i < s->n_sysctls; i++) {
        /* Values that could not be allocated may still be protobuf-c's shared empty string. */
        if (s->sysctls[i]->key != protobuf_c_empty_string)
            free(s->sysctls[i]->key);
        if (s->sysctls[i]->value != protobuf_c_empty_string)
            free(s->sysctls[i]->value);
        free(s->sysctls[i]);
    }
    free(s->sysctls);
    sandbox_state_clear(&s->state);
    error_clear(&s->boot_error);
    free(s->directory);
    free(s->hostname);
    free(s->domainname);
    free(s->end_reason);
    free(s);
    return NULL;
}

SandboxPhase sandbox_get_phase(const Sandbox *s)
{
    return s->phase;
}

const char *sandbox_get_key(const Sandbox *s)
{
    return s->key;
}

const SandboxState *sandbox_get_state(const Sandbox *s)
{
    return &s->state;
}

Vmm *sandbox_get_vmm(const Sandbox *s)
{
    return s->vmm;
}

const char *sandbox_get_end_reason(const Sandbox *s)
{
    return s->end_reason;
}

SandboxTimes sandbox_get_times(const Sandbox *s)
{
    return s->times;
}
