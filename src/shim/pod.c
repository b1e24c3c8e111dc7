/* SPDX-License-Identifier: MIT */

#include "shim/pod.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "base/trace.h"
#include "config/annotations.h"
#include "config/sizing.h"
#include "net/interfaces.h"
#include "net/netns.h"
#include "net/redirect.h"
#include "net/rtnl.h"
#include "net/tap.h"
#include "oci/plan.h"
#include "shim/daemon-link.h"
#include "shim/network-message.h"
#include "shim/shim.h"

#define AGENT_PROTOCOL 1
#define HELLO_TIMEOUT_USEC (30 * USEC_PER_SEC)
/* Beyond the boot itself: probing KVM, starting the VMM. */
#define ACQUIRE_SLACK_USEC (30 * USEC_PER_SEC)

typedef struct Tap {
    char name[NET_NAME_SIZE];
    uint8_t device_mac[NET_MAC_SIZE];
    unsigned index;
    int fd; /* until the daemon has it */
} Tap;

typedef struct PodOp PodOp;

struct Pod {
    Shim *shim;
    char *netns; /* NULL: made by us */
    bool in_netns;
    bool acquiring; /* the daemon was asked for a VM */
    bool released;
    bool ended;
    Tap taps[NET_INTERFACES_MAX];
    size_t n_taps;
    DaemonCall *call;    /* the one in flight */
    DaemonCall *status;  /* why the VM ended */
    TtrpcClient *agent;
    TtrpcPending *agent_call;
    int vmm_pidfd;
    LoopSource *vmm_watch;
    LoopSource *later;
    PodFn callback;
    void *userdata;
    unsigned disks;
    PodOp *ops;
};

static void ops_fail(Pod *pod);

int pod_new(Shim *shim, Pod **ret)
{
    Pod *pod = calloc(1, sizeof(*pod));

    if (!pod)
        return -ENOMEM;
    pod->shim = shim;
    pod->vmm_pidfd = -EBADF;
    *ret = pod;
    return 0;
}

static void taps_close(Pod *pod)
{
    for (size_t i = 0; i < pod->n_taps; i++)
        pod->taps[i].fd = fd_close(pod->taps[i].fd);
}

/* Ends what goes on without its callbacks. */
static void disconnect(Pod *pod)
{
    TtrpcClient *agent = TAKE_PTR(pod->agent);

    pod->call = daemon_call_cancel(pod->call);
    pod->status = daemon_call_cancel(pod->status);
    if (pod->agent_call)
        ttrpc_pending_cancel(TAKE_PTR(pod->agent_call));
    if (agent)
        ttrpc_client_set_close(agent, NULL, NULL);
    ttrpc_client_free(agent);
    pod->vmm_watch = loop_source_free(pod->vmm_watch);
    pod->vmm_pidfd = fd_close(pod->vmm_pidfd);
    pod->later = loop_source_free(pod->later);
}

Pod *pod_free(Pod *pod)
{
    if (!pod)
        return NULL;
    disconnect(pod);
    ops_fail(pod);
    taps_close(pod);
    free(pod->netns);
    free(pod);
    return NULL;
}

TtrpcClient *pod_agent(const Pod *pod)
{
    return !pod || pod->ended || pod->released ? NULL : pod->agent;
}

const char *pod_netns(const Pod *pod)
{
    return pod->netns;
}

unsigned pod_next_disk(Pod *pod)
{
    return pod->disks++ % 100;
}

static void finish(Pod *pod, const Error *e)
{
    PodFn callback = TAKE_PTR(pod->callback);

    if (callback)
        callback(pod, e, pod->userdata);
}

static int begin(Pod *pod, PodFn callback, void *userdata, Error *e)
{
    if (pod->callback)
        return error_set(e, -EBUSY, "another operation on the pod goes on");
    pod->callback = callback;
    pod->userdata = userdata;
    return 0;
}

/* For an operation that did not get as far as the loop. */
static int begin_failed(Pod *pod, int r)
{
    pod->callback = NULL;
    return r;
}

/* ----------------------------------------------------------------------------------------------- VM's end */

static void tell_ended(Pod *pod, const char *reason)
{
    log_error("the pod's VM has ended: %s", reason);
    shim_pod_ended(pod->shim, reason);
}

