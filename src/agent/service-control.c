/* SPDX-License-Identifier: MIT */

/* Service Control: the VM itself. */

#include <errno.h>

#include "agent/rebirth.h"
#include "agent/service.h"
#include "base/log.h"
#include "base/procfs.h"
#include "base/trace.h"

/* Identity is handled by an agent of this VM alone: returns only if that cannot be, or if this is it. */
static int be_reborn(const TtrpcCall *call, const Cloudhv__Agent__V1__IdentityRequest *q, const AgentContext *context,
                     Error *e)
{
    int r;

    if (context->reborn)
        return 0;
    r = identity_check(q, e);
    if (r >= 0)
        r = identity_add_entropy(&q->entropy, e);
    if (r < 0)
        return r;
    /* Nothing can be done for a pod yet, but somebody may have tried. */
    ttrpc_server_end_sessions(context->task);
    return rebirth(call, e);
}

static void handle_identity(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__IdentityRequest *q = (const Cloudhv__Agent__V1__IdentityRequest *)request;
    Cloudhv__Agent__V1__IdentityResponse response = CLOUDHV__AGENT__V1__IDENTITY_RESPONSE__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    IdentityFacts facts;
    int r;

    r = be_reborn(call, q, context, &e);
    if (r >= 0)
        r = identity_take(context->identity, q, &facts, &e);
    if (r < 0) {
        log_error("no identity: %s", error_message(&e));
        service_fail(call, r, error_message(&e));
        return;
    }
    TRACE("agent.identity.taken");
    response.boot_id = facts.boot_id;
    response.memory_total = facts.memory_total;
    response.vcpus_online = facts.vcpus_online;
    ttrpc_call_reply(call, &response.base);
}

static void handle_set_clock(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__SetClockRequest *q = (const Cloudhv__Agent__V1__SetClockRequest *)request;
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    if (service_refuse(call, userdata))
        return;
    r = identity_set_clock(q->realtime_nsec, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
    else
        ttrpc_call_reply(call, &response.base);
}

static void on_quiesced(int number, const char *message, void *userdata)
{
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    TtrpcCall *call = userdata;

    if (number < 0)
        service_fail(call, number, message);
    else
        ttrpc_call_reply(call, &response.base);
}

static void handle_quiesce(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__QuiesceRequest *q = (const Cloudhv__Agent__V1__QuiesceRequest *)request;
    _cleanup_error_ Error e = ERROR_INIT;
    AgentContext *context = userdata;
    int r;

    if (identity_is_set(context->identity) || q->freeze) {
        ttrpc_call_fail(call, TTRPC_UNIMPLEMENTED, "Quiesce: snapshots of a workload are not implemented");
        return;
    }
    r = quiesce_begin(context->quiesce, q->warm_disk, on_quiesced, call, &e);
    if (r < 0)
        service_fail(call, r, error_message(&e));
}

static void handle_shutdown(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ShutdownRequest *q = (const Cloudhv__Agent__V1__ShutdownRequest *)request;
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    AgentContext *context = userdata;
    bool restart = q->reboot;

    if (service_refuse(call, context))
        return;
    ttrpc_call_reply(call, &response.base);
    context->shut_down(restart, context->userdata);
}

static int read_usage(Cloudhv__Agent__V1__UsageResponse *ret)
{
    static const char *const of_maps[] = {"Private_Clean", "Private_Dirty"};
    static const char *const of_status[] = {"voluntary_ctxt_switches", "VmHWM"};
    static const char *const of_memory[] = {"MemTotal", "MemAvailable"};
    uint64_t maps[2], status[2], memory[2];
    int r;

    r = procfs_read("/proc/self/smaps_rollup", of_maps, ELEMENTSOF(of_maps), maps);
    if (r >= 0)
        r = procfs_read("/proc/self/status", of_status, ELEMENTSOF(of_status), status);
    if (r >= 0)
        r = procfs_read("/proc/meminfo", of_memory, ELEMENTSOF(of_memory), memory);
    if (r < 0)
        return r;
    ret->agent_private = (maps[0] + maps[1]) * 1024;
    ret->agent_wakeups = status[0];
    ret->agent_peak = status[1] * 1024;
    ret->memory_total = memory[0] * 1024;
    ret->memory_available = memory[1] * 1024;
    return 0;
}

static void handle_usage(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    Cloudhv__Agent__V1__UsageResponse response = CLOUDHV__AGENT__V1__USAGE_RESPONSE__INIT;
    int r;

    if (service_refuse(call, userdata))
        return;
    r = read_usage(&response);
    if (r < 0)
        service_fail(call, r, "cannot read the agent's own figures");
    else
        ttrpc_call_reply(call, &response.base);
}

int service_add_control(TtrpcServer *server, AgentContext *context)
{
    static const ServiceMethod methods[] = {
        {"Hello", service_hello},
        {"Identity", handle_identity},
        {"Quiesce", handle_quiesce},
        {"SetClock", handle_set_clock},
        {"Shutdown", handle_shutdown},
        {"Usage", handle_usage},
    };
    static TtrpcHandler handlers[AGENT_METHODS_MAX];
    const ProtobufCServiceDescriptor *descriptor = &cloudhv__agent__v1__control__descriptor;
    int r;

    r = service_fill(descriptor, methods, ELEMENTSOF(methods), handlers);
    return r < 0 ? r : ttrpc_server_add_service(server, NULL, descriptor, handlers, context);
}
