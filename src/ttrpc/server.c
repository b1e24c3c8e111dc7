/* SPDX-License-Identifier: MIT */

#include "ttrpc/server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

#define CONNECTIONS_MAX 1024u
/* How long accepting pauses when the process has no descriptors left: the socket stays readable meanwhile. */
#define ACCEPT_RETRY_USEC (USEC_PER_SEC / 2)
#define ACCEPTS_PER_EVENT 16

int ttrpc_server_new(Loop *loop, TtrpcServer **ret)
{
    TtrpcServer *server = calloc(1, sizeof(*server));

    if (!server)
        return -ENOMEM;
    server->refs = 1;
    server->loop = loop;
    server->timer_at = UINT64_MAX;
    *ret = server;
    return 0;
}

TtrpcServer *ttrpc_server_unref(TtrpcServer *server)
{
    if (--server->refs == 0) {
        while (server->services) {
            Service *s = server->services;

            server->services = s->next;
            free(s);
        }
        free(server);
    }
    return NULL;
}

Connection *ttrpc_connection_unref(Connection *c)
{
    if (--c->refs == 0)
        free(c);
    return NULL;
}

static void listeners_close(TtrpcServer *server)
{
    while (server->listeners) {
        Listener *l = server->listeners;

        server->listeners = l->next;
        loop_source_free(l->source);
        fd_close(l->fd);
        free(l);
    }
    server->accept_retry = loop_source_free(server->accept_retry);
}

/* Cancels the calls and takes the connection from the server. */
static void connection_close(Connection *c)
{
    TtrpcServer *server = c->server;

    if (!server)
        return;
    c->server = NULL;
    if (c->prev)
        c->prev->next = c->next;
    else
        server->connections = c->next;
    if (c->next)
        c->next->prev = c->prev;
    server->n_connections--;
    transport_free(c->transport);
    ttrpc_server_cancel_calls(c);
    ttrpc_connection_unref(c);
}

TtrpcServer *ttrpc_server_free(TtrpcServer *server)
{
    if (!server || server->freed)
        return NULL;
    server->freed = true;
    listeners_close(server);
    while (server->connections)
        connection_close(server->connections);
    server->timer = loop_source_free(server->timer);
    server->flush = loop_source_free(server->flush);
    return ttrpc_server_unref(server);
}

int ttrpc_server_add_service(TtrpcServer *server, const char *name,
                             const ProtobufCServiceDescriptor *descriptor, const TtrpcHandler *handlers,
                             void *userdata)
{
    Service *s = malloc(sizeof(*s));

    if (!s)
        return -ENOMEM;
    *s = (Service){
        .next = server->services,
        .name = name ?: descriptor->name,
        .descriptor = descriptor,
        .handlers = handlers,
        .userdata = userdata,
    };
    server->services = s;
    return 0;
}

void ttrpc_server_set_close(TtrpcServer *server, TtrpcServerCloseFn callback, void *userdata)
{
    server->close_callback = callback;
    server->close_userdata = userdata;
}

/* ------------------------------------------------------------------------------------------------ timer */

static void on_timer(_unused_ LoopSource *source, void *userdata)
{
    TtrpcServer *server = userdata;

    server->refs++;
    ttrpc_server_expire_calls(server);
    ttrpc_server_unref(server);
}

int ttrpc_server_arm_timer(TtrpcServer *server, uint64_t deadline)
{
    uint64_t now = loop_now(), usec = deadline > now ? deadline - now : 0;
    int r;

    if (deadline >= server->timer_at)
        return 0;
    r = server->timer ? loop_source_set_timer(server->timer, usec)
                      : loop_add_timer(server->loop, usec, on_timer, server, &server->timer);
    if (r >= 0)
        server->timer_at = deadline;
    return r;
}

/* ------------------------------------------------------------------------------------------------ flush */

static void on_flushed(LoopSource *source, void *userdata)
{
    TtrpcServer *server = userdata;
    LoopFn callback = server->flush_callback;

    server->flush_callback = NULL;
    server->flush = loop_source_free(source); /* takes effect when we return */
    callback(source, server->flush_userdata);
}

/* Calls back what waits for ttrpc_server_flush(), from the loop, if nothing is queued any more. */
static int check_flushed(TtrpcServer *server)
{
    if (!server->flush_callback || server->flush)
        return 0;
    for (Connection *c = server->connections; c; c = c->next)
        if (transport_queued(c->transport) > 0)
            return 0;
    return loop_add_defer(server->loop, on_flushed, server, &server->flush);
}

