/* SPDX-License-Identifier: MIT */

#include "shim/process.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "agent.pb-c.h"
#include "base/log.h"
#include "base/trace.h"
#include "containerd-task.pb-c.h"
#include "shim/container.h"
#include "shim/shim.h"
#include "shim/task-events.h"

#define NSEC_PER_SEC 1000000000ULL
#define SIGKILL_STATUS (128 + 9)

enum { WAITERS_MAX = 256 };

#define TO(state) (1U << (state))

/* Where each state can lead. */
static const unsigned moves[] = {
    [PROCESS_CREATING] = TO(PROCESS_CREATED) | TO(PROCESS_DELETING),
    [PROCESS_CREATED] = TO(PROCESS_STARTING) | TO(PROCESS_ENDING) | TO(PROCESS_DELETING),
    [PROCESS_STARTING] = TO(PROCESS_RUNNING) | TO(PROCESS_CREATED) | TO(PROCESS_ENDING),
    [PROCESS_RUNNING] = TO(PROCESS_ENDING),
    [PROCESS_ENDING] = TO(PROCESS_STOPPED),
    [PROCESS_STOPPED] = TO(PROCESS_DELETING),
    [PROCESS_DELETING] = TO(PROCESS_STOPPED),
};

static const char *const state_names[] = {"being created", "created", "being started", "running",
                                          "ending",        "stopped", "being deleted"};

const char *process_state_name(ProcessState state)
{
    return state_names[state];
}

int process_move(Process *p, ProcessState to, Error *e)
{
    if (!(moves[p->state] & TO(to)))
        return error_set(e, -EPERM, "%s %s is %s and cannot become %s", *p->exec_id ? "exec" : "container",
                         *p->exec_id ? p->exec_id : p->container->id, state_names[p->state], state_names[to]);
    p->state = to;
    return 0;
}

int process_init(Process *p, Container *container, const char *exec_id, bool terminal, const char *stdin_path,
                 const char *stdout_path, const char *stderr_path, ProcessEndedFn ended)
{
    *p = (Process){
        .container = container,
        .exec_id = strdup(exec_id),
        .terminal = terminal,
        .stdin_path = strdup(stdin_path),
        .stdout_path = strdup(stdout_path),
        .stderr_path = strdup(stderr_path),
        .ended = ended,
    };
    return p->exec_id && p->stdin_path && p->stdout_path && p->stderr_path ? 0 : -ENOMEM;
}

static void waiters_fail(Process *p)
{
    while (p->n_waiters > 0)
        ttrpc_call_fail(p->waiters[--p->n_waiters], TTRPC_NOT_FOUND, "the process was deleted");
    free(TAKE_PTR(p->waiters));
}

ProcessOp *process_op_new(Process *p, TtrpcCall *call)
{
    ProcessOp *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->process = p;
    op->call = call;
    p->op = op;
    return op;
}

TtrpcCall *process_op_end(ProcessOp *op)
{
    TtrpcCall *call = op->call;

    op->process->op = NULL;
    free(op);
    return call;
}

void process_clear(Process *p)
{
    if (p->op) {
        if (p->op->pending)
            ttrpc_pending_cancel(p->op->pending);
        ttrpc_call_fail(process_op_end(p->op), TTRPC_CANCELED, "the process was deleted");
    }
    if (p->wait)
        ttrpc_pending_cancel(TAKE_PTR(p->wait));
    p->stdio = stdio_free(p->stdio);
    waiters_fail(p);
    free(TAKE_PTR(p->exec_id));
    free(TAKE_PTR(p->stdin_path));
    free(TAKE_PTR(p->stdout_path));
    free(TAKE_PTR(p->stderr_path));
}

static void on_drained(void *userdata)
{
    Process *p = userdata;

    if (p->state == PROCESS_ENDING) {
        TRACE("shim.exit.output-drained");
        p->ended(p);
    }
}

int process_open_stdio(Process *p, Error *e)
{
    StdioSpec spec = {
        .id = p->container->id,
        .exec_id = p->exec_id,
        .stdin_path = p->stdin_path,
        .stdout_path = p->stdout_path,
        .stderr_path = p->terminal ? "" : p->stderr_path,
    };

    return stdio_new(p->container->shim->loop, &spec, on_drained, p, &p->stdio, e);
}

/* From ENDING, on_drained() goes on: at once where there are no streams. */
static void drain(Process *p)
{
    if (p->stdio)
        stdio_process_ended(p->stdio);
    else
        on_drained(p);
}

static uint64_t now_nsec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

void process_end(Process *p, uint32_t exit_status)
{
    if (p->state == PROCESS_STARTING) {
        p->ended_early = true;
        p->exit_status = exit_status;
        return;
    }
    if (process_move(p, PROCESS_ENDING, NULL) < 0)
        return;
    p->exit_status = exit_status;
    /* The host's time: a guest's clock is not to be trusted with it. */
    p->exited_at_nsec = now_nsec();
    drain(p);
}

