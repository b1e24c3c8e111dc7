/* SPDX-License-Identifier: MIT */

#include "vmm/qmp-client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "vmm/qmp.h"

#define CALLS_MAX 1024
#define VERSION_MAX 128
/* One round of reading. A VMM that never stops talking gets its turn like all other sources. */
#define READ_MAX (64 * 1024)

typedef struct Call Call;

/* A command, from when it is given until it is answered. Those not sent yet keep their line. */
struct Call {
    QmpClient *client;
    Call *next;
    char *name;
    char *line;
    size_t size, sent;
    int fd;
    uint64_t id;
    LoopSource *timer;
    QmpAnswerFn on_answer;
    void *userdata;
};

struct QmpClient {
    Loop *loop;
    Qmp *qmp;
    int fd;
    LoopSource *io;
    bool ready;         /* negotiated */
    bool output_broken; /* nothing more can be sent; reading goes on */
    bool closed;
    unsigned busy; /* callbacks under way */
    bool dead;     /* freed in one of them */
    Call *calls;
    size_t n_calls;
    QmpEventFn on_event;
    QmpClosedFn on_closed;
    void *userdata;
    char *version;
};

static Call *call_free(Call *call)
{
    if (!call)
        return NULL;
    loop_source_free(call->timer);
    fd_close(call->fd);
    free(call->name);
    free(call->line);
    free(call);
    return NULL;
}
DEFINE_CLEANUP_FUNC(Call *, call_free)

static void client_destroy(QmpClient *client)
{
    while (client->calls) {
        Call *call = client->calls;

        client->calls = call->next;
        call_free(call);
    }
    loop_source_free(client->io);
    fd_close(client->fd);
    qmp_free(client->qmp);
    free(client->version);
    free(client);
}

static void client_enter(QmpClient *client)
{
    client->busy++;
}

static void client_leave(QmpClient *client)
{
    if (--client->busy == 0 && client->dead)
        client_destroy(client);
}

QmpClient *qmp_client_free(QmpClient *client)
{
    if (!client)
        return NULL;
    client->dead = true;
    if (client->busy == 0)
        client_destroy(client);
    return NULL;
}

/* Takes the call out of the list and tells its owner. */
static void call_finish(QmpClient *client, Call *call, json_t *value, const Error *e)
{
    _cleanup_(call_freep) Call *owned = call;

    for (Call **p = &client->calls; *p; p = &(*p)->next)
        if (*p == call) {
            *p = call->next;
            client->n_calls--;
            break;
        }
    if (call->on_answer && !client->dead)
        call->on_answer(client, value, e, call->userdata);
}

static void client_closed(QmpClient *client, Error *e)
{
    if (client->closed)
        return;
    client->closed = true;
    client->io = loop_source_free(client->io);
    client->fd = fd_close(client->fd);
    while (client->calls && !client->dead) {
        _cleanup_error_ Error lost = ERROR_INIT;

        (void)error_set(&lost, -ECONNRESET, "QMP command %s got no answer: %s", client->calls->name,
                        error_message(e));
        call_finish(client, client->calls, NULL, &lost);
    }
    if (client->on_closed && !client->dead)
        client->on_closed(client, e, client->userdata);
}

static ssize_t call_send(QmpClient *client, Call *call)
{
    struct iovec iov = {.iov_base = call->line + call->sent, .iov_len = call->size - call->sent};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t k;

    if (call->fd >= 0) {
        mh.msg_control = &control;
        mh.msg_controllen = sizeof(control.space);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &call->fd, sizeof(int));
    }
    k = sendmsg(client->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (k < 0)
        return -errno;
    call->fd = fd_close(call->fd);
    return k;
}