int ttrpc_server_flush(TtrpcServer *server, LoopFn callback, void *userdata)
{
    server->flush_callback = callback;
    server->flush_userdata = userdata;
    return check_flushed(server);
}

void ttrpc_server_stop(TtrpcServer *server)
{
    server->stopped = true;
    listeners_close(server);
}

/* ------------------------------------------------------------------------------------------ connections */

static int on_frame(_unused_ Transport *t, const Frame *frame, void *userdata, Error *e)
{
    Connection *c = userdata;
    int r;

    c->refs++;
    r = ttrpc_server_handle_frame(c, frame, e);
    ttrpc_connection_unref(c);
    return r;
}

static void on_lost(_unused_ Transport *t, _unused_ const Error *reason, void *userdata)
{
    Connection *c = userdata;
    TtrpcServer *server = c->server;

    server->refs++;
    c->refs++;
    if (c->serial)
        ttrpc_server_cancel_calls(c);
    else
        connection_close(c);
    if (!server->freed && server->close_callback)
        server->close_callback(server, server->close_userdata);
    if (!server->freed)
        (void)check_flushed(server);
    ttrpc_connection_unref(c);
    ttrpc_server_unref(server);
}

static void on_drained(_unused_ Transport *t, void *userdata)
{
    Connection *c = userdata;

    (void)check_flushed(c->server);
}

static const TransportHandlers transport_handlers = {
    .frame = on_frame,
    .lost = on_lost,
    .drained = on_drained,
};

static int add_connection(TtrpcServer *server, int fd, TransportKind kind)
{
    Connection *c;
    int r;

    if (server->n_connections >= CONNECTIONS_MAX) {
        fd_close(fd);
        return -EUSERS;
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        fd_close(fd);
        return -ENOMEM;
    }
    c->refs = 1;
    c->server = server;
    c->serial = kind == TRANSPORT_SERIAL_SERVER;
    r = transport_new(server->loop, fd, kind, &transport_handlers, c, &c->transport);
    if (r < 0) {
        free(c);
        return r;
    }
    c->next = server->connections;
    if (c->next)
        c->next->prev = c;
    server->connections = c;
    server->n_connections++;
    return 0;
}

int ttrpc_server_add_connection(TtrpcServer *server, int fd)
{
    return add_connection(server, fd, TRANSPORT_SERVER);
}

int ttrpc_server_add_serial(TtrpcServer *server, int fd)
{
    return add_connection(server, fd, TRANSPORT_SERIAL_SERVER);
}

/* -------------------------------------------------------------------------------------------- listening */

static void on_accept_retry(_unused_ LoopSource *source, void *userdata)
{
    TtrpcServer *server = userdata;

    server->accept_retry = loop_source_free(server->accept_retry);
    for (Listener *l = server->listeners; l; l = l->next)
        (void)loop_source_set_io_events(l->source, EPOLLIN);
}

/* There are no descriptors, or no memory: a socket that stays readable would spin the loop. */
static void accept_pause(TtrpcServer *server)
{
    if (server->accept_retry ||
        loop_add_timer(server->loop, ACCEPT_RETRY_USEC, on_accept_retry, server, &server->accept_retry) < 0)
        return;
    for (Listener *l = server->listeners; l; l = l->next)
        (void)loop_source_set_io_events(l->source, 0);
}

static bool peer_is_allowed(int fd, uid_t uid)
{
    struct ucred cred;
    socklen_t n = sizeof(cred);

    if (uid == (uid_t)-1)
        return true;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 && cred.uid == uid;
}

static void on_accept(_unused_ LoopSource *source, int listen_fd, _unused_ uint32_t revents, void *userdata)
{
    Listener *l = userdata;

    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                accept_pause(l->server);
            return;
        }
        if (peer_is_allowed(fd, l->uid))
            (void)ttrpc_server_add_connection(l->server, fd);
        else
            fd_close(fd);
    }
}

int ttrpc_server_listen(TtrpcServer *server, int listen_fd, uid_t uid)
{
    Listener *l = malloc(sizeof(*l));
    int r;

    if (!l) {
        fd_close(listen_fd);
        return -ENOMEM;
    }
    *l = (Listener){.next = server->listeners, .server = server, .fd = listen_fd, .uid = uid};
    r = fd_set_nonblock(listen_fd, true);
    if (r >= 0)
        r = loop_add_io(server->loop, listen_fd, EPOLLIN, on_accept, l, &l->source);
    if (r < 0) {
        fd_close(listen_fd);
        free(l);
        return r;
    }
    server->listeners = l;
    return 0;
}