static void on_status(const ProtobufCMessage *message, const Error *e, void *userdata)
{
    const Cloudhv__Daemon__V1__StatusResponse *response = (const Cloudhv__Daemon__V1__StatusResponse *)message;
    Pod *pod = userdata;

    pod->status = NULL;
    if (e)
        log_warning("why the VM ended is not known: %s", error_message(e));
    else if (response->n_sandboxes > 0 && *response->sandboxes[0]->end_reason)
        log_error("the pod's VM ended: %s", response->sandboxes[0]->end_reason);
}

/* The reason is for the log only: nobody waits for it. */
static void ask_reason(Pod *pod)
{
    Cloudhv__Daemon__V1__StatusRequest request = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    DaemonCallSpec spec = {
        .method = "Status",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(pod->shim->daemon),
    };

    request.namespace_ = (char *)pod->shim->spec->namespace;
    request.sandbox_id = (char *)pod->shim->spec->id;
    if (daemon_call(pod->shim->daemon, &spec, on_status, pod, &pod->status, &e) < 0)
        log_warning("why the VM ended is not known: %s", error_message(&e));
}

static void vm_ended(Pod *pod, const char *reason)
{
    if (pod->ended || pod->released)
        return;
    pod->ended = true;
    pod->vmm_watch = loop_source_free(pod->vmm_watch);
    ask_reason(pod);
    tell_ended(pod, reason);
}

static void on_vmm_exit(_unused_ LoopSource *source, _unused_ int fd, _unused_ uint32_t revents, void *userdata)
{
    TRACE("shim.vmm.ended");
    vm_ended(userdata, "its VMM has exited");
}

static void on_agent_lost(_unused_ TtrpcClient *client, const Error *reason, void *userdata)
{
    vm_ended(userdata, error_message(reason));
}

/* ------------------------------------------------------------------------------------------------ acquire */

static void on_agent_hello(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Agent__V1__HelloResponse *response;
    _cleanup_error_ Error e = ERROR_INIT;
    Pod *pod = userdata;

    pod->agent_call = NULL;
    if (ttrpc_reply_error(reply, "the agent of the VM", &e) < 0) {
        finish(pod, &e);
        return;
    }
    response = (const Cloudhv__Agent__V1__HelloResponse *)reply->response;
    if (response->protocol != AGENT_PROTOCOL) {
        error_set(&e, -EPROTO, "the agent of the VM speaks protocol %u, this shim %i", response->protocol,
                  AGENT_PROTOCOL);
        finish(pod, &e);
        return;
    }
    TRACE("shim.acquire.agent-greeted");
    finish(pod, NULL);
}

static int greet_agent(Pod *pod, Error *e)
{
    Cloudhv__Agent__V1__HelloRequest request = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "Hello",
        .request = &request.base,
        .timeout_usec = HELLO_TIMEOUT_USEC,
    };
    int r;

    request.protocol = AGENT_PROTOCOL;
    request.peer = (char *)"shim";
    r = ttrpc_client_call(pod->agent, &spec, on_agent_hello, pod, &pod->agent_call);
    return r < 0 ? error_set_errno(e, r, "cannot greet the agent of the VM") : 0;
}

static int connect_agent(Pod *pod, const Cloudhv__Daemon__V1__Channel *channel, Error *e)
{
    int fd = fd_connect_unix(channel->path), r;

    if (fd < 0)
        return error_set_errno(e, fd, "cannot reach the agent of the VM at %s", channel->path);
    if (channel->kind == CLOUDHV__DAEMON__V1__CHANNEL__KIND__VSOCK)
        r = ttrpc_client_new_vsock(pod->shim->loop, fd, channel->port, HELLO_TIMEOUT_USEC, &pod->agent);
    else
        r = ttrpc_client_new_serial(pod->shim->loop, fd, &pod->agent);
    if (r < 0)
        return error_set_errno(e, r, "cannot speak to the agent of the VM at %s", channel->path);
    ttrpc_client_set_close(pod->agent, on_agent_lost, pod);
    return greet_agent(pod, e);
}

