/* SPDX-License-Identifier: MIT */

#include "shim/task.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "agent.pb-c.h"
#include "base/log.h"
#include "base/trace.h"
#include "containerd-task.pb-c.h"
#include "shim/container.h"
#include "shim/create.h"
#include "shim/daemon-link.h"
#include "shim/exec.h"
#include "shim/pod.h"
#include "shim/start-process.h"
#include "shim/task-events.h"

#define NSEC_PER_SEC 1000000000ULL

/* The container and process that a request names, or an answer that there is none. */
static Process *find_process(Shim *shim, TtrpcCall *call, const char *id, const char *exec_id)
{
    Container *c = container_find(shim, id);
    Process *p = c ? container_process(c, exec_id) : NULL;

    if (!c)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "container %s: not found", id);
    else if (!p)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "container %s: process %s not found", id, exec_id);
    return p;
}

static void reply_empty(TtrpcCall *call)
{
    Containerd__Empty empty = CONTAINERD__EMPTY__INIT;

    ttrpc_call_reply(call, &empty.base);
}

static Containerd__Timestamp timestamp(uint64_t nsec)
{
    Containerd__Timestamp t = CONTAINERD__TIMESTAMP__INIT;

    t.seconds = (int64_t)(nsec / NSEC_PER_SEC);
    t.nanos = (int32_t)(nsec % NSEC_PER_SEC);
    return t;
}

/* -------------------------------------------------------------------------------------------------- state */

static Containerd__Status public_status(ProcessState state)
{
    switch (state) {
    case PROCESS_CREATED:
    case PROCESS_STARTING:
        return CONTAINERD__STATUS__CREATED;
    case PROCESS_RUNNING:
    case PROCESS_ENDING:
        return CONTAINERD__STATUS__RUNNING;
    case PROCESS_STOPPED:
    case PROCESS_DELETING:
        return CONTAINERD__STATUS__STOPPED;
    default:
        return CONTAINERD__STATUS__UNKNOWN;
    }
}

static void handle_state(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__StateRequest *request = (const Containerd__StateRequest *)message;
    Containerd__StateResponse response = CONTAINERD__STATE_RESPONSE__INIT;
    Process *p = find_process(userdata, call, request->id, request->exec_id);
    Containerd__Timestamp exited_at;

    if (!p)
        return;
    response.id = p->container->id;
    response.bundle = p->container->bundle;
    response.pid = (uint32_t)getpid();
    response.status = public_status(p->state);
    response.stdin = p->stdin_path;
    response.stdout = p->stdout_path;
    response.stderr = p->stderr_path;
    response.terminal = p->terminal;
    response.exec_id = p->exec_id;
    response.exit_status = p->exit_status;
    exited_at = timestamp(p->exited_at_nsec);
    if (p->exited_at_nsec > 0)
        response.exited_at = &exited_at;
    ttrpc_call_reply(call, &response.base);
}

static void handle_pids(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__PidsRequest *request = (const Containerd__PidsRequest *)message;
    Containerd__PidsResponse response = CONTAINERD__PIDS_RESPONSE__INIT;
    Containerd__ProcessInfo info = CONTAINERD__PROCESS_INFO__INIT;
    Containerd__ProcessInfo *infos[] = {&info};

    if (!find_process(userdata, call, request->id, ""))
        return;
    /* Also for a task that has ended: after its own restart containerd takes a shim without any for a leak. */
    info.pid = (uint32_t)getpid();
    response.processes = infos;
    response.n_processes = ELEMENTSOF(infos);
    ttrpc_call_reply(call, &response.base);
}

static void handle_connect(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__ConnectRequest *request = (const Containerd__ConnectRequest *)message;
    Containerd__ConnectResponse response = CONTAINERD__CONNECT_RESPONSE__INIT;

    response.shim_pid = (uint32_t)getpid();
    response.task_pid = container_find(userdata, request->id) ? (uint32_t)getpid() : 0;
    response.version = (char *)CLOUDHV_VERSION;
    ttrpc_call_reply(call, &response.base);
}

static void handle_wait(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__WaitRequest *request = (const Containerd__WaitRequest *)message;
    Process *p = find_process(userdata, call, request->id, request->exec_id);

    if (p)
        process_wait(p, call);
}

/* ------------------------------------------------------------------------------------------- create, start */

static void handle_create(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    create_start(userdata, call, (const Containerd__CreateTaskRequest *)message);
}