/* Sends what can be sent. A broken output is found out by the reader or by the deadlines. */
static void client_flush(QmpClient *client)
{
    bool more = false;

    if (client->closed || client->output_broken)
        return;
    for (Call *call = client->calls; call && !more; call = call->next) {
        /* Before the negotiation is over, only its own command may go. */
        if (!client->ready && strcmp(call->name, "qmp_capabilities") != 0)
            continue;
        while (call->line && call->sent < call->size) {
            ssize_t k = call_send(client, call);

            if (k == -EINTR)
                continue;
            if (k == -EAGAIN) {
                more = true;
                break;
            }
            if (k < 0) {
                client->output_broken = true;
                break;
            }
            call->sent += (size_t)k;
        }
        if (client->output_broken)
            break;
        if (!more) {
            free(call->line);
            call->line = NULL;
        }
    }
    (void)loop_source_set_io_events(client->io, EPOLLIN | (more ? EPOLLOUT : 0));
}

static void on_timer(LoopSource *source, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Call *call = userdata;
    QmpClient *client = call->client;

    client_enter(client);
    (void)error_set(&e, -ETIMEDOUT, "QMP command %s was not answered in time", call->name);
    /* Half a line may be out: the next command would be glued to it. */
    if (call->line && call->sent > 0)
        client->output_broken = true;
    call_finish(client, call, NULL, &e);
    client_leave(client);
}

static int call_add(QmpClient *client, const char *command, json_t *arguments, int fd, uint64_t deadline,
                    QmpAnswerFn on_answer, void *userdata)
{
    _cleanup_(call_freep) Call *call = NULL;
    _cleanup_json_ json_t *owned = arguments;
    Call **tail;
    int r;

    if (client->closed)
        return -ECONNRESET;
    if (client->n_calls >= CALLS_MAX)
        return -ENOBUFS;
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->client = client;
    call->fd = -EBADF;
    call->on_answer = on_answer;
    call->userdata = userdata;
    call->name = strdup(command);
    if (!call->name)
        return -ENOMEM;
    if (fd >= 0) {
        call->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (call->fd < 0)
            return -errno;
    }
    r = qmp_command(client->qmp, command, TAKE_PTR(owned), &call->id, &call->line, &call->size);
    if (r < 0)
        return r;
    if (deadline != UINT64_MAX) {
        uint64_t now = loop_now();

        r = loop_add_timer(client->loop, deadline > now ? deadline - now : 0, on_timer, call, &call->timer);
        if (r < 0)
            return r;
    }
    for (tail = &client->calls; *tail; tail = &(*tail)->next)
        ;
    *tail = TAKE_PTR(call);
    client->n_calls++;
    return 0;
}

int qmp_client_call(QmpClient *client, const char *command, json_t *arguments, int fd, uint64_t deadline,
                    QmpAnswerFn on_answer, void *userdata)
{
    int r = call_add(client, command, arguments, fd, deadline, on_answer, userdata);

    if (r >= 0)
        client_flush(client);
    return r;
}

static void on_negotiated(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error failed = ERROR_INIT;

    if (client->closed)
        return;
    if (!e) {
        client->ready = true;
        client_flush(client);
        return;
    }
    (void)error_set(&failed, e->number, "QMP negotiation failed: %s", error_message(e));
    client_closed(client, &failed);
}

static void on_answer(QmpClient *client, const QmpMessage *m)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Call *call = client->calls;

    while (call && call->id != m->id)
        call = call->next;
    /* Its deadline has passed, or the VMM answers twice. */
    if (!call)
        return;
    if (m->type == QMP_RETURN) {
        call_finish(client, call, m->data, NULL);
        return;
    }
    (void)error_set(&e, strcmp(m->name, "DeviceNotFound") == 0 ? -ENODEV : -EREMOTEIO,
                    "QEMU refused %s: %.512s", call->name, m->text);
    call_finish(client, call, NULL, &e);
}