static int watch_vmm(Pod *pod, const Cloudhv__Daemon__V1__AcquireSandboxResponse *response, Error *e)
{
    int r = process_open((pid_t)response->vmm_pid, response->vmm_start_time, &pod->vmm_pidfd);

    if (r >= 0)
        r = loop_add_io(pod->shim->loop, pod->vmm_pidfd, EPOLLIN, on_vmm_exit, pod, &pod->vmm_watch);
    return r < 0 ? error_set_errno(e, r, "cannot watch the VMM with pid %u", response->vmm_pid) : 0;
}

static void log_phases(const Cloudhv__Daemon__V1__AcquireSandboxResponse *response)
{
    log_info("VM by %s (%s%s), kernel %s", response->vmm, response->source,
             response->emulated ? ", emulated: no security boundary" : "", response->kernel_release);
    for (size_t i = 0; i < response->n_phases; i++)
        log_debug("phase %s %" PRIu64, response->phases[i]->name, response->phases[i]->usec);
}

static void on_acquired(const ProtobufCMessage *message, const Error *error, void *userdata)
{
    const Cloudhv__Daemon__V1__AcquireSandboxResponse *response =
        (const Cloudhv__Daemon__V1__AcquireSandboxResponse *)message;
    _cleanup_error_ Error e = ERROR_INIT;
    Pod *pod = userdata;
    int r;

    pod->call = NULL;
    if (error) {
        finish(pod, error);
        return;
    }
    TRACE("shim.acquire.vm-taken");
    taps_close(pod);
    log_phases(response);
    r = watch_vmm(pod, response, &e);
    if (r >= 0 && !response->task)
        r = error_set(&e, -EBADMSG, "the sandbox daemon names no way to the agent");
    if (r >= 0)
        r = connect_agent(pod, response->task, &e);
    if (r < 0)
        finish(pod, &e);
}

static int enter_netns(Pod *pod, const char *path, Error *e)
{
    Record *record = pod->shim->record;
    int r;

    if (path) {
        pod->netns = strdup(path);
        free(record->netns);
        record->netns = strdup(path);
        if (!pod->netns || !record->netns)
            return error_set_errno(e, -ENOMEM, "cannot enter the network namespace %s", path);
        r = record_write(record, pod->shim->spec->bundle, e);
        if (r < 0)
            return r;
        r = netns_enter(path, e);
    } else {
        r = netns_new(e);
    }
    if (r < 0)
        return r;
    pod->in_netns = true;
    TRACE("shim.acquire.netns-entered");
    return 0;
}

static int make_taps(Pod *pod, Error *e)
{
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    size_t n;
    int r;

    r = rtnl_new(&rtnl, e);
    if (r >= 0)
        r = interfaces_read(rtnl, &config, e);
    if (r < 0)
        return r;
    n = config.n_interfaces > 0 ? config.n_interfaces : 1;
    for (size_t i = 0; i < n; i++) {
        Tap *tap = &pod->taps[i];
        uint32_t mtu = i < config.n_interfaces ? config.interfaces[i].mtu : 0;

        tap_name(pod->shim->spec->id, (unsigned)i, tap->name);
        tap_device_mac(pod->shim->spec->id, (unsigned)i, tap->device_mac);
        r = tap_new(rtnl, tap->name, mtu, &tap->fd, &tap->index, e);
        if (r < 0)
            return r;
        pod->n_taps++;
        TRACE("shim.acquire.tap-made");
    }
    return 0;
}

/* The part of the request that comes from configuration, annotations and limits. */
static int compute_sizing(Pod *pod, const Bundle *bundle, Annotations **ret_annotations,
                          Cloudhv__Daemon__V1__Sizing *ret, Error *e)
{
    const ShimConfig *config = pod->shim->config;
    PodLimits limits = {0};
    Sizing sizing;
    int r;

    r = annotations_parse(bundle->annotations, strcmp(config->bad_annotations, "warn") == 0, ret_annotations, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < (*ret_annotations)->n_warnings; i++)
        log_warning("%s", (*ret_annotations)->warnings[i]);
    r = pod_limits_read(bundle->annotations, bundle->kind == BUNDLE_PLAIN ? bundle->resources : NULL, &limits, e);
    if (r >= 0)
        r = sizing_compute(&config->vmm, *ret_annotations, &limits, sizing_host_cpus(), &sizing, e);
    if (r < 0)
        return r;
    ret->vcpus = sizing.vcpus;
    ret->max_vcpus = sizing.max_vcpus;
    ret->memory_mb = sizing.memory_mb;
    ret->memory_limit_mb = sizing.memory_limit_mb;
    ret->kernel_params = (char *)sizing.kernel_params;
    ret->enable_virtio_mem = sizing.enable_virtio_mem;
    return 0;
}