void process_started(Process *p)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (process_move(p, PROCESS_RUNNING, NULL) < 0)
        return;
    task_event_start(p);
    if (p->ended_early) {
        process_end(p, p->exit_status);
        return;
    }
    if (p->stdio && stdio_start_input(p->stdio, &e) < 0)
        log_warning("container %s: %s", p->container->id, error_message(&e));
}

static void on_process_exit(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Agent__V1__WaitProcessResponse *response;
    Process *p = userdata;

    p->wait = NULL;
    if (reply->code != TTRPC_OK) {
        /* A lost connection is the pod's matter: process_lose() follows. */
        if (reply->code != TTRPC_CANCELED && reply->code != TTRPC_UNAVAILABLE) {
            log_error("container %s: cannot wait for the process: %s", p->container->id, reply->message);
            process_end(p, 255);
        }
        return;
    }
    response = (const Cloudhv__Agent__V1__WaitProcessResponse *)reply->response;
    TRACE("shim.exit.process-ended");
    if (response->oom_killed && !*p->exec_id)
        task_event_oom(p->container);
    process_end(p, response->exit_status & 0xff);
}

int process_attach(Process *p, TtrpcClient *agent, Error *e)
{
    Cloudhv__Agent__V1__ProcessRequest request = CLOUDHV__AGENT__V1__PROCESS_REQUEST__INIT;
    int r;

    request.id = p->container->id;
    request.exec_id = p->exec_id;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "WaitProcess",
        .request = &request.base,
    };
    r = ttrpc_client_call(agent, &spec, on_process_exit, p, &p->wait);
    if (r >= 0 && p->stdio)
        r = stdio_start(p->stdio, agent);
    return r < 0 ? error_set_errno(e, r, "cannot watch the process of container %s", p->container->id) : 0;
}

/* Its answer would find a process that has stopped, or none. A sandbox's start waits for the pod, which ends it. */
static void lose_start(Process *p)
{
    if (p->state != PROCESS_STARTING || !p->op || !p->op->pending)
        return;
    ttrpc_pending_cancel(p->op->pending);
    ttrpc_call_fail(process_op_end(p->op), TTRPC_UNAVAILABLE, "cannot start container %s: the pod's VM has ended",
                    p->container->id);
}

void process_lose(Process *p)
{
    lose_start(p);
    if (p->wait)
        ttrpc_pending_cancel(TAKE_PTR(p->wait));
    if (p->stdio)
        stdio_abandon(p->stdio);
    if (p->state == PROCESS_CREATED || p->state == PROCESS_STARTING || p->state == PROCESS_RUNNING) {
        p->exit_status = SIGKILL_STATUS;
        p->exited_at_nsec = now_nsec();
        p->state = PROCESS_ENDING;
    }
    if (p->state == PROCESS_ENDING)
        process_stop(p);
}

static void answer_wait(const Process *p, TtrpcCall *call)
{
    Containerd__WaitResponse response = CONTAINERD__WAIT_RESPONSE__INIT;
    Containerd__Timestamp exited_at = CONTAINERD__TIMESTAMP__INIT;

    exited_at.seconds = (int64_t)(p->exited_at_nsec / NSEC_PER_SEC);
    exited_at.nanos = (int32_t)(p->exited_at_nsec % NSEC_PER_SEC);
    response.exit_status = p->exit_status;
    response.exited_at = &exited_at;
    ttrpc_call_reply(call, &response.base);
}

void process_stop(Process *p)
{
    TtrpcCall **waiters;
    size_t n;

    if (process_move(p, PROCESS_STOPPED, NULL) < 0)
        return;
    task_event_exit(p);
    TRACE("shim.exit.published");
    waiters = TAKE_PTR(p->waiters);
    n = p->n_waiters;
    p->n_waiters = 0;
    for (size_t i = 0; i < n; i++)
        answer_wait(p, waiters[i]);
    free(waiters);
}

static void on_waiter_gone(TtrpcCall *call, void *userdata)
{
    Process *p = userdata;

    for (size_t i = 0; i < p->n_waiters; i++)
        if (p->waiters[i] == call) {
            p->waiters[i] = p->waiters[--p->n_waiters];
            break;
        }
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits any more");
}

void process_wait(Process *p, TtrpcCall *call)
{
    TtrpcCall **waiters;

    if (p->state == PROCESS_STOPPED || p->state == PROCESS_DELETING) {
        answer_wait(p, call);
        return;
    }
    if (p->n_waiters >= WAITERS_MAX) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "%i callers wait for this process already", WAITERS_MAX);
        return;
    }
    waiters = reallocarray(p->waiters, p->n_waiters + 1, sizeof(*waiters));
    if (!waiters) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    p->waiters = waiters;
    p->waiters[p->n_waiters++] = call;
    ttrpc_call_set_cancel(call, on_waiter_gone, p);
}
