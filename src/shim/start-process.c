/* SPDX-License-Identifier: MIT */

#include "shim/start-process.h"

#include <errno.h>
#include <malloc.h>

#include "agent.pb-c.h"
#include "base/log.h"
#include "base/trace.h"
#include "containerd-task.pb-c.h"
#include "shim/container.h"
#include "shim/pod.h"
#include "shim/shim.h"

static void fail(ProcessOp *start, const Error *e)
{
    Process *p = start->process;

    log_error("cannot start container %s: %s", p->container->id, error_message(e));
    /* It may also have ended with its VM. */
    if (p->state == PROCESS_STARTING)
        (void)process_move(p, PROCESS_CREATED, NULL);
    if (p->ended_early)
        process_end(p, p->exit_status);
    ttrpc_call_fail(process_op_end(start), ttrpc_code_from_errno(e->number), "cannot start container %s: %s",
                    p->container->id, error_message(e));
}

static void succeed(ProcessOp *start)
{
    Containerd__StartResponse response = CONTAINERD__START_RESPONSE__INIT;
    Process *p = start->process;
    TtrpcCall *call = process_op_end(start);

    TRACE("shim.start-task.started");
    response.pid = (uint32_t)getpid();
    process_started(p);
    ttrpc_call_reply(call, &response.base);
    (void)malloc_trim(0);
}

static void on_started(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ProcessOp *start = userdata;

    start->pending = NULL;
    if (ttrpc_reply_error(reply, "the guest", &e) < 0)
        fail(start, &e);
    else
        succeed(start);
}

static int start_in_guest(ProcessOp *start, Error *e)
{
    Cloudhv__Agent__V1__ProcessRequest request = CLOUDHV__AGENT__V1__PROCESS_REQUEST__INIT;
    const Process *p = start->process;
    const VmmConfig *vmm = &p->container->shim->config->vmm;
    TtrpcClient *agent = pod_agent(p->container->shim->pod);
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "StartProcess",
        .request = &request.base,
        .timeout_usec = (vmm->operation_timeout_secs + vmm->boot_timeout_secs) * USEC_PER_SEC,
    };
    int r;

    if (!agent)
        return error_set(e, -ESHUTDOWN, "the pod's VM has ended");
    request.id = p->container->id;
    request.exec_id = p->exec_id;
    r = ttrpc_client_call(agent, &spec, on_started, start, &start->pending);
    return r < 0 ? error_set_errno(e, r, "cannot ask the agent to start it") : 0;
}

static void on_network(_unused_ Pod *pod, const Error *error, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ProcessOp *start = userdata;

    if (error)
        fail(start, error);
    else if (!start->process->has_process)
        succeed(start);
    else if (start_in_guest(start, &e) < 0)
        fail(start, &e);
}

void start_process(Process *p, TtrpcCall *call)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ProcessOp *start;
    int r;

    r = process_move(p, PROCESS_STARTING, &e);
    if (r < 0) {
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "%s", error_message(&e));
        return;
    }
    TRACE("shim.start-task.begun");
    start = process_op_new(p, call);
    if (!start) {
        (void)process_move(p, PROCESS_CREATED, NULL);
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    if (p->container->owns_pod && !*p->exec_id)
        r = pod_configure_network(p->container->shim->pod, on_network, start, &e);
    else
        r = start_in_guest(start, &e);
    if (r < 0)
        fail(start, &e);
}