typedef struct SysctlList {
    Cloudhv__Daemon__V1__AcquireSandboxRequest__SysctlsEntry *entries;
    Cloudhv__Daemon__V1__AcquireSandboxRequest__SysctlsEntry **pointers;
} SysctlList;

static void sysctl_list_clear(SysctlList *list)
{
    free(list->entries);
    free(list->pointers);
}

static int fill_sysctls(json_t *sysctls, SysctlList *list, Cloudhv__Daemon__V1__AcquireSandboxRequest *request)
{
    size_t n = json_object_size(sysctls), i = 0;
    const char *key;
    json_t *value;

    if (n == 0)
        return 0;
    list->entries = calloc(n, sizeof(*list->entries));
    list->pointers = calloc(n, sizeof(*list->pointers));
    if (!list->entries || !list->pointers)
        return -ENOMEM;
    json_object_foreach(sysctls, key, value)
    {
        Cloudhv__Daemon__V1__AcquireSandboxRequest__SysctlsEntry *entry = &list->entries[i];

        cloudhv__daemon__v1__acquire_sandbox_request__sysctls_entry__init(entry);
        entry->key = (char *)key;
        entry->value = (char *)json_string_value(value);
        list->pointers[i++] = entry;
    }
    request->sysctls = list->pointers;
    request->n_sysctls = n;
    return 0;
}

static int send_acquire(Pod *pod, Cloudhv__Daemon__V1__AcquireSandboxRequest *request, Error *e)
{
    const Shim *shim = pod->shim;
    Cloudhv__Daemon__V1__Nic nics[NET_INTERFACES_MAX], *nic_pointers[NET_INTERFACES_MAX];
    int fds[NET_INTERFACES_MAX];
    DaemonCallSpec spec = {
        .method = "AcquireSandbox",
        .request = &request->base,
        .timeout_usec = shim->config->vmm.boot_timeout_secs * USEC_PER_SEC + ACQUIRE_SLACK_USEC,
        .fds = fds,
        .n_fds = pod->n_taps,
    };

    for (size_t i = 0; i < pod->n_taps; i++) {
        cloudhv__daemon__v1__nic__init(&nics[i]);
        nics[i].mac.data = pod->taps[i].device_mac;
        nics[i].mac.len = NET_MAC_SIZE;
        nics[i].tap = pod->taps[i].name;
        nic_pointers[i] = &nics[i];
        fds[i] = pod->taps[i].fd;
    }
    request->nics = nic_pointers;
    request->n_nics = pod->n_taps;
    request->namespace_ = (char *)shim->spec->namespace;
    request->sandbox_id = (char *)shim->spec->id;
    request->bundle = (char *)shim->spec->bundle;
    request->shim_pid = (uint32_t)getpid();
    request->shim_start_time = shim->record->start_time;
    request->netns = pod->netns ?: (char *)"";
    pod->acquiring = true;
    TRACE("shim.acquire.vm-asked");
    return daemon_call(shim->daemon, &spec, on_acquired, pod, &pod->call, e);
}

static int request_vm(Pod *pod, const Bundle *bundle, json_t *sysctls, Error *e)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__Sizing sizing = CLOUDHV__DAEMON__V1__SIZING__INIT;
    _cleanup_annotations_ Annotations *annotations = NULL;
    _cleanup_(sysctl_list_clear) SysctlList list = {0};
    int r;

    r = compute_sizing(pod, bundle, &annotations, &sizing, e);
    if (r < 0)
        return r;
    r = fill_sysctls(sysctls, &list, &request);
    if (r < 0)
        return error_set_errno(e, r, "cannot ask for a VM");
    request.sizing = &sizing;
    request.hostname = (char *)bundle->hostname;
    request.domainname = (char *)bundle->domainname;
    request.cgroup_parent = (char *)bundle->cgroups_path;
    request.warm = annotations->warm;
    /* After all that can be refused without a trace. */
    r = enter_netns(pod, bundle->netns_path, e);
    if (r >= 0)
        r = make_taps(pod, e);
    return r < 0 ? r : send_acquire(pod, &request, e);
}