/* Not worth a failure: who needs it compares it. */
static char *read_version(json_t *greeting)
{
    uint64_t number[3] = {0};
    const char *package = NULL;
    json_t *version = NULL, *qemu = NULL;

    if (json_get_object(greeting, "version", "QMP greeting", &version, NULL) <= 0 ||
        json_get_object(version, "qemu", "QMP greeting", &qemu, NULL) <= 0)
        return NULL;
    (void)json_get_uint(qemu, "major", "QMP greeting", 0, 999, &number[0], NULL);
    (void)json_get_uint(qemu, "minor", "QMP greeting", 0, 999, &number[1], NULL);
    (void)json_get_uint(qemu, "micro", "QMP greeting", 0, 999, &number[2], NULL);
    (void)json_get_string(version, "package", "QMP greeting", &package, NULL);
    return string_printf("%u.%u.%u%s%.*s", (unsigned)number[0], (unsigned)number[1], (unsigned)number[2],
                         package && *package ? " " : "", VERSION_MAX, package ?: "");
}

const char *qmp_client_version(const QmpClient *client)
{
    return client->version ?: "";
}

static int client_dispatch(QmpClient *client, Error *e)
{
    while (!client->dead && !client->closed) {
        _cleanup_qmp_message_ QmpMessage m = {0};
        int r = qmp_next(client->qmp, &m, e);

        if (r < 0)
            return r;
        if (r > 0)
            break;
        switch (m.type) {
        case QMP_GREETING:
            client->version = read_version(m.data);
            r = call_add(client, "qmp_capabilities", NULL, -EBADF, UINT64_MAX, on_negotiated, NULL);
            if (r < 0)
                return error_set_errno(e, r, "cannot negotiate QMP");
            client_flush(client);
            break;
        case QMP_RETURN:
        case QMP_ERROR:
            on_answer(client, &m);
            break;
        case QMP_EVENT:
            if (client->on_event)
                client->on_event(client, m.name, m.data, client->userdata);
            break;
        }
    }
    return 0;
}

/* One read. 1: there may be more, 0: nothing for now, negative: the end. */
static int client_read(QmpClient *client, Error *e)
{
    char buffer[16 * 1024];
    ssize_t k;
    int r;

    /* No room for descriptors: the kernel drops what a VMM might send. */
    k = recv(client->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (k < 0) {
        if (errno == EAGAIN)
            return 0;
        if (errno == EINTR)
            return 1;
        return error_set_errno(e, -errno, "cannot read from QMP");
    }
    if (k == 0)
        return error_set(e, -ECONNRESET, "QEMU closed its QMP socket");
    r = qmp_feed(client->qmp, buffer, (size_t)k);
    if (r < 0)
        return error_set_errno(e, r, "cannot take a QMP message");
    r = client_dispatch(client, e);
    return r < 0 ? r : 1;
}

static void client_read_some(QmpClient *client, size_t max_reads)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r = 1;

    client_enter(client);
    for (size_t i = 0; i < max_reads && r > 0 && !client->dead && !client->closed; i++)
        r = client_read(client, &e);
    if (r < 0 && !client->dead)
        client_closed(client, &e);
    client_leave(client);
}

static void on_io(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    QmpClient *client = userdata;

    if (revents & EPOLLOUT)
        client_flush(client);
    if (revents & ~(uint32_t)EPOLLOUT)
        client_read_some(client, READ_MAX / (16 * 1024));
}

void qmp_client_drain(QmpClient *client)
{
    /* The process is gone: what is left fits the socket's buffer. */
    client_read_some(client, 4 * READ_MAX / (16 * 1024));
}

int qmp_client_new(Loop *loop, int fd, QmpEventFn on_event, QmpClosedFn on_closed, void *userdata,
                   QmpClient **ret)
{
    _cleanup_(qmp_client_freep) QmpClient *client = calloc(1, sizeof(*client));
    int r;

    if (!client) {
        fd_close(fd);
        return -ENOMEM;
    }
    client->loop = loop;
    client->fd = fd;
    client->on_event = on_event;
    client->on_closed = on_closed;
    client->userdata = userdata;
    r = qmp_new(&client->qmp);
    if (r < 0)
        return r;
    r = loop_add_io(loop, fd, EPOLLIN, on_io, client, &client->io);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(client);
    return 0;
}
