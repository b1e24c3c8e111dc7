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
        [SANDBOX_RUNNING] = "running", [SANDBOX_ENDED] = "ended",     [SANDBOX_RELEASING] = "releasing",
        [SANDBOX_GONE] = "gone",
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
               to == SANDBOX_RUNNING;
    case SANDBOX_BOOTING:
        return to == SANDBOX_IDENTIFYING || to == SANDBOX_RELEASING;
    case SANDBOX_IDENTIFYING:
        return to == SANDBOX_RUNNING || to == SANDBOX_RELEASING;
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

/* The only place where the phase changes. Returns false, and does nothing, for a change that cannot be. */
static bool set_phase(Sandbox *s, SandboxPhase to, const Error *e)
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
static void remove_files(const char *state_dir, const char *key, uid_t uid)
{
    _cleanup_free_ char *directory = state_vm_directory(state_dir, key),
                        *file = state_file_path(state_dir, key);

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

static void on_cleanup(LoopSource *source, void *userdata)
{
    Sandbox *s = userdata;

    s->cleanup_defer = loop_source_free(source);
    s->control = ttrpc_client_free(s->control);
    s->vmm = vmm_free(s->vmm);
    remove_files(s->settings->state_dir, s->key, s->state.uid);
    set_phase(s, SANDBOX_GONE, s->boot_error.number ? &s->boot_error : NULL);
}

/* The VMM has ended or there was none: clean up from the loop, since the caller may stand on our objects. */
static void schedule_cleanup(Sandbox *s)
{
    if (!s->cleanup_defer && loop_add_defer(s->loop, on_cleanup, s, &s->cleanup_defer) < 0)
        on_cleanup(NULL, s);
}

void sandbox_release(Sandbox *s)
{
    if (!set_phase(s, SANDBOX_RELEASING, NULL))
        return;
    sandbox_disk_change_abort(s);
    if (s->vmm_ended || !s->vmm || vmm_kill(s->vmm) < 0)
        schedule_cleanup(s);
}

/* Makes a boot that failed for `e` an error of the acquire, and clears up. */
static void boot_failed(Sandbox *s, const Error *e)
{
    if (s->boot_error.number == 0)
        error_set(&s->boot_error, e->number, "%s", error_message(e));
    sandbox_release(s);
}

static void on_vmm_exit(Vmm *vmm, const VmmExit *exit, void *userdata)
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
        set_phase(s, SANDBOX_ENDED, &e);
        break;
    case SANDBOX_BOOTING:
    case SANDBOX_IDENTIFYING:
        error_set(&e, -ECONNABORTED, "the VM ended while it was booting: %s", exit->reason);
        boot_failed(s, &e);
        break;
    case SANDBOX_RELEASING:
        /* What the VMM and the guest had to say belongs to the error of a boot that timed out. */
        if (s->boot_error.number && exit->reason && !strstr(s->boot_error.message ?: "", exit->reason))
            error_set(&s->boot_error, s->boot_error.number, "%s; %s", error_message(&s->boot_error),
                      exit->reason);
        schedule_cleanup(s);
        break;
    default:
        break;
    }
}

/* --------------------------------------------------------------------------------------- the beginning */

static void on_identity(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;

    if (s->phase != SANDBOX_IDENTIFYING)
        return;
    if (ttrpc_reply_error(reply, "giving the VM its identity", &e) < 0) {
        boot_failed(s, &e);
        return;
    }
    s->times.identity = loop_now() - s->started_usec;
    s->state.running = true;
    TRACE("daemon.acquire.identity-taken");
    if (sandbox_write_state(s, &e) < 0) {
        boot_failed(s, &e);
        return;
    }
    TRACE("daemon.acquire.running");
    set_phase(s, SANDBOX_RUNNING, NULL);
}

/* A machine id must be 32 hexadecimal digits (machine-id(5)); any random 128 bits will do. */
static void machine_id_from(const uint8_t random[static 16], char ret[static 33])
{
    for (int i = 0; i < 16; i++)
        snprintf(ret + 2 * i, 3, "%02x", random[i]);
}