int pod_acquire(Pod *pod, const Bundle *bundle, PodFn callback, void *userdata, Error *e)
{
    OciSettings settings = {
        .container_id = pod->shim->spec->id,
        .sandbox_id = pod->shim->spec->id,
        .netns = bundle->netns_path,
        .pod_pid = getpid(),
        .ignore_lsm = pod->shim->config->ignore_lsm,
        .inline_max = pod->shim->config->inline_max_kb * 1024,
    };
    _cleanup_json_ json_t *sysctls = NULL;
    int r;

    r = begin(pod, callback, userdata, e);
    if (r < 0)
        return r;
    r = oci_pod_check(bundle, &settings, &sysctls, e);
    if (r >= 0)
        r = request_vm(pod, bundle, sysctls, e);
    return r < 0 ? begin_failed(pod, r) : 0;
}

/* ------------------------------------------------------------------------------------------------ network */

static void on_network_configured(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Pod *pod = userdata;

    pod->agent_call = NULL;
    if (ttrpc_reply_error(reply, "the agent cannot configure the network", &e) < 0) {
        finish(pod, &e);
        return;
    }
    TRACE("shim.network.configured");
    finish(pod, NULL);
}

static int connect_taps(Pod *pod, NetConfig *config, Error *e)
{
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    int r;

    r = rtnl_new(&rtnl, e);
    if (r >= 0)
        r = interfaces_read(rtnl, config, e);
    if (r < 0)
        return r;
    if (config->n_interfaces > pod->n_taps)
        return error_set(e, -ENOTUNIQ, "the pod has %zu network interfaces, but had %zu when its VM was made",
                         config->n_interfaces, pod->n_taps);
    for (size_t i = 0; i < config->n_interfaces; i++) {
        memcpy(config->interfaces[i].device_mac, pod->taps[i].device_mac, NET_MAC_SIZE);
        r = redirect_install(rtnl, &config->interfaces[i], pod->taps[i].index, e);
        if (r < 0)
            return r;
        TRACE("shim.network.redirected");
    }
    return 0;
}

int pod_configure_network(Pod *pod, PodFn callback, void *userdata, Error *e)
{
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    int r;

    if (!pod_agent(pod))
        return error_set(e, -ESHUTDOWN, "the pod's VM has ended");
    r = begin(pod, callback, userdata, e);
    if (r < 0)
        return r;
    r = connect_taps(pod, &config, e);
    if (r >= 0)
        r = network_message_send(pod->agent, &config, daemon_link_timeout(pod->shim->daemon),
                                 on_network_configured, pod, &pod->agent_call, e);
    return r < 0 ? begin_failed(pod, r) : 0;
}

/* -------------------------------------------------------------------------------------------------- disks */

/* Containers of a pod may be made at the same time, so these calls stand beside each other. */
struct PodOp {
    PodOp *next;
    Pod *pod;
    DaemonCall *call;
    PodFn callback;
    void *userdata;
};

static void op_free(PodOp *op)
{
    PodOp **link = &op->pod->ops;

    while (*link && *link != op)
        link = &(*link)->next;
    if (*link)
        *link = op->next;
    daemon_call_cancel(op->call);
    free(op);
}

static void on_op_done(_unused_ const ProtobufCMessage *message, const Error *e, void *userdata)
{
    PodOp *op = userdata;
    PodFn callback = op->callback;
    void *callers = op->userdata;
    Pod *pod = op->pod;

    op->call = NULL;
    op_free(op);
    callback(pod, e, callers);
}

