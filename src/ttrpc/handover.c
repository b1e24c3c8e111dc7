/* SPDX-License-Identifier: MIT */

#include <errno.h>

#include "base/fd.h"
#include "ttrpc/server.h"

void ttrpc_handover_clear(TtrpcHandover *handover)
{
    free(handover->frame);
    handover->frame = NULL;
}

static int64_t time_left(const TtrpcCall *call)
{
    uint64_t now = loop_now(), deadline = call->call.deadline;

    if (deadline == UINT64_MAX)
        return 0;
    return deadline > now ? (int64_t)((deadline - now) * 1000) : 1;
}

int ttrpc_call_hand_over(const TtrpcCall *call, TtrpcHandover *ret)
{
    const Connection *c = call->connection;
    TtrpcHandover handover = {.fd = -EBADF};
    int fd, r;

    if (!c || call->call.finished)
        return -ENOTCONN;
    if (c->calls.count != 1)
        return -EBUSY;
    r = transport_suspend(c->transport, &fd, &handover.nonce);
    if (r < 0)
        return r;
    if (!c->serial)
        handover.fd = fd;
    r = ttrpc_message_pack_request(call->call.id, FRAME_REMOTE_CLOSED, call->service->name, call->method->name,
                                   time_left(call), call->request, &handover.frame, &handover.size);
    if (r < 0)
        return r;
    *ret = handover;
    return 0;
}

int ttrpc_server_take_over(TtrpcServer *server, const TtrpcHandover *handover)
{
    Connection *c;
    int r;

    if (handover->fd >= 0) {
        r = ttrpc_server_add_connection(server, handover->fd);
        if (r < 0)
            return r;
    }
    /* Connections are added at the front. */
    c = server->connections;
    if (!c || c->serial != (handover->fd < 0))
        return -ENOENT;
    transport_resume(c->transport, handover->nonce, handover->frame, handover->size);
    return 0;
}

void ttrpc_server_end_sessions(TtrpcServer *server)
{
    Connection *next;

    server->refs++;
    for (Connection *c = server->connections; c; c = next) {
        next = c->next;
        transport_end_session(c->transport);
    }
    ttrpc_server_unref(server);
}