static void handle_start(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__StartRequest *request = (const Containerd__StartRequest *)message;
    Process *p = find_process(userdata, call, request->id, request->exec_id);

    if (p)
        start_process(p, call);
}

static void handle_exec(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    exec_create(userdata, call, (const Containerd__ExecProcessRequest *)message);
}

/* --------------------------------------------------------------------------------------------------- kill */

typedef struct Kill {
    TtrpcCall *call;
    char *id;
} Kill;

static void on_killed(const TtrpcReply *reply, void *userdata)
{
    Kill *kill = userdata;

    if (reply->code == TTRPC_OK)
        reply_empty(kill->call);
    else if (reply->code == TTRPC_NOT_FOUND)
        ttrpc_call_fail(kill->call, TTRPC_NOT_FOUND, "process already finished");
    else
        ttrpc_call_fail(kill->call, reply->code, "container %s: cannot send the signal: %s", kill->id,
                        reply->message);
    free(kill->id);
    free(kill);
}

/* The sandbox's container has no process: what would end one ends it. */
static void kill_sandbox(Process *p, TtrpcCall *call, uint32_t signal)
{
    static const uint32_t deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGTERM};

    for (size_t i = 0; i < ELEMENTSOF(deadly); i++)
        if (signal == deadly[i]) {
            process_end(p, 128 + signal);
            break;
        }
    reply_empty(call);
}

static int kill_in_guest(Shim *shim, TtrpcCall *call, const Containerd__KillRequest *request)
{
    Cloudhv__Agent__V1__KillRequest forward = CLOUDHV__AGENT__V1__KILL_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "Kill",
        .request = &forward.base,
        .timeout_usec = daemon_link_timeout(shim->daemon),
    };
    TtrpcClient *agent = pod_agent(shim->pod);
    Kill *kill;
    int r;

    if (!agent)
        return -ENOTCONN;
    kill = calloc(1, sizeof(*kill));
    if (!kill)
        return -ENOMEM;
    kill->call = call;
    kill->id = strdup(request->id);
    forward.id = request->id;
    forward.exec_id = request->exec_id;
    forward.signal = request->signal;
    forward.all = request->all;
    r = kill->id ? ttrpc_client_call(agent, &spec, on_killed, kill, NULL) : -ENOMEM;
    if (r < 0) {
        free(kill->id);
        free(kill);
    }
    return r;
}

static void handle_kill(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__KillRequest *request = (const Containerd__KillRequest *)message;
    Process *p = find_process(userdata, call, request->id, request->exec_id);
    int r;

    if (!p)
        return;
    if (request->signal > 64) {
        ttrpc_call_fail(call, TTRPC_INVALID_ARGUMENT, "there is no signal %u", request->signal);
        return;
    }
    if (p->state == PROCESS_CREATING) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "container %s is being created", request->id);
        return;
    }
    if (p->state >= PROCESS_ENDING) {
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "process already finished");
        return;
    }
    if (!p->has_process) {
        kill_sandbox(p, call, request->signal);
        return;
    }
    r = kill_in_guest(userdata, call, request);
    if (r < 0)
        ttrpc_call_fail(call, ttrpc_code_from_errno(r), "container %s: cannot send the signal: %s", request->id,
                        strerrordesc_np(-r));
}

/* ------------------------------------------------------------------------------------------------- delete */

static void answer_delete(TtrpcCall *call, const Process *p)
{
    Containerd__DeleteResponse response = CONTAINERD__DELETE_RESPONSE__INIT;
    Containerd__Timestamp exited_at = timestamp(p->exited_at_nsec);

    response.pid = (uint32_t)getpid();
    response.exit_status = p->exit_status;
    response.exited_at = &exited_at;
    ttrpc_call_reply(call, &response.base);
}

static void on_torn_down(Container *c, void *userdata)
{
    TtrpcCall *call = userdata;
    Shim *shim = c->shim;

    task_event_delete(c);
    TRACE("shim.delete.done");
    answer_delete(call, &c->init);
    container_free(c);
    shim_check_idle(shim);
}

