/* SPDX-License-Identifier: MIT */

#include "agent/service.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

int service_fill(const ProtobufCServiceDescriptor *descriptor, const ServiceMethod *methods, size_t n,
                 TtrpcHandler handlers[static AGENT_METHODS_MAX])
{
    if (descriptor->n_methods > AGENT_METHODS_MAX)
        return -E2BIG;
    for (size_t i = 0; i < n; i++) {
        const ProtobufCMethodDescriptor *m =
            protobuf_c_service_descriptor_get_method_by_name(descriptor, methods[i].name);

        if (!m)
            return -ENOENT;
        handlers[m - descriptor->methods] = methods[i].handler;
    }
    return 0;
}

void service_fail(TtrpcCall *call, int number, const char *message)
{
    TtrpcCode code = number == -EIO ? TTRPC_INTERNAL : ttrpc_code_from_errno(number);

    ttrpc_call_fail(call, code, "%s", message ?: strerrordesc_np(-number) ?: "unknown error");
}

bool service_refuse(TtrpcCall *call, const AgentContext *context)
{
    if (identity_is_set(context->identity))
        return false;
    ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "%s: the VM has no identity yet", ttrpc_call_method(call));
    return true;
}

void service_hello(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    static const char *const features[] = {"volumes", "pod-pid", "exec", "pause", "stats"};
    const Cloudhv__Agent__V1__HelloRequest *q = (const Cloudhv__Agent__V1__HelloRequest *)request;
    Cloudhv__Agent__V1__HelloResponse response = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;
    struct utsname uts;

    if (q->protocol == 0) {
        ttrpc_call_fail(call, TTRPC_INVALID_ARGUMENT, "Hello without a protocol version");
        return;
    }
    if (uname(&uts) < 0)
        uts.release[0] = 0;
    response.protocol = q->protocol < AGENT_PROTOCOL ? q->protocol : AGENT_PROTOCOL;
    response.n_features = ELEMENTSOF(features);
    response.features = (char **)features;
    response.agent_version = (char *)CLOUDHV_VERSION;
    response.kernel_release = uts.release;
    ttrpc_call_reply(call, &response.base);
}
