/* SPDX-License-Identifier: MIT */

#include "shim/exec.h"

#include <errno.h>
#include <string.h>

#include "agent.pb-c.h"
#include "base/log.h"
#include "base/trace.h"
#include "config/config.h"
#include "oci/ids.h"
#include "oci/plan.h"
#include "shim/container.h"
#include "shim/daemon-link.h"
#include "shim/pod.h"
#include "shim/task-events.h"
#include "shim/task.h"

static void exec_free(Process *p)
{
    Process **link = &p->container->execs;

    while (*link && *link != p)
        link = &(*link)->next;
    if (*link)
        *link = p->next;
    process_clear(p);
    free(p);
}

static void on_exec_ended(Process *p)
{
    process_stop(p);
}

static void fail(ProcessOp *x, const Error *e)
{
    _cleanup_error_ Error failure = ERROR_INIT;
    Process *p = x->process;

    error_set(&failure, e->number, "cannot make exec %s: %s", p->exec_id, error_message(e));
    task_fail_call(process_op_end(x), &failure);
    exec_free(p);
}

static void on_created(const TtrpcReply *reply, void *userdata)
{
    Containerd__Empty empty = CONTAINERD__EMPTY__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    ProcessOp *x = userdata;
    Process *p = x->process;
    int r;

    x->pending = NULL;
    r = ttrpc_reply_error(reply, "the guest", &e);
    if (r >= 0 && !pod_agent(p->container->shim->pod))
        r = error_set(&e, -ESHUTDOWN, "the pod's VM has ended");
    if (r >= 0)
        r = process_move(p, PROCESS_CREATED, &e);
    if (r >= 0)
        r = process_attach(p, pod_agent(p->container->shim->pod), &e);
    if (r < 0) {
        fail(x, &e);
        return;
    }
    p->has_process = true;
    task_event_exec_added(p);
    ttrpc_call_reply(process_op_end(x), &empty.base);
}

static int send_exec(ProcessOp *x, const char *process, Error *e)
{
    Cloudhv__Agent__V1__ExecRequest request = CLOUDHV__AGENT__V1__EXEC_REQUEST__INIT;
    const Process *p = x->process;
    const Shim *shim = p->container->shim;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "Exec",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(shim->daemon),
    };
    TtrpcClient *agent = pod_agent(shim->pod);
    int r;

    if (!agent)
        return error_set(e, -ESHUTDOWN, "the pod's VM has ended");
    request.id = p->container->id;
    request.exec_id = p->exec_id;
    request.process.data = (uint8_t *)process;
    request.process.len = strlen(process);
    request.stdin = *p->stdin_path != 0;
    request.stdout = *p->stdout_path != 0;
    request.stderr = *p->stderr_path != 0 && !p->terminal;
    request.terminal = p->terminal;
    r = ttrpc_client_call(agent, &spec, on_created, x, &x->pending);
    return r < 0 ? error_set_errno(e, r, "cannot ask the agent") : 0;
}

static int rebuild(const Container *c, const Containerd__ExecProcessRequest *request, char **ret, Error *e)
{
    const Shim *shim = c->shim;
    const OciSettings settings = {
        .container_id = c->id,
        .sandbox_id = shim->spec->id,
        .netns = shim->pod ? pod_netns(shim->pod) : NULL,
        .pod_pid = getpid(),
        .ignore_lsm = shim->config->ignore_lsm,
    };
    bool terminal = false;
    int r;

    if (!request->spec)
        return error_set(e, -EINVAL, "the request has no process");
    r = oci_exec_rebuild(request->spec->value.data, request->spec->value.len, &settings, ret, &terminal, e);
    if (r >= 0 && terminal != request->terminal)
        return error_set(e, -EINVAL, "process.terminal is %s, the request says otherwise",
                         terminal ? "true" : "false");
    return r;
}

