/* SPDX-License-Identifier: MIT */

/* The way of a VM from its start to the pod's identity in it. */

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/trace.h"
#include "sandbox/clones.h"
#include "sandbox/vm-internal.h"

#define PROTOCOL_VERSION 1
#define ENTROPY_SIZE 64
#define KERNEL_RELEASE_MAX 64

void sandbox_run(Sandbox *s)
{
    _cleanup_error_ Error e = ERROR_INIT;

    s->state.running = true;
    if (sandbox_write_state(s, &e) < 0) {
        s->state.running = false;
        sandbox_boot_failed(s, &e);
        return;
    }
    TRACE("daemon.acquire.running");
    sandbox_set_phase(s, SANDBOX_RUNNING, NULL);
}

static void on_identity(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;
    int r = 1;

    if (s->phase != SANDBOX_IDENTIFYING)
        return;
    if (ttrpc_reply_error(reply, "giving the VM its identity", &e) < 0) {
        sandbox_boot_failed(s, &e);
        return;
    }
    s->times.identity = loop_now() - s->started_usec;
    TRACE("daemon.acquire.identity-taken");
    if (s->variant && s->variant->identified)
        r = s->variant->identified(s, &e);
    if (r < 0)
        sandbox_boot_failed(s, &e);
    else if (r > 0)
        sandbox_run(s);
}

/* A machine id must be 32 hexadecimal digits (machine-id(5)); any random 128 bits will do. */
static void machine_id_from(const uint8_t random[static 16], char ret[static 33])
{
    for (int i = 0; i < 16; i++)
        snprintf(ret + 2 * i, 3, "%02x", random[i]);
}

int sandbox_send_identity(Sandbox *s, Error *e)
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
    int r = 1;

    if (s->phase != SANDBOX_IDENTIFYING)
        return;
    if (ttrpc_reply_error(reply, "waiting for the agent in the VM", &e) < 0) {
        sandbox_boot_failed(s, &e);
        return;
    }
    response = (const Cloudhv__Agent__V1__HelloResponse *)reply->response;
    if (response->protocol == 0 || response->protocol > PROTOCOL_VERSION) {
        error_set(&e, -EPROTO, "the agent in the VM speaks protocol %u, but this program speaks %u",
                  response->protocol, PROTOCOL_VERSION);
        sandbox_boot_failed(s, &e);
        return;
    }
    s->times.agent = loop_now() - s->started_usec;
    free(s->state.kernel_release);
    s->state.kernel_release = kernel_release_of(response);
    TRACE("daemon.acquire.agent-answered");
    if (s->variant && s->variant->greeted)
        r = s->variant->greeted(s, &e);
    if (r > 0)
        r = sandbox_send_identity(s, &e);
    if (r < 0)
        sandbox_boot_failed(s, &e);
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

int sandbox_greet(Sandbox *s, Error *e)
{
    Cloudhv__Agent__V1__HelloRequest hello = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    int r = sandbox_open_control(s, e);

    if (r < 0)
        return r;
    hello.protocol = PROTOCOL_VERSION;
    hello.peer = (char *)"daemon";
    r = ttrpc_client_call(s->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Hello",
                                           .request = &hello.base,
                                           .timeout_usec = s->settings->boot_timeout_usec},
                          on_hello, s, NULL);
    return r < 0 ? error_set_errno(e, r, "cannot call the agent in the VM") : 0;
}

static void on_booted(Vmm *vmm, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Sandbox *s = userdata;
    int r;

    /* A boot that failed has no VMM any more whose exit would be told. */
    if (failure)
        s->vmm_ended = true;
    if (s->phase != SANDBOX_BOOTING) { /* released meanwhile */
        if (failure)
            sandbox_schedule_cleanup(s);
        return;
    }
    if (failure) {
        sandbox_boot_failed(s, failure);
        return;
    }
    s->times.vmm = loop_now() - s->started_usec;
    TRACE("daemon.acquire.vmm-running");
    sandbox_set_phase(s, SANDBOX_IDENTIFYING, NULL);
    json_decref(s->state.vmm);
    s->state.vmm = NULL;
    r = vmm_serialize(s->vmm, &s->state.vmm);
    if (r < 0) {
        error_set_errno(&e, r, "cannot describe the VMM");
        sandbox_boot_failed(s, &e);
        return;
    }
    if (sandbox_write_state(s, &e) < 0 || sandbox_greet(s, &e) < 0)
        sandbox_boot_failed(s, &e);
}

static int make_directory(Sandbox *s, Error *e)
{
    int r;

    free(s->directory);
    s->directory = sandbox_state_vm_directory(s->settings->state_dir, s->key, &s->state);
    if (!s->directory)
        return error_set_errno(e, -ENOMEM, "cannot make a directory for the VM");
    r = fs_remove_tree(s->directory);
    if (r >= 0 && mkdir(s->directory, 0700) < 0)
        r = -errno;
    return r < 0 ? error_set_errno(e, r, "cannot make the VM's directory %s", s->directory) : 0;
}

static int start_vmm(Sandbox *s, const SandboxStart *start, Error *e)
{
    const SandboxSettings *settings = s->settings;
    const char *params = start->kernel_params ?: "";
    _cleanup_free_ char *name = NULL, *args = NULL;
    VmmSpec spec;

    name = string_printf("cloudhv-%.12s", s->state.sandbox_id);
    args = string_printf("%s%s%s", settings->kernel_args, params[0] ? " " : "", params);
    if (!name || !args)
        return error_set_errno(e, -ENOMEM, "cannot start a VMM");
    spec = (VmmSpec){
        .name = name,
        .directory = s->directory,
        .binary = settings->vmm_binary,
        .kernel = settings->kernel,
        .rootfs = settings->rootfs,
        .kernel_args = args,
        .vcpus = s->state.vcpus,
        .max_vcpus = s->state.vcpus,
        .memory = s->state.memory_mb << 20,
        .max_memory = s->state.memory_mb << 20,
        .nics = start->nics,
        .n_nics = start->n_nics,
        .max_hotplug_disks = 2 * (settings->max_containers ?: 5),
        .emulate = settings->emulate,
        .uid = s->state.uid,
        .gid = settings->gid,
        .boot_timeout_usec = settings->boot_timeout_usec,
        .timeout_usec = settings->operation_timeout_usec,
    };
    spec.template_directory = start->snapshot_to;
    if (start->restore_from)
        return settings->clones->restore(s->loop, settings->driver, &spec, start->restore_from, on_booted,
                                         sandbox_on_vmm_exit, s, &s->vmm, e);
    return vmm_boot(s->loop, settings->driver, &spec, on_booted, sandbox_on_vmm_exit, s, &s->vmm, e);
}

int sandbox_start(Sandbox *s, const SandboxStart *start, Error *e)
{
    int r = make_directory(s, e);

    if (r < 0)
        return r;
    TRACE("daemon.acquire.directory-made");
    r = start_vmm(s, start, e);
    /* Until the VMM runs, its state file does not name it; should we die, its uid leads to it. */
    if (r >= 0)
        TRACE("daemon.acquire.vmm-spawned");
    return r;
}
