/* SPDX-License-Identifier: MIT */

#include "shim/daemon-link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "daemon.pb-c.h"
#include "shim/own-daemon.h"

#define DAEMON_PROTOCOL 1

struct DaemonLink {
    Loop *loop;
    const ShimConfig *config;
    const char *namespace, *sandbox_id;
    OwnDaemon *own; /* NULL where a daemon is configured, or until it is needed */
};

struct DaemonCall {
    char *method;
    char *where;
    TtrpcClient *client;
    DaemonCallFn callback;
    void *userdata;
};

int daemon_link_new(Loop *loop, const ShimConfig *config, const char *namespace, const char *sandbox_id,
                    DaemonLink **ret)
{
    DaemonLink *link = calloc(1, sizeof(*link));

    if (!link)
        return -ENOMEM;
    link->loop = loop;
    link->config = config;
    link->namespace = namespace;
    link->sandbox_id = sandbox_id;
    *ret = link;
    return 0;
}

DaemonLink *daemon_link_free(DaemonLink *link)
{
    if (!link)
        return NULL;
    own_daemon_free(link->own);
    free(link);
    return NULL;
}

uint64_t daemon_link_timeout(const DaemonLink *link)
{
    return (2 * link->config->vmm.operation_timeout_secs + 5) * USEC_PER_SEC;
}

static int connect_own(DaemonLink *link, Error *e)
{
    int r;

    if (!link->own) {
        r = own_daemon_new(link->loop, link->config, link->namespace, link->sandbox_id, &link->own, e);
        if (r < 0)
            return r;
    }
    return own_daemon_connect(link->own, e);
}

/* Returns a connected socket. */
static int daemon_connect(DaemonLink *link, Error *e)
{
    const char *path = link->config->daemon_socket;
    int fd;

    if (!*path)
        return connect_own(link, e);
    fd = fd_connect_unix(path);
    return fd < 0 ? error_set_errno(e, fd, "cannot reach cloudhv-sandbox-daemon at %s", path) : fd;
}

static void call_free(DaemonCall *call)
{
    TtrpcClient *client = TAKE_PTR(call->client);

    /* No callback is wanted from what is still pending. */
    call->callback = NULL;
    ttrpc_client_free(client);
    free(call->method);
    free(call->where);
    free(call);
}

DEFINE_CLEANUP_FUNC(DaemonCall *, call_free)

DaemonCall *daemon_call_cancel(DaemonCall *call)
{
    if (call)
        call_free(call);
    return NULL;
}

static void finish(DaemonCall *call, const TtrpcReply *reply)
{
    _cleanup_error_ Error e = ERROR_INIT;
    DaemonCallFn callback = TAKE_PTR(call->callback);

    if (!callback)
        return;
    if (ttrpc_reply_error(reply, call->where, &e) < 0)
        callback(NULL, &e, call->userdata);
    else
        callback(reply->response, NULL, call->userdata);
    call_free(call);
}

static void on_hello(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Daemon__V1__HelloResponse *response =
        (const Cloudhv__Daemon__V1__HelloResponse *)reply->response;
    DaemonCall *call = userdata;
    char text[80];

    if (reply->code == TTRPC_OK && response->protocol != DAEMON_PROTOCOL) {
        snprintf(text, sizeof(text), "it speaks protocol %u, this shim %i", response->protocol, DAEMON_PROTOCOL);
        finish(call, &(TtrpcReply){.code = TTRPC_FAILED_PRECONDITION, .message = text});
        return;
    }
    /* The other call follows on the same connection: only a refusal ends it here. */
    if (reply->code != TTRPC_OK && reply->code != TTRPC_CANCELED)
        finish(call, reply);
}

static void on_answer(const TtrpcReply *reply, void *userdata)
{
    finish(userdata, reply);
}

static int send_hello(DaemonCall *call, Error *e)
{
    Cloudhv__Daemon__V1__HelloRequest request = CLOUDHV__DAEMON__V1__HELLO_REQUEST__INIT;
    int r;

    request.protocol = DAEMON_PROTOCOL;
    request.peer = (char *)"shim";
    TtrpcCallSpec spec = {
        .service = &cloudhv__daemon__v1__sandboxes__descriptor,
        .method = "Hello",
        .request = &request.base,
        .timeout_usec = 30 * USEC_PER_SEC,
    };
    r = ttrpc_client_call(call->client, &spec, on_hello, call, NULL);
    return r < 0 ? error_set_errno(e, r, "cannot greet the sandbox daemon") : 0;
}

int daemon_call(DaemonLink *link, const DaemonCallSpec *s, DaemonCallFn callback, void *userdata,
                DaemonCall **ret, Error *e)
{
    _cleanup_(call_freep) DaemonCall *call = calloc(1, sizeof(*call));
    int fd, r;

    if (!call)
        return error_set_errno(e, -ENOMEM, "cannot call the sandbox daemon");
    call->method = strdup(s->method);
    call->where = strdup(*link->config->daemon_socket ? "cloudhv-sandbox-daemon" : "sandbox");
    if (!call->method || !call->where)
        return error_set_errno(e, -ENOMEM, "cannot call the sandbox daemon");
    fd = daemon_connect(link, e);
    if (fd < 0)
        return fd;
    r = ttrpc_client_new(link->loop, fd, &call->client);
    if (r < 0)
        return error_set_errno(e, r, "cannot speak to the sandbox daemon");
    r = send_hello(call, e);
    if (r < 0)
        return r;
    TtrpcCallSpec spec = {
        .service = &cloudhv__daemon__v1__sandboxes__descriptor,
        .method = call->method,
        .request = s->request,
        .timeout_usec = s->timeout_usec,
        .fds = s->fds,
        .n_fds = s->n_fds,
    };
    r = ttrpc_client_call(call->client, &spec, on_answer, call, NULL);
    if (r < 0)
        return error_set_errno(e, r, "cannot call %s of the sandbox daemon", s->method);
    call->callback = callback;
    call->userdata = userdata;
    *ret = TAKE_PTR(call);
    return 0;
}
