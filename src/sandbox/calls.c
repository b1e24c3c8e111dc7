/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/trace.h"
#include "sandbox/clones.h"

#define PROTOCOL_VERSION 1
#define NICS_MAX 8
#define SERIAL_MAX 20
#define DISKS_MAX 16
#define ID_MAX 76

/* Ids name files and devices, so only what containerd allows in them (identifiers.Validate) is taken. */
static bool id_is_valid(const char *id)
{
    size_t n = strlen(id);
    bool separator = true; /* none at the beginning, at the end, or next to another */

    if (n == 0 || n > ID_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool alphanumeric = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'A' && id[i] <= 'Z') ||
                            (id[i] >= 'a' && id[i] <= 'z');

        if (!alphanumeric && (separator || !strchr("._-", id[i])))
            return false;
        separator = !alphanumeric;
    }
    return !separator;
}

static bool check_ids(TtrpcCall *call, const char *namespace, const char *sandbox_id,
                      const char *container_id)
{
    const char *bad = NULL, *what = NULL;

    if (!id_is_valid(namespace)) {
        bad = namespace;
        what = "namespace";
    } else if (!id_is_valid(sandbox_id)) {
        bad = sandbox_id;
        what = "sandbox id";
    } else if (container_id && !id_is_valid(container_id)) {
        bad = container_id;
        what = "container id";
    }
    if (!bad)
        return true;
    ttrpc_call_fail(call, TTRPC_INVALID_ARGUMENT,
                    "\"%.100s\" is not a valid %s: letters and digits, with single '.', '_' or '-' between, "
                    "at most %i characters",
                    bad, what, ID_MAX);
    return false;
}

static Entry *find_running(TtrpcCall *call, SandboxService *service, const char *namespace,
                           const char *sandbox_id)
{
    Entry *entry = service_find(service, namespace, sandbox_id);

    if (entry)
        return entry;
    ttrpc_call_fail(call, TTRPC_NOT_FOUND, "there is no sandbox %s in namespace %s", sandbox_id, namespace);
    return NULL;
}

static void handle_hello(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__HelloRequest *request = (const Cloudhv__Daemon__V1__HelloRequest *)message;
    Cloudhv__Daemon__V1__HelloResponse response = CLOUDHV__DAEMON__V1__HELLO_RESPONSE__INIT;

    if (request->protocol == 0) {
        ttrpc_call_fail(call, TTRPC_INVALID_ARGUMENT, "Hello without a protocol version");
        return;
    }
    response.protocol = request->protocol < PROTOCOL_VERSION ? request->protocol : PROTOCOL_VERSION;
    response.daemon_version = (char *)CLOUDHV_VERSION;
    ttrpc_call_reply(call, &response.base);
}

/* ------------------------------------------------------------------------------------- acquire, release */

static size_t fill_phases(SandboxTimes times, Cloudhv__Daemon__V1__Phase phases[static 3])
{
    const struct {
        const char *name;
        uint64_t usec;
    } all[] = {{"vmm", times.vmm}, {"agent", times.agent}, {"identity", times.identity}};

    for (size_t i = 0; i < ELEMENTSOF(all); i++) {
        cloudhv__daemon__v1__phase__init(&phases[i]);
        phases[i].name = (char *)all[i].name;
        phases[i].usec = all[i].usec;
    }
    return ELEMENTSOF(all);
}

static size_t fill_features(unsigned features, char *names[static 9])
{
    static const struct {
        VmmFeature feature;
        const char *name;
    } known[] = {
        {VMM_HOTPLUG_DISK, "hotplug-disk"},
        {VMM_HOTPLUG_NIC, "hotplug-nic"},
        {VMM_HOTPLUG_CPU, "hotplug-cpu"},
        {VMM_HOTPLUG_MEMORY, "hotplug-memory"},
        {VMM_PAUSE, "pause"},
        {VMM_TEMPLATE, "template"},
        {VMM_SLOT_SWAP, "slot-swap"},
        {VMM_TPM, "tpm"},
        {VMM_PMEM, "pmem"},
    };
    size_t n = 0;

    for (size_t i = 0; i < ELEMENTSOF(known); i++)
        if (features & known[i].feature)
            names[n++] = (char *)known[i].name;
    return n;
}