static int check(const Container *c, const Containerd__ExecProcessRequest *request, Error *e)
{
    if (id_check(request->exec_id, "exec id", e) < 0)
        return e->number;
    if (container_process((Container *)c, request->exec_id))
        return error_set(e, -EEXIST, "container %s has an exec %s already", c->id, request->exec_id);
    if (c->init.state != PROCESS_RUNNING || !c->init.has_process)
        return error_set(e, -EPERM, "container %s is %s", c->id,
                         c->init.has_process ? process_state_name(c->init.state) : "the sandbox, without a process");
    return 0;
}

static int begin(Container *c, TtrpcCall *call, const Containerd__ExecProcessRequest *request, Error *e)
{
    _cleanup_free_ char *process = NULL;
    ProcessOp *x = NULL;
    Process *p = NULL;
    int r;

    r = check(c, request, e);
    if (r >= 0)
        r = rebuild(c, request, &process, e);
    if (r < 0)
        return r;
    p = calloc(1, sizeof(*p));
    if (!p)
        return error_set_errno(e, -ENOMEM, "cannot make exec %s", request->exec_id);
    r = process_init(p, c, request->exec_id, request->terminal, request->stdin, request->stdout, request->stderr,
                     on_exec_ended);
    if (r >= 0)
        x = process_op_new(p, call);
    if (r < 0 || !x) {
        process_clear(p);
        free(p);
        return error_set_errno(e, -ENOMEM, "cannot make exec %s", request->exec_id);
    }
    p->next = c->execs;
    c->execs = p;
    r = process_open_stdio(p, e);
    if (r >= 0)
        r = send_exec(x, process, e);
    if (r < 0) {
        (void)process_op_end(x);
        exec_free(p);
    }
    return r;
}

void exec_create(Shim *shim, TtrpcCall *call, const Containerd__ExecProcessRequest *request)
{
    Container *c = container_find(shim, request->id);
    _cleanup_error_ Error e = ERROR_INIT;

    if (!c)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "container %s: not found", request->id);
    else if (begin(c, call, request, &e) < 0)
        ttrpc_call_fail_error(call, &e);
}

static void end_delete(ProcessOp *x)
{
    void (*answer)(TtrpcCall *, const Process *) = x->answer;
    Process *p = x->process;

    answer(process_op_end(x), p);
    exec_free(p);
}

static void on_deleted(const TtrpcReply *reply, void *userdata)
{
    ProcessOp *x = userdata;

    x->pending = NULL;
    if (reply->code != TTRPC_OK && reply->code != TTRPC_NOT_FOUND)
        log_warning("container %s: the agent cannot delete exec %s: %s", x->process->container->id,
                    x->process->exec_id, reply->message);
    end_delete(x);
}

static int delete_in_guest(ProcessOp *x)
{
    Cloudhv__Agent__V1__ProcessRequest request = CLOUDHV__AGENT__V1__PROCESS_REQUEST__INIT;
    const Shim *shim = x->process->container->shim;
    TtrpcClient *agent = pod_agent(shim->pod);
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "DeleteProcess",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(shim->daemon),
    };

    if (!agent)
        return -ENOTCONN;
    request.id = x->process->container->id;
    request.exec_id = x->process->exec_id;
    return ttrpc_client_call(agent, &spec, on_deleted, x, &x->pending);
}

void exec_delete(Process *p, TtrpcCall *call, void (*answer)(TtrpcCall *call, const Process *p))
{
    _cleanup_error_ Error e = ERROR_INIT;
    ProcessOp *x;

    if (p->op) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "exec %s is %s", p->exec_id, process_state_name(p->state));
        return;
    }
    if (process_move(p, PROCESS_DELETING, &e) < 0) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "%s", error_message(&e));
        return;
    }
    x = process_op_new(p, call);
    if (!x) {
        answer(call, p);
        exec_free(p);
        return;
    }
    x->answer = answer;
    /* What is left of it in the guest without this goes with the container. */
    if (delete_in_guest(x) < 0)
        end_delete(x);
}
