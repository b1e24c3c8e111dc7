/* SPDX-License-Identifier: MIT */

/* Service Task: the pod's containers, files and network. */

#include <errno.h>

#include "agent/names.h"
#include "agent/service-streams.h"
#include "agent/stats.h"

typedef Cloudhv__Agent__V1__Empty Empty;

enum { LIST_PROCESSES_MAX = 32768 };

static void reply_empty(TtrpcCall *call)
{
    Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;

    ttrpc_call_reply(call, &response.base);
}

static void on_network(int number, const char *message, void *userdata)
{
    TtrpcCall *call = userdata;

    if (number < 0)
        service_fail(call, number, message);
    else
        reply_empty(call);
}

static void handle_configure_network(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    AgentContext *context = userdata;

    if (!service_refuse(call, context))
        network_configure(context->network, (const Cloudhv__Agent__V1__ConfigureNetworkRequest *)request,
                          on_network, call);
}

static void handle_add_files(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    int r;

    if (service_refuse(call, context))
        return;
    r = trees_add(context->trees, (const Cloudhv__Agent__V1__AddFilesRequest *)request, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
    else
        reply_empty(call);
}

static void handle_read_tree_file(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ReadTreeFileRequest *q = (const Cloudhv__Agent__V1__ReadTreeFileRequest *)request;
    Cloudhv__Agent__V1__ReadTreeFileResponse response = CLOUDHV__AGENT__V1__READ_TREE_FILE_RESPONSE__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ void *data = NULL;
    AgentContext *context = userdata;
    bool truncated;
    size_t n;
    int r;

    if (service_refuse(call, context))
        return;
    r = trees_read(context->trees, q->tree, q->path, q->max, &data, &n, &truncated, &e);
    if (r < 0) {
        service_fail(call, r, error_message(&e));
        return;
    }
    response.data.data = data;
    response.data.len = n;
    response.truncated = truncated;
    ttrpc_call_reply(call, &response.base);
}

/* A call whose answer needs the container once more. */
typedef struct ContainerCall {
    TtrpcCall *call;
    const AgentContext *context;
    char id[AGENT_NAME_MAX + 1], exec_id[AGENT_NAME_MAX + 1];
} ContainerCall;

static ContainerCall *container_call_new(TtrpcCall *call, const AgentContext *context, const char *id,
                                         const char *exec_id)
{
    ContainerCall *cc = calloc(1, sizeof(*cc));

    if (!cc) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    cc->call = call;
    cc->context = context;
    snprintf(cc->id, sizeof(cc->id), "%s", id);
    snprintf(cc->exec_id, sizeof(cc->exec_id), "%s", exec_id);
    return cc;
}

static uint32_t process_number(const ContainerCall *cc)
{
    Container *c = containers_find(cc->context->containers, cc->id);
    Process *p = NULL;

    if (c)
        p = cc->exec_id[0] ? container_exec_process(c, cc->exec_id) : container_process(c);
    return p ? (uint32_t)process_pid(p) : 0;
}

static void on_created(int number, const char *message, void *userdata)
{
    Cloudhv__Agent__V1__CreateContainerResponse response = CLOUDHV__AGENT__V1__CREATE_CONTAINER_RESPONSE__INIT;
    _cleanup_free_ ContainerCall *cc = userdata;

    if (number < 0) {
        service_fail(cc->call, number, message);
        return;
    }
    response.pid = process_number(cc);
    ttrpc_call_reply(cc->call, &response.base);
}

static void handle_create_container(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__CreateContainerRequest *q =
        (const Cloudhv__Agent__V1__CreateContainerRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    ContainerCall *cc;
    int r;

    if (service_refuse(call, context))
        return;
    cc = container_call_new(call, context, q->id, "");
    if (!cc)
        return;
    r = container_create(context->containers, q, on_created, cc, &e);
    if (r < 0) {
        free(cc);
        service_fail(call, r, error_message(&e));
    }
}

static void on_deleted(int number, const char *message, const ContainerRemains *remains, void *userdata)
{
    Cloudhv__Agent__V1__DeleteProcessResponse response = CLOUDHV__AGENT__V1__DELETE_PROCESS_RESPONSE__INIT;
    TtrpcCall *call = userdata;

    if (number < 0) {
        service_fail(call, number, message);
        return;
    }
    response.pid = (uint32_t)remains->pid;
    response.exit_status = remains->exit.status;
    response.exited_at_nsec = remains->exit.nsec;
    ttrpc_call_reply(call, &response.base);
}

static void handle_delete_container(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ContainerRequest *q = (const Cloudhv__Agent__V1__ContainerRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    Container *c;
    int r;

    if (service_refuse(call, context))
        return;
    c = service_find_container(call, context, q->id);
    if (!c)
        return;
    r = container_delete(c, on_deleted, call, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
}

static void on_started(int number, const char *message, void *userdata)
{
    Cloudhv__Agent__V1__StartProcessResponse response = CLOUDHV__AGENT__V1__START_PROCESS_RESPONSE__INIT;
    _cleanup_free_ ContainerCall *cc = userdata;

    if (number < 0) {
        service_fail(cc->call, number, message);
        return;
    }
    response.pid = process_number(cc);
    ttrpc_call_reply(cc->call, &response.base);
}

static void handle_start_process(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ProcessRequest *q = (const Cloudhv__Agent__V1__ProcessRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    ContainerCall *cc;
    Container *c;
    int r;

    if (service_refuse(call, context) || !service_find_process(call, context, q->id, q->exec_id))
        return;
    cc = container_call_new(call, context, q->id, q->exec_id);
    if (!cc)
        return;
    c = containers_find(context->containers, q->id);
    r = q->exec_id[0] ? container_exec_start(c, q->exec_id, on_started, cc, &e)
                      : container_start(c, on_started, cc, &e);
    if (r < 0) {
        free(cc);
        service_fail(call, r, error_message(&e));
    }
}

static void handle_exec(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ExecRequest *q = (const Cloudhv__Agent__V1__ExecRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    Container *c;
    int r;

    if (service_refuse(call, context))
        return;
    c = service_find_container(call, context, q->id);
    if (!c)
        return;
    r = container_exec(c, q, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
    else
        reply_empty(call);
}

static void handle_delete_process(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ProcessRequest *q = (const Cloudhv__Agent__V1__ProcessRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    ContainerRemains remains;
    int r;

    if (service_refuse(call, context) || !service_find_process(call, context, q->id, q->exec_id))
        return;
    if (q->exec_id[0] == 0) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION,
                        "DeleteProcess: the first process of a container is deleted by DeleteContainer");
        return;
    }
    r = container_exec_delete(containers_find(context->containers, q->id), q->exec_id, &remains, &e);
    on_deleted(r, r < 0 ? error_message(&e) : NULL, &remains, call);
}

static int kill_exec(const Process *p, const Cloudhv__Agent__V1__KillRequest *q, Error *e)
{
    int r = q->signal < 1 || q->signal > 64 ? -EINVAL : process_signal(p, (int)q->signal);

    if (r == -EINVAL)
        return error_set(e, r, "%u is not a signal", q->signal);
    if (r == -ESRCH)
        return error_set(e, r, "the process %s of the container %s does not run", q->exec_id, q->id);
    return r < 0 ? error_set_errno(e, -EIO, "cannot send signal %u to the process %s", q->signal, q->exec_id) : 0;
}

static void handle_kill(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__KillRequest *q = (const Cloudhv__Agent__V1__KillRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    Process *p;
    int r;

    if (service_refuse(call, context))
        return;
    p = service_find_process(call, context, q->id, q->exec_id);
    if (!p)
        return;
    if (q->exec_id[0])
        r = kill_exec(p, q, &e);
    else
        r = container_kill(containers_find(context->containers, q->id), q->signal > 64 ? 0 : (int)q->signal, q->all,
                           &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
    else
        reply_empty(call);
}

static void on_paused(int number, const char *message, void *userdata)
{
    TtrpcCall *call = userdata;

    if (number < 0)
        service_fail(call, number, message);
    else
        reply_empty(call);
}

static void pause_or_resume(TtrpcCall *call, const ProtobufCMessage *request, const AgentContext *context, bool paused)
{
    const Cloudhv__Agent__V1__ContainerRequest *q = (const Cloudhv__Agent__V1__ContainerRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    Container *c;
    int r;

    if (service_refuse(call, context))
        return;
    c = service_find_container(call, context, q->id);
    if (!c)
        return;
    r = container_pause(c, paused, on_paused, call, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
}

static void handle_pause(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    pause_or_resume(call, request, userdata, true);
}

static void handle_resume(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    pause_or_resume(call, request, userdata, false);
}

static void handle_stats(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__StatsRequest *q = (const Cloudhv__Agent__V1__StatsRequest *)request;
    Cloudhv__Agent__V1__StatsResponse response = CLOUDHV__AGENT__V1__STATS_RESPONSE__INIT;
    _cleanup_free_ uint8_t *metrics = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    Container *c = NULL;
    int r;

    if (service_refuse(call, context))
        return;
    if (q->id[0]) {
        c = service_find_container(call, context, q->id);
        if (!c)
            return;
    }
    r = stats_read(c ? container_cgroup(c) : AGENT_CGROUP_MOUNT AGENT_CGROUP_PARENT, &metrics, &response.metrics.len,
                   &e);
    if (r < 0) {
        service_fail(call, r, error_message(&e));
        return;
    }
    response.metrics.data = metrics;
    ttrpc_call_reply(call, &response.base);
}

static void handle_list_processes(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ContainerRequest *q = (const Cloudhv__Agent__V1__ContainerRequest *)request;
    Cloudhv__Agent__V1__ListProcessesResponse response = CLOUDHV__AGENT__V1__LIST_PROCESSES_RESPONSE__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ pid_t *pids = NULL;
    AgentContext *context = userdata;
    Container *c;
    size_t n;
    int r;

    if (service_refuse(call, context))
        return;
    c = service_find_container(call, context, q->id);
    if (!c)
        return;
    r = container_processes(c, LIST_PROCESSES_MAX, &pids, &n, &e);
    if (r < 0) {
        service_fail(call, r, error_message(&e));
        return;
    }
    static_assert(sizeof(pid_t) == sizeof(uint32_t), "pids are sent as they are");
    response.n_pids = n;
    response.pids = (uint32_t *)pids;
    ttrpc_call_reply(call, &response.base);
}

static void handle_list_containers(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    Cloudhv__Agent__V1__ListContainersResponse response = CLOUDHV__AGENT__V1__LIST_CONTAINERS_RESPONSE__INIT;
    Cloudhv__Agent__V1__ContainerInfo infos[AGENT_CONTAINERS_MAX], *list[AGENT_CONTAINERS_MAX];
    AgentContext *context = userdata;
    Container *c = NULL;

    if (service_refuse(call, context))
        return;
    while ((c = containers_next(context->containers, c))) {
        Cloudhv__Agent__V1__ContainerInfo *info = &infos[response.n_containers];

        if (!container_status(c))
            continue;
        cloudhv__agent__v1__container_info__init(info);
        info->id = (char *)container_id(c);
        info->pid = (uint32_t)process_pid(container_process(c));
        info->status = (char *)container_status(c);
        list[response.n_containers++] = info;
    }
    response.containers = list;
    ttrpc_call_reply(call, &response.base);
}

int service_add_task(TtrpcServer *server, AgentContext *context)
{
    static const ServiceMethod methods[] = {
        {"Hello", service_hello},
        {"ConfigureNetwork", handle_configure_network},
        {"AddFiles", handle_add_files},
        {"ReadTreeFile", handle_read_tree_file},
        {"CreateContainer", handle_create_container},
        {"DeleteContainer", handle_delete_container},
        {"Exec", handle_exec},
        {"Pause", handle_pause},
        {"Resume", handle_resume},
        {"StartProcess", handle_start_process},
        {"WaitProcess", service_wait_process},
        {"DeleteProcess", handle_delete_process},
        {"Kill", handle_kill},
        {"Stats", handle_stats},
        {"ListProcesses", handle_list_processes},
        {"ListContainers", handle_list_containers},
        {"ReadStream", service_read_stream},
        {"WriteStream", service_write_stream},
        {"CloseStdin", service_close_stdin},
    };
    static TtrpcHandler handlers[AGENT_METHODS_MAX];
    const ProtobufCServiceDescriptor *descriptor = &cloudhv__agent__v1__task__descriptor;
    int r;

    r = service_fill(descriptor, methods, ELEMENTSOF(methods), handlers);
    return r < 0 ? r : ttrpc_server_add_service(server, NULL, descriptor, handlers, context);
}