void service_answer_acquire(Entry *entry, TtrpcCall *call, bool existed)
{
    Cloudhv__Daemon__V1__AcquireSandboxResponse response =
        CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_RESPONSE__INIT;
    Cloudhv__Daemon__V1__Channel channel = CLOUDHV__DAEMON__V1__CHANNEL__INIT;
    Cloudhv__Daemon__V1__Phase phases[3], *phase_pointers[3];
    const SandboxState *state = sandbox_get_state(entry->sandbox);
    Vmm *vmm = sandbox_get_vmm(entry->sandbox);
    VmmChannelAddress address;
    char *features[9];

    if (!vmm || vmm_channel(vmm, VMM_CHANNEL_TASK, &address) < 0) {
        ttrpc_call_fail(call, TTRPC_INTERNAL, "the VM of sandbox %s has no task channel", state->sandbox_id);
        return;
    }
    channel.kind = address.serial ? CLOUDHV__DAEMON__V1__CHANNEL__KIND__SERIAL
                                  : CLOUDHV__DAEMON__V1__CHANNEL__KIND__VSOCK;
    channel.path = (char *)address.path;
    channel.port = address.port;
    response.n_phases = fill_phases(sandbox_get_times(entry->sandbox), phases);
    for (size_t i = 0; i < response.n_phases; i++)
        phase_pointers[i] = &phases[i];
    response.phases = phase_pointers;
    response.n_features = fill_features(vmm_features(vmm), features);
    response.features = features;
    response.vmm_pid = (uint32_t)vmm_pid(vmm);
    response.vmm_start_time = vmm_start_time(vmm);
    response.vmm = (char *)vmm_driver_name(vmm_driver(vmm));
    response.task = &channel;
    response.source = state->source ?: (char *)"cold";
    response.kernel_release = state->kernel_release ?: (char *)"";
    response.existed = existed;
    response.containers_max = entry->service->settings->max_containers;
    response.emulated = state->emulated;
    ttrpc_call_reply(call, &response.base);
}

/* Takes the TAP descriptors of an acquire out of the call: one for each NIC, no more and no less. */
static int take_taps(TtrpcCall *call, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                     int fds[static NICS_MAX], Error *e)
{
    size_t n = 0;

    for (int fd; (fd = ttrpc_call_take_fd(call)) >= 0;) {
        if (n == NICS_MAX) {
            fd_close(fd);
            return error_set(e, -EINVAL, "more than %i TAP descriptors", NICS_MAX);
        }
        fds[n++] = fd;
    }
    if (n != request->n_nics)
        return error_set(e, -EINVAL, "%zu NICs, but %zu TAP descriptors", request->n_nics, n);
    for (size_t i = 0; i < n; i++)
        if (request->nics[i]->mac.len != 6)
            return error_set(e, -EINVAL, "NIC %zu has a MAC address of %zu bytes", i,
                             request->nics[i]->mac.len);
    return 0;
}

static int check_sizing(const Cloudhv__Daemon__V1__Sizing *sizing, Error *e)
{
    if (!sizing)
        return 0;
    if (sizing->vcpus > 1024)
        return error_set(e, -ERANGE, "%u vCPUs are too many", sizing->vcpus);
    if (sizing->memory_mb != 0 && (sizing->memory_mb < 32 || sizing->memory_mb > 1 << 24))
        return error_set(e, -ERANGE, "%llu MiB of memory are not possible",
                         (unsigned long long)sizing->memory_mb);
    if (strlen(sizing->kernel_params) > 1024)
        return error_set(e, -E2BIG, "kernel_params has more than 1024 characters");
    return 0;
}

/* Starts the VM of a new sandbox and lets the call wait for it. */
static int acquire_new(SandboxService *service, TtrpcCall *call,
                       const Cloudhv__Daemon__V1__AcquireSandboxRequest *request, Error *e)
{
    int taps[NICS_MAX] = {-EBADF, -EBADF, -EBADF, -EBADF, -EBADF, -EBADF, -EBADF, -EBADF}, r;
    Entry *entry;

    if (service->settings->no_vmm_reason)
        return error_set(e, -EOPNOTSUPP, "%s", service->settings->no_vmm_reason);
    r = check_sizing(request->sizing, e);
    if (r >= 0)
        r = take_taps(call, request, taps, e);
    if (r >= 0)
        r = service_start(service, request, taps, request->n_nics, &entry, e);
    for (size_t i = 0; i < NICS_MAX; i++)
        fd_close(taps[i]);
    if (r < 0)
        return r;
    r = service_wait(&entry->acquiring, call);
    if (r < 0) {
        sandbox_release(entry->sandbox);
        return error_set_errno(e, r, "cannot wait for the VM");
    }
    return 0;
}