static void delete_container(Container *c, TtrpcCall *call)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    if (c->create) {
        create_abort(c->create, "it was deleted meanwhile");
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "container %s is being created, which ends now", c->id);
        return;
    }
    /* One that never was started ends by its deletion. */
    if (c->init.state == PROCESS_CREATED)
        container_lose(c);
    r = process_move(&c->init, PROCESS_DELETING, &e);
    if (r < 0) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "%s", error_message(&e));
        return;
    }
    TRACE("shim.delete.begun");
    r = container_teardown(c, on_torn_down, call);
    if (r < 0) {
        (void)process_move(&c->init, PROCESS_STOPPED, NULL);
        ttrpc_call_fail(call, ttrpc_code_from_errno(r), "cannot delete container %s: %s", c->id,
                        strerrordesc_np(-r));
    }
}

static void handle_delete(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__DeleteRequest *request = (const Containerd__DeleteRequest *)message;
    Process *p = find_process(userdata, call, request->id, request->exec_id);

    if (!p)
        return;
    if (*request->exec_id)
        exec_delete(p, call, answer_delete);
    else
        delete_container(p->container, call);
}

/* --------------------------------------------------------------------------------------------------- rest */

static void handle_close_io(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__CloseIORequest *request = (const Containerd__CloseIORequest *)message;
    Process *p = find_process(userdata, call, request->id, request->exec_id);

    if (!p)
        return;
    if (request->stdin && p->stdio)
        stdio_close_stdin(p->stdio);
    reply_empty(call);
}

static void on_resized(const TtrpcReply *reply, void *userdata)
{
    if (reply->code == TTRPC_OK)
        reply_empty(userdata);
    else
        ttrpc_call_fail(userdata, reply->code, "cannot resize the terminal: %s", reply->message);
}

static void handle_resize(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__ResizePtyRequest *request = (const Containerd__ResizePtyRequest *)message;
    Cloudhv__Agent__V1__ResizeTerminalRequest forward = CLOUDHV__AGENT__V1__RESIZE_TERMINAL_REQUEST__INIT;
    Process *p = find_process(userdata, call, request->id, request->exec_id);
    Shim *shim = userdata;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "ResizeTerminal",
        .request = &forward.base,
        .timeout_usec = daemon_link_timeout(shim->daemon),
    };
    int r;

    if (!p)
        return;
    if (!p->terminal) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "container %s: the process has no terminal", request->id);
        return;
    }
    forward.id = request->id;
    forward.exec_id = request->exec_id;
    forward.width = request->width;
    forward.height = request->height;
    r = pod_agent(shim->pod) ? ttrpc_client_call(pod_agent(shim->pod), &spec, on_resized, call, NULL) : -ENOTCONN;
    if (r < 0)
        ttrpc_call_fail(call, ttrpc_code_from_errno(r), "cannot resize the terminal: %s", strerrordesc_np(-r));
}

/* Comes after each deletion of a task, and after a Create that failed or was given up: then with the id of a
 * container that may still be on its way. */
static void handle_shutdown(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__ShutdownRequest *request = (const Containerd__ShutdownRequest *)message;
    Shim *shim = userdata;
    Container *c = container_find(shim, request->id);

    if (c && c->create) {
        create_abort(c->create, "containerd shuts the shim down");
        shim->stop_when_idle = true;
    }
    reply_empty(call);
    if (!shim->containers)
        shim_stop(shim);
}

/* In the order of the service's methods; those without an entry answer Unimplemented with their names. */
static const TtrpcHandler handlers[] = {
    handle_state,
    handle_create,
    handle_start,
    handle_delete,
    handle_pids,
    NULL, /* Pause */
    NULL, /* Resume */
    NULL, /* Checkpoint */
    handle_kill,
    handle_exec,
    handle_resize,
    handle_close_io,
    NULL, /* Update */
    handle_wait,
    NULL, /* Stats */
    handle_connect,
    handle_shutdown,
};

void task_fail_call(TtrpcCall *call, const Error *e)
{
    TtrpcCode code = ttrpc_code_from_errno(e->number);

    if (code == TTRPC_UNIMPLEMENTED)
        code = TTRPC_FAILED_PRECONDITION;
    else if (code == TTRPC_NOT_FOUND)
        code = TTRPC_UNKNOWN;
    ttrpc_call_fail(call, code, "%s", error_message(e));
}

int task_register(Shim *shim)
{
    static const char *const names[] = {"containerd.task.v2.Task", "containerd.task.v3.Task"};

    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        int r = ttrpc_server_add_service(shim->server, names[i], &containerd__task__descriptor, handlers, shim);

        if (r < 0)
            return r;
    }
    return 0;
}