static int send_identity(Sandbox *s, Error *e)
{
    Cloudhv__Agent__V1__IdentityRequest request = CLOUDHV__AGENT__V1__IDENTITY_REQUEST__INIT;
    uint8_t random[ENTROPY_SIZE + 16];
    char machine_id[33];
    struct timespec now;
    int r;

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return error_set_errno(e, -errno, "cannot get random numbers for the VM");
    machine_id_from(random + ENTROPY_SIZE, machine_id);
    clock_gettime(CLOCK_REALTIME, &now);
    request.sandbox_id = s->state.sandbox_id;
    request.hostname = s->hostname;
    request.domainname = s->domainname;
    request.machine_id = machine_id;
    request.entropy = (ProtobufCBinaryData){.data = random, .len = ENTROPY_SIZE};
    request.realtime_nsec = (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
    request.sysctls = s->sysctls;
    request.n_sysctls = s->n_sysctls;
    r = ttrpc_client_call(s->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Identity",
                                           .request = &request.base,
                                           .timeout_usec = s->settings->operation_timeout_usec},
                          on_identity, s, NULL);
    if (r < 0)
        return error_set_errno(e, r, "cannot send the VM its identity");
    return 0;
}

/* What the guest calls its kernel goes into files and messages: short, and printable whatever it sent. */
static char *kernel_release_of(const Cloudhv__Agent__V1__HelloResponse *response)
{
    char *text = strndup(response->kernel_release, KERNEL_RELEASE_MAX);

    for (char *p = text; p && *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    return text;
}

static void on_hello(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Agent__V1__HelloResponse *response;
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;

    if (s->phase != SANDBOX_IDENTIFYING)
        return;
    if (ttrpc_reply_error(reply, "waiting for the agent in the VM", &e) < 0) {
        boot_failed(s, &e);
        return;
    }
    response = (const Cloudhv__Agent__V1__HelloResponse *)reply->response;
    if (response->protocol == 0 || response->protocol > PROTOCOL_VERSION) {
        error_set(&e, -EPROTO, "the agent in the VM speaks protocol %u, but this program speaks %u",
                  response->protocol, PROTOCOL_VERSION);
        boot_failed(s, &e);
        return;
    }
    s->times.agent = loop_now() - s->started_usec;
    s->state.kernel_release = kernel_release_of(response);
    TRACE("daemon.acquire.agent-answered");
    if (send_identity(s, &e) < 0)
        boot_failed(s, &e);
}

int sandbox_open_control(Sandbox *s, Error *e)
{
    VmmChannelAddress address;
    int fd, r;

    r = vmm_channel(s->vmm, VMM_CHANNEL_CONTROL, &address);
    if (r < 0)
        return error_set_errno(e, r, "the VMM has no control channel");
    fd = fd_connect_unix(address.path);
    if (fd < 0)
        return error_set_errno(e, fd, "cannot connect to the VM's control channel %s", address.path);
    if (address.serial)
        r = ttrpc_client_new_serial(s->loop, fd, &s->control);
    else
        r = ttrpc_client_new_vsock(s->loop, fd, address.port, s->settings->boot_timeout_usec, &s->control);
    if (r < 0)
        return error_set_errno(e, r, "cannot use the VM's control channel %s", address.path);
    return 0;
}

static void on_booted(Vmm *vmm, const Error *failure, void *userdata)
{
    Cloudhv__Agent__V1__HelloRequest hello = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;
    int r;

    /* A boot that failed has no VMM any more whose exit would be told. */
    if (failure)
        s->vmm_ended = true;
    if (s->phase != SANDBOX_BOOTING) { /* released meanwhile */
        if (failure)
            schedule_cleanup(s);
        return;
    }
    if (failure) {
        boot_failed(s, failure);
        return;
    }
    s->times.vmm = loop_now() - s->started_usec;
    TRACE("daemon.acquire.vmm-running");
    set_phase(s, SANDBOX_IDENTIFYING, NULL);
    r = vmm_serialize(s->vmm, &s->state.vmm);
    if (r < 0) {
        error_set_errno(&e, r, "cannot describe the VMM");
        boot_failed(s, &e);
        return;
    }
    if (sandbox_write_state(s, &e) < 0 || sandbox_open_control(s, &e) < 0) {
        boot_failed(s, &e);
        return;
    }
    hello.protocol = PROTOCOL_VERSION;
    hello.peer = (char *)"daemon";
    r = ttrpc_client_call(s->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Hello",
                                           .request = &hello.base,
                                           .timeout_usec = s->settings->boot_timeout_usec},
                          on_hello, s, NULL);
    if (r < 0) {
        error_set_errno(&e, r, "cannot call the agent in the VM");
        boot_failed(s, &e);
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

static int fill_from_request(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request)
{
    const Cloudhv__Daemon__V1__Sizing *sizing = request->sizing;

    s->state.vcpus = sizing && sizing->vcpus ? sizing->vcpus : s->settings->default_vcpus;
    s->state.memory_mb = sizing && sizing->memory_mb ? sizing->memory_mb : s->settings->default_memory_mb;
    s->state.shim_pid = request->shim_pid;
    s->state.shim_start_time = request->shim_start_time;
    s->state.since_usec = realtime_usec();
    s->state.emulated = s->settings->emulate;
    if (copy_string(&s->state.namespace, request->namespace_) < 0 ||
        copy_string(&s->state.sandbox_id, request->sandbox_id) < 0 ||
        copy_string(&s->state.bundle, request->bundle) < 0 || copy_string(&s->state.source, "cold") < 0 ||
        copy_string(&s->hostname, request->hostname) < 0 ||
        copy_string(&s->domainname, request->domainname) < 0)
        return -ENOMEM;
    return copy_sysctls(s, request);
}

static int make_directory(Sandbox *s, Error *e)
{
    int r;

    s->directory = state_vm_directory(s->settings->state_dir, s->key);
    if (!s->directory)
        return error_set_errno(e, -ENOMEM, "cannot make a directory for the VM");
    r = fs_remove_tree(s->directory);
    if (r >= 0 && mkdir(s->directory, 0700) < 0)
        r = -errno;
    return r < 0 ? error_set_errno(e, r, "cannot make the VM's directory %s", s->directory) : 0;
}

static int start_vmm(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                     const int *tap_fds, size_t n_tap_fds, Error *e)
{
    const Cloudhv__Daemon__V1__Sizing *sizing = request->sizing;
    _cleanup_free_ char *name = NULL, *args = NULL;
    VmmNic nics[8];
    VmmSpec spec;
    int r;

    for (size_t i = 0; i < n_tap_fds; i++) {
        nics[i].tap_fd = tap_fds[i];
        memcpy(nics[i].mac, request->nics[i]->mac.data, sizeof(nics[i].mac));
    }
    name = string_printf("cloudhv-%.12s", s->state.sandbox_id);
    args = string_printf("%s%s%s", s->settings->kernel_args, sizing && sizing->kernel_params[0] ? " " : "",
                         sizing ? sizing->kernel_params : "");
    if (!name || !args)
        return error_set_errno(e, -ENOMEM, "cannot start a VMM");
    spec = (VmmSpec){
        .name = name,
        .directory = s->directory,
        .binary = s->settings->vmm_binary,
        .kernel = s->settings->kernel,
        .rootfs = s->settings->rootfs,
        .kernel_args = args,
        .vcpus = s->state.vcpus,
        .max_vcpus = s->state.vcpus,
        .memory = s->state.memory_mb << 20,
        .max_memory = s->state.memory_mb << 20,
        .nics = nics,
        .n_nics = n_tap_fds,
        .max_hotplug_disks = 2 * (s->settings->max_containers ?: 5),
        .emulate = s->settings->emulate,
        .uid = s->state.uid,
        .gid = s->settings->gid,
        .boot_timeout_usec = s->settings->boot_timeout_usec,
        .timeout_usec = s->settings->operation_timeout_usec,
    };
    r = vmm_boot(s->loop, s->settings->driver, &spec, on_booted, on_vmm_exit, s, &s->vmm, e);
    /* Until the VMM runs, its state file does not name it; should we die, its uid leads to it. */
    if (r >= 0)
        TRACE("daemon.acquire.vmm-spawned");
    return r;
}

static int begin(Sandbox *s, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, const int *tap_fds,
                 size_t n_tap_fds, Error *e)
{
    const SandboxSettings *settings = s->settings;
    _cleanup_free_ char *file = NULL;
    int r;

    r = fill_from_request(s, request);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a sandbox");
    file = state_file_path(settings->state_dir, s->key);
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
    r = make_directory(s, e);
    if (r < 0)
        return r;
    TRACE("daemon.acquire.directory-made");
    return start_vmm(s, request, tap_fds, n_tap_fds, e);
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
    s->started_usec = loop_now();
    sandbox_key(request->namespace_, request->sandbox_id, s->key);
    r = begin(s, request, tap_fds, n_tap_fds, e);
    if (r < 0) {
        remove_files(settings->state_dir, s->key, s->state.uid);
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
    set_phase(userdata, SANDBOX_RUNNING, failure);
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
    s->directory = state_vm_directory(settings->state_dir, s->key);
    r = vmm_adopt(loop, state->vmm, on_adopted, on_vmm_exit, s, &s->vmm, e);
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
    _cleanup_free_ char *file = NULL;
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
    remove_files(state_dir, key, uid);
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