static void handle_acquire(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__AcquireSandboxRequest *request =
        (const Cloudhv__Daemon__V1__AcquireSandboxRequest *)message;
    _cleanup_error_ Error e = ERROR_INIT;
    SandboxService *service = userdata;
    Entry *entry;

    if (!check_ids(call, request->namespace_, request->sandbox_id, NULL))
        return;
    entry = service_find(service, request->namespace_, request->sandbox_id);
    if (!entry) {
        if (acquire_new(service, call, request, &e) < 0)
            ttrpc_call_fail_error(call, &e);
        return;
    }
    switch (sandbox_get_phase(entry->sandbox)) {
    case SANDBOX_RUNNING:
        service_answer_acquire(entry, call, true);
        break;
    case SANDBOX_NEW:
    case SANDBOX_BOOTING:
    case SANDBOX_IDENTIFYING:
        if (service_wait(&entry->acquiring, call) < 0)
            ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        break;
    case SANDBOX_ENDED:
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "the VM of sandbox %s has ended: %s",
                        request->sandbox_id,
                        sandbox_get_end_reason(entry->sandbox) ?: "for an unknown reason");
        break;
    default:
        ttrpc_call_fail(call, TTRPC_UNAVAILABLE, "sandbox %s is being released", request->sandbox_id);
        break;
    }
}

static void handle_release(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__ReleaseSandboxRequest *request =
        (const Cloudhv__Daemon__V1__ReleaseSandboxRequest *)message;
    Cloudhv__Daemon__V1__ReleaseSandboxResponse response =
        CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_RESPONSE__INIT;
    SandboxService *service = userdata;
    Entry *entry;

    if (!check_ids(call, request->namespace_, request->sandbox_id, NULL))
        return;
    entry = service_find(service, request->namespace_, request->sandbox_id);
    if (!entry) {
        ttrpc_call_reply(call, &response.base);
        return;
    }
    if (service_wait(&entry->releasing, call) < 0) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    TRACE("daemon.release.begun");
    sandbox_release(entry->sandbox);
}

/* ----------------------------------------------------------------------------------------- containers */

static int check_disks(const Cloudhv__Daemon__V1__AddContainerRequest *request, Error *e)
{
    if (request->n_disks > DISKS_MAX)
        return error_set(e, -E2BIG, "container %s wants %zu disks, more than %i", request->container_id,
                         request->n_disks, DISKS_MAX);
    for (size_t i = 0; i < request->n_disks; i++) {
        const Cloudhv__Daemon__V1__Disk *disk = request->disks[i];

        if (!id_is_valid(disk->serial) || strlen(disk->serial) > SERIAL_MAX)
            return error_set(e, -EINVAL, "\"%.40s\" is not a valid serial of a disk", disk->serial);
        if (disk->path[0] != '/')
            return error_set(e, -EINVAL, "the path \"%s\" of disk %s is not absolute", disk->path,
                             disk->serial);
    }
    return 0;
}

static void on_container_added(Sandbox *sandbox, const Error *e, void *userdata)
{
    Cloudhv__Daemon__V1__AddContainerResponse response = CLOUDHV__DAEMON__V1__ADD_CONTAINER_RESPONSE__INIT;

    if (e)
        ttrpc_call_fail_error(userdata, e);
    else
        ttrpc_call_reply(userdata, &response.base);
}

static void handle_add_container(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__AddContainerRequest *request =
        (const Cloudhv__Daemon__V1__AddContainerRequest *)message;
    _cleanup_error_ Error e = ERROR_INIT;
    Entry *entry;

    if (!check_ids(call, request->namespace_, request->sandbox_id, request->container_id))
        return;
    entry = find_running(call, userdata, request->namespace_, request->sandbox_id);
    if (!entry)
        return;
    if (check_disks(request, &e) < 0 ||
        sandbox_add_container(entry->sandbox, request->container_id, request->disks, request->n_disks,
                              on_container_added, call, &e) < 0)
        ttrpc_call_fail_error(call, &e);
}