static void ops_fail(Pod *pod)
{
    _cleanup_error_ Error e = ERROR_INIT;

    error_set(&e, -ESHUTDOWN, "the pod's VM was released");
    while (pod->ops) {
        PodOp *op = pod->ops;
        PodFn callback = op->callback;
        void *userdata = op->userdata;

        op_free(op);
        callback(pod, &e, userdata);
    }
}

static int op_start(Pod *pod, const char *method, const ProtobufCMessage *request, PodFn callback, void *userdata,
                    Error *e)
{
    DaemonCallSpec spec = {
        .method = method,
        .request = request,
        .timeout_usec = daemon_link_timeout(pod->shim->daemon),
    };
    PodOp *op = calloc(1, sizeof(*op));
    int r;

    if (!op)
        return error_set_errno(e, -ENOMEM, "cannot call the sandbox daemon");
    op->pod = pod;
    op->callback = callback;
    op->userdata = userdata;
    op->next = pod->ops;
    pod->ops = op;
    r = daemon_call(pod->shim->daemon, &spec, on_op_done, op, &op->call, e);
    if (r < 0)
        op_free(op);
    return r;
}

int pod_attach_disks(Pod *pod, const char *container_id, Cloudhv__Daemon__V1__Disk **disks, size_t n_disks,
                     PodFn callback, void *userdata, Error *e)
{
    Cloudhv__Daemon__V1__AddContainerRequest request = CLOUDHV__DAEMON__V1__ADD_CONTAINER_REQUEST__INIT;

    request.namespace_ = (char *)pod->shim->spec->namespace;
    request.sandbox_id = (char *)pod->shim->spec->id;
    request.container_id = (char *)container_id;
    request.disks = disks;
    request.n_disks = n_disks;
    return op_start(pod, "AddContainer", &request.base, callback, userdata, e);
}

int pod_detach_disks(Pod *pod, const char *container_id, PodFn callback, void *userdata, Error *e)
{
    Cloudhv__Daemon__V1__RemoveContainerRequest request = CLOUDHV__DAEMON__V1__REMOVE_CONTAINER_REQUEST__INIT;

    request.namespace_ = (char *)pod->shim->spec->namespace;
    request.sandbox_id = (char *)pod->shim->spec->id;
    request.container_id = (char *)container_id;
    return op_start(pod, "RemoveContainer", &request.base, callback, userdata, e);
}

/* ------------------------------------------------------------------------------------------------ release */

static void on_released(_unused_ const ProtobufCMessage *message, const Error *e, void *userdata)
{
    Pod *pod = userdata;

    pod->call = NULL;
    TRACE("shim.release.vm-released");
    finish(pod, e);
}

static void on_nothing_to_release(_unused_ LoopSource *source, void *userdata)
{
    Pod *pod = userdata;

    pod->later = loop_source_free(pod->later);
    finish(pod, NULL);
}

static void remove_redirects(const Pod *pod)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_rtnl_ Rtnl *rtnl = NULL;

    if (!pod->in_netns)
        return;
    if (rtnl_new(&rtnl, &e) < 0 || redirect_remove_all(rtnl, &e) < 0)
        log_warning("%s", error_message(&e));
    TRACE("shim.release.redirects-removed");
}

static int send_release(Pod *pod, Error *e)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest request = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    DaemonCallSpec spec = {
        .method = "ReleaseSandbox",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(pod->shim->daemon),
    };

    request.namespace_ = (char *)pod->shim->spec->namespace;
    request.sandbox_id = (char *)pod->shim->spec->id;
    return daemon_call(pod->shim->daemon, &spec, on_released, pod, &pod->call, e);
}

void pod_release(Pod *pod, PodFn callback, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    bool asked = pod->acquiring;

    pod->released = true;
    pod->acquiring = false;
    disconnect(pod);
    error_set(&e, -ESHUTDOWN, "the pod was released");
    finish(pod, &e);
    error_clear(&e);
    taps_close(pod);
    pod->callback = callback;
    pod->userdata = userdata;
    remove_redirects(pod);
    if (asked && send_release(pod, &e) >= 0)
        return;
    if (asked)
        log_warning("the VM is left to the daemon's own cleaning: %s", error_message(&e));
    if (loop_add_defer(pod->shim->loop, on_nothing_to_release, pod, &pod->later) < 0)
        finish(pod, NULL);
}
