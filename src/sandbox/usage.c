/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <stdio.h>

#include "base/procfs.h"
#include "sandbox/vm-internal.h"

typedef struct UsageQuery {
    Sandbox *sandbox;
    SandboxUsageFn callback;
    void *userdata;
} UsageQuery;

static uint64_t vmm_private_bytes(const Sandbox *s)
{
    static const char *const keys[] = {"Private_Clean", "Private_Dirty"};
    uint64_t values[ELEMENTSOF(keys)];
    char path[64];

    snprintf(path, sizeof(path), "/proc/%i/smaps_rollup", s->vmm ? (int)vmm_pid(s->vmm) : 0);
    return procfs_read(path, keys, ELEMENTSOF(keys), values) < 0 ? 0 : (values[0] + values[1]) * 1024;
}

static void on_usage(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Agent__V1__UsageResponse *response;
    _cleanup_error_ Error e = ERROR_INIT;
    UsageQuery query = *(UsageQuery *)userdata;
    SandboxUsage usage;

    free(userdata);
    if (ttrpc_reply_error(reply, "asking the agent in the VM", &e) < 0) {
        query.callback(query.sandbox, NULL, &e, query.userdata);
        return;
    }
    response = (const Cloudhv__Agent__V1__UsageResponse *)reply->response;
    usage = (SandboxUsage){
        .vmm_private = vmm_private_bytes(query.sandbox),
        .agent_private = response->agent_private,
        .agent_peak = response->agent_peak,
        .agent_wakeups = response->agent_wakeups,
        .memory_total = response->memory_total,
        .memory_available = response->memory_available,
    };
    query.callback(query.sandbox, &usage, NULL, query.userdata);
}

static void on_greeted(const TtrpcReply *reply, void *userdata)
{
    /* The call that follows on the same connection fails likewise. */
}

/* A VM that was taken over has no connection until one is needed, and one that broke is made again. */
static int connect_agent(Sandbox *s, Error *e)
{
    Cloudhv__Agent__V1__HelloRequest hello = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    int r;

    s->control = ttrpc_client_free(s->control);
    r = sandbox_open_control(s, e);
    if (r < 0)
        return r;
    hello.protocol = 1;
    hello.peer = (char *)"daemon";
    r = ttrpc_client_call(s->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Hello",
                                           .request = &hello.base,
                                           .timeout_usec = s->settings->operation_timeout_usec},
                          on_greeted, NULL, NULL);
    return r < 0 ? error_set_errno(e, r, "cannot greet the agent in the VM") : 0;
}

static int send_query(const UsageQuery *query)
{
    Cloudhv__Agent__V1__Empty request = CLOUDHV__AGENT__V1__EMPTY__INIT;
    UsageQuery *copy = malloc(sizeof(*copy));
    Sandbox *s = query->sandbox;
    int r;

    if (!copy)
        return -ENOMEM;
    *copy = *query;
    r = ttrpc_client_call(s->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Usage",
                                           .request = &request.base,
                                           .timeout_usec = s->settings->operation_timeout_usec},
                          on_usage, copy, NULL);
    if (r < 0)
        free(copy);
    return r;
}

int sandbox_get_usage(Sandbox *s, SandboxUsageFn callback, void *userdata, Error *e)
{
    UsageQuery query = {.sandbox = s, .callback = callback, .userdata = userdata};
    int r = -ENOTCONN;

    if (s->phase != SANDBOX_RUNNING)
        return error_set(e, -ENOTCONN, "the VM of sandbox %s does not run", s->state.sandbox_id);
    if (s->control)
        r = send_query(&query);
    if (r == -ENOTCONN) {
        r = connect_agent(s, e);
        if (r < 0)
            return r;
        r = send_query(&query);
    }
    return r < 0 ? error_set_errno(e, r, "cannot ask the agent in the VM") : 0;
}