static void on_container_removed(Sandbox *sandbox, const Error *e, void *userdata)
{
    Cloudhv__Daemon__V1__Empty response = CLOUDHV__DAEMON__V1__EMPTY__INIT;

    if (e)
        ttrpc_call_fail_error(userdata, e);
    else
        ttrpc_call_reply(userdata, &response.base);
}

static void handle_remove_container(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__RemoveContainerRequest *request =
        (const Cloudhv__Daemon__V1__RemoveContainerRequest *)message;
    _cleanup_error_ Error e = ERROR_INIT;
    Entry *entry;

    if (!check_ids(call, request->namespace_, request->sandbox_id, request->container_id))
        return;
    entry = find_running(call, userdata, request->namespace_, request->sandbox_id);
    if (entry &&
        sandbox_remove_container(entry->sandbox, request->container_id, on_container_removed, call, &e) < 0)
        ttrpc_call_fail_error(call, &e);
}

/* --------------------------------------------------------------------------------------------- status */

/* Fills `ret`; `containers` must have room for the sandbox's containers. Nothing is copied. */
static void fill_status(const Entry *entry, Cloudhv__Daemon__V1__SandboxStatus *ret, char **containers)
{
    const SandboxState *state = sandbox_get_state(entry->sandbox);
    Vmm *vmm = sandbox_get_vmm(entry->sandbox);
    SandboxPhase phase = sandbox_get_phase(entry->sandbox);

    cloudhv__daemon__v1__sandbox_status__init(ret);
    ret->namespace_ = state->namespace;
    ret->sandbox_id = state->sandbox_id;
    ret->state = (char *)sandbox_phase_name(phase);
    if (vmm && phase != SANDBOX_ENDED && phase != SANDBOX_GONE) {
        ret->vmm_pid = (uint32_t)vmm_pid(vmm);
        ret->vmm = (char *)vmm_driver_name(vmm_driver(vmm));
    }
    ret->source = state->source ?: (char *)"cold";
    ret->vcpus = state->vcpus;
    ret->memory_mb = state->memory_mb;
    ret->since_usec = state->since_usec;
    if (sandbox_get_end_reason(entry->sandbox))
        ret->end_reason = (char *)sandbox_get_end_reason(entry->sandbox);
    for (size_t i = 0; i < state->n_containers; i++)
        containers[i] = state->containers[i].id;
    ret->containers = containers;
    ret->n_containers = state->n_containers;
}

static void handle_status(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__StatusRequest *request = (const Cloudhv__Daemon__V1__StatusRequest *)message;
    Cloudhv__Daemon__V1__StatusResponse response = CLOUDHV__DAEMON__V1__STATUS_RESPONSE__INIT;
    SandboxService *service = userdata;
    size_t n = sandbox_service_count(service), n_containers = 0;
    _cleanup_free_ Cloudhv__Daemon__V1__SandboxStatus *all = calloc(n + 1, sizeof(*all));
    _cleanup_free_ Cloudhv__Daemon__V1__SandboxStatus **pointers = calloc(n + 1, sizeof(*pointers));
    _cleanup_free_ char **containers = NULL;

    for (const Entry *entry = service->entries; entry; entry = entry->next)
        n_containers += sandbox_get_state(entry->sandbox)->n_containers;
    containers = calloc(n_containers + 1, sizeof(*containers));
    if (!all || !pointers || !containers) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    n_containers = 0;
    for (const Entry *entry = service->entries; entry; entry = entry->next) {
        const SandboxState *state = sandbox_get_state(entry->sandbox);

        if (sandbox_get_phase(entry->sandbox) == SANDBOX_RUNNING)
            response.active++;
        if (request->sandbox_id[0] && (strcmp(state->sandbox_id, request->sandbox_id) != 0 ||
                                       strcmp(state->namespace, request->namespace_) != 0))
            continue;
        fill_status(entry, &all[response.n_sandboxes], containers + n_containers);
        n_containers += state->n_containers;
        pointers[response.n_sandboxes] = &all[response.n_sandboxes];
        response.n_sandboxes++;
    }
    response.sandboxes = pointers;
    response.daemon_version = (char *)CLOUDHV_VERSION;
    /* None, where the configured VMM is one that this version cannot drive. */
    if (service->settings->driver)
        response.vmm = (char *)vmm_driver_name(service->settings->driver);
    response.kvm = !service->settings->emulate && !service->settings->no_vmm_reason;
    if (service->settings->no_kvm_reason)
        response.kvm_reason = (char *)service->settings->no_kvm_reason;
    if (service->clones)
        service->settings->clones->fill_status(service->clones, &response);
    ttrpc_call_reply(call, &response.base);
}

static void on_usage(Sandbox *sandbox, const SandboxUsage *usage, const Error *e, void *userdata)
{
    Cloudhv__Daemon__V1__UsageResponse response = CLOUDHV__DAEMON__V1__USAGE_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail_error(userdata, e);
        return;
    }
    response.vmm_private = usage->vmm_private;
    response.agent_private = usage->agent_private;
    response.agent_wakeups = usage->agent_wakeups;
    response.agent_peak = usage->agent_peak;
    response.memory_total = usage->memory_total;
    response.memory_available = usage->memory_available;
    ttrpc_call_reply(userdata, &response.base);
}

static void handle_usage(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Daemon__V1__SandboxRequest *request = (const Cloudhv__Daemon__V1__SandboxRequest *)message;
    _cleanup_error_ Error e = ERROR_INIT;
    Entry *entry;

    if (!check_ids(call, request->namespace_, request->sandbox_id, NULL))
        return;
    entry = find_running(call, userdata, request->namespace_, request->sandbox_id);
    if (entry && sandbox_get_usage(entry->sandbox, on_usage, call, &e) < 0)
        ttrpc_call_fail_error(call, &e);
}

static int send_event(TtrpcCall *call, const Entry *entry)
{
    Cloudhv__Daemon__V1__SandboxEvent event = CLOUDHV__DAEMON__V1__SANDBOX_EVENT__INIT;
    Cloudhv__Daemon__V1__SandboxStatus status;
    const SandboxState *state = sandbox_get_state(entry->sandbox);
    _cleanup_free_ char **containers = calloc(state->n_containers + 1, sizeof(*containers));

    if (!containers)
        return -ENOMEM;
    fill_status(entry, &status, containers);
    event.namespace_ = state->namespace;
    event.sandbox_id = state->sandbox_id;
    event.status = &status;
    event.kind = (char *)"state";
    return ttrpc_call_send(call, &event.base);
}

static bool is_watched(const TtrpcCall *call, const Entry *entry)
{
    const Cloudhv__Daemon__V1__WatchRequest *request =
        (const Cloudhv__Daemon__V1__WatchRequest *)ttrpc_call_request(call);
    const SandboxState *state = sandbox_get_state(entry->sandbox);

    return !request->sandbox_id[0] || (strcmp(state->sandbox_id, request->sandbox_id) == 0 &&
                                       strcmp(state->namespace, request->namespace_) == 0);
}

void service_notify(Entry *entry)
{
    for (Waiter **p = &entry->service->watching; *p;) {
        Waiter *w = *p;

        if (!is_watched(w->call, entry) || send_event(w->call, entry) >= 0) {
            p = &w->next;
            continue;
        }
        /* A watcher that does not read must not hold memory: it loses its stream and may ask anew. */
        *p = w->next;
        ttrpc_call_fail(w->call, TTRPC_RESOURCE_EXHAUSTED, "events were not read in time");
        free(w);
    }
}

static void on_watch_cancelled(TtrpcCall *call, void *userdata)
{
    SandboxService *service = userdata;

    for (Waiter **p = &service->watching; *p; p = &(*p)->next) {
        Waiter *w = *p;

        if (w->call != call)
            continue;
        *p = w->next;
        free(w);
        ttrpc_call_fail(call, TTRPC_CANCELED, "the watch was cancelled");
        return;
    }
}

static void handle_watch(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    SandboxService *service = userdata;

    if (service_wait(&service->watching, call) < 0) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    ttrpc_call_set_cancel(call, on_watch_cancelled, service);
    for (const Entry *entry = service->entries; entry; entry = entry->next)
        if (is_watched(call, entry))
            (void)send_event(call, entry);
}

int sandbox_service_register(SandboxService *service, TtrpcServer *server)
{
    /* In the order of daemon.proto; NULL answers Unimplemented. */
    static const TtrpcHandler handlers[] = {
        handle_hello,      handle_acquire,   handle_add_container, handle_remove_container, handle_release,
        NULL /* Resize */, NULL /* Pause */, NULL /* Resume */,    handle_status,           handle_watch,
        handle_usage,
    };

    return ttrpc_server_add_service(server, NULL, &cloudhv__daemon__v1__sandboxes__descriptor, handlers,
                                    service);
}
