/* SPDX-License-Identifier: MIT */

#include "vmm/ch-client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "vmm/console.h"
#include "vmm/http.h"

#define API_ROOT "/api/v1/"
#define CALLS_MAX 256
#define REFUSAL_MAX 512
/* One round of reading. A VMM that never stops talking gets its turn like all other sources. */
#define READS_MAX 4

typedef struct Call Call;

/* A request, from when it is given until it is answered; the first one is under way. */
struct Call {
    ChClient *client;
    Call *next;
    char *name;
    char *request;
    size_t size, sent;
    int fd;
    bool abandoned; /* its deadline has passed: nobody is told of its answer */
    LoopSource *timer;
    ChAnswerFn on_answer;
    void *userdata;
};

struct ChClient {
    Loop *loop;
    HttpParser *parser;
    int fd;
    LoopSource *io;
    bool output_broken; /* nothing more can be sent; reading goes on */
    bool closed;
    unsigned busy; /* callbacks under way */
    bool dead;     /* freed in one of them */
    Call *calls;
    size_t n_calls;
    ChClosedFn on_closed;
    void *userdata;
};

static Call *call_free(Call *call)
{
    if (!call)
        return NULL;
    loop_source_free(call->timer);
    fd_close(call->fd);
    free(call->name);
    free(call->request);
    free(call);
    return NULL;
}
DEFINE_CLEANUP_FUNC(Call *, call_free)

static void client_destroy(ChClient *client)
{
    while (client->calls) {
        Call *call = client->calls;

        client->calls = call->next;
        call_free(call);
    }
    loop_source_free(client->io);
    fd_close(client->fd);
    http_parser_free(client->parser);
    free(client);
}

static void client_enter(ChClient *client)
{
    client->busy++;
}

static void client_leave(ChClient *client)
{
    if (--client->busy == 0 && client->dead)
        client_destroy(client);
}

ChClient *ch_client_free(ChClient *client)
{
    if (!client)
        return NULL;
    client->dead = true;
    if (client->busy == 0)
        client_destroy(client);
    return NULL;
}

/* Takes the call out of the list and tells its owner. */
static void call_finish(ChClient *client, Call *call, json_t *value, const Error *e)
{
    _cleanup_(call_freep) Call *owned = call;

    for (Call **p = &client->calls; *p; p = &(*p)->next)
        if (*p == call) {
            *p = call->next;
            client->n_calls--;
            break;
        }
    if (call->on_answer && !call->abandoned && !client->dead)
        call->on_answer(client, value, e, call->userdata);
}

static void client_closed(ChClient *client, const Error *e)
{
    if (client->closed)
        return;
    client->closed = true;
    client->io = loop_source_free(client->io);
    client->fd = fd_close(client->fd);
    while (client->calls && !client->dead) {
        _cleanup_error_ Error lost = ERROR_INIT;

        (void)error_set(&lost, -ECONNRESET, "request %s got no answer: %s", client->calls->name, error_message(e));
        call_finish(client, client->calls, NULL, &lost);
    }
    if (client->on_closed && !client->dead)
        client->on_closed(client, e, client->userdata);
}

static ssize_t call_send(ChClient *client, Call *call)
{
    struct iovec iov = {.iov_base = call->request + call->sent, .iov_len = call->size - call->sent};
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

/* Sends the request whose turn it is. A broken output is found out by the reader or by the deadlines. */
static void client_flush(ChClient *client)
{
    Call *call = client->calls;
    bool more = false;

    if (client->closed || client->output_broken)
        return;
    while (call && call->sent < call->size && !more && !client->output_broken) {
        ssize_t k = call_send(client, call);

        if (k >= 0)
            call->sent += (size_t)k;
        else if (k == -EAGAIN)
            more = true;
        else if (k != -EINTR)
            client->output_broken = true;
    }
    (void)loop_source_set_io_events(client->io, EPOLLIN | (more ? EPOLLOUT : 0));
}

static void on_timer(LoopSource *source, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Call *call = userdata;
    ChClient *client = call->client;

    client_enter(client);
    (void)error_set(&e, -ETIMEDOUT, "Cloud Hypervisor did not answer %s in time", call->name);
    if (call->sent == 0) {
        call_finish(client, call, NULL, &e);
    } else {
        /* Its answer still has to be told from the next one's. */
        call->abandoned = true;
        call->timer = loop_source_free(call->timer);
        if (call->on_answer)
            call->on_answer(client, NULL, &e, call->userdata);
    }
    client_leave(client);
}

static int call_add(ChClient *client, const char *method, const char *name, const char *body, int fd,
                    uint64_t deadline, ChAnswerFn on_answer, void *userdata)
{
    _cleanup_(call_freep) Call *call = NULL;
    _cleanup_free_ char *path = NULL;
    Call **tail;

    if (client->closed)
        return -ECONNRESET;
    if (client->n_calls >= CALLS_MAX)
        return -ENOBUFS;
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    *call = (Call){.client = client, .fd = -EBADF, .on_answer = on_answer, .userdata = userdata};
    call->name = strdup(name);
    path = string_printf("%s%s", API_ROOT, name);
    if (!call->name || !path)
        return -ENOMEM;
    call->request = http_request(method, path, body, &call->size);
    if (!call->request)
        return -ENOMEM;
    if (fd >= 0) {
        call->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (call->fd < 0)
            return -errno;
    }
    if (deadline != UINT64_MAX) {
        uint64_t now = loop_now();
        int r = loop_add_timer(client->loop, deadline > now ? deadline - now : 0, on_timer, call, &call->timer);

        if (r < 0)
            return r;
    }
    for (tail = &client->calls; *tail; tail = &(*tail)->next)
        ;
    *tail = TAKE_PTR(call);
    client->n_calls++;
    client_flush(client);
    return 0;
}

int ch_client_get(ChClient *client, const char *name, uint64_t deadline, ChAnswerFn on_answer, void *userdata)
{
    return call_add(client, "GET", name, NULL, -EBADF, deadline, on_answer, userdata);
}

int ch_client_put(ChClient *client, const char *name, json_t *body, int fd, uint64_t deadline, ChAnswerFn on_answer,
                  void *userdata)
{
    _cleanup_json_ json_t *owned = body;
    _cleanup_free_ char *text = NULL;

    if (body) {
        text = json_dumps(body, JSON_COMPACT);
        if (!text)
            return -ENOMEM;
    }
    return call_add(client, "PUT", name, text, fd, deadline, on_answer, userdata);
}

/* An error's body is an array of sentences, from what failed to why. */
static char *refusal_text(const HttpResponse *response)
{
    _cleanup_json_ json_t *value = response->body ? json_loadb(response->body, response->size, 0, NULL) : NULL;
    _cleanup_free_ char *joined = NULL;
    json_t *item;
    size_t i;

    json_array_foreach (value, i, item) {
        char *longer;

        if (!json_is_string(item))
            continue;
        longer = string_printf("%s%s%s", joined ?: "", joined ? ": " : "", json_string_value(item));
        if (!longer)
            return NULL;
        free(joined);
        joined = longer;
    }
    if (joined)
        return console_text_tail(joined, strlen(joined), REFUSAL_MAX);
    return console_text_tail(response->body ?: "", response->size, REFUSAL_MAX);
}

static int take_response(ChClient *client, const HttpResponse *response, Error *e)
{
    _cleanup_error_ Error refusal = ERROR_INIT;
    _cleanup_json_ json_t *value = NULL;
    Call *call = client->calls;

    if (!call || call->sent < call->size || http_parser_has_more(client->parser))
        return error_set(e, -EBADMSG, "Cloud Hypervisor answers what was not asked");
    if (response->status >= 300) {
        _cleanup_free_ char *text = refusal_text(response);

        (void)error_set(&refusal, -EREMOTEIO, "Cloud Hypervisor refused %s (HTTP %u): %s", call->name,
                        response->status, text ?: "");
        call_finish(client, call, NULL, &refusal);
        return 0;
    }
    if (response->size > 0) {
        value = json_loadb(response->body, response->size, JSON_REJECT_DUPLICATES, NULL);
        if (!value)
            return error_set(e, -EBADMSG, "Cloud Hypervisor's answer to %s is not JSON", call->name);
    }
    call_finish(client, call, value, NULL);
    return 0;
}

static int client_dispatch(ChClient *client, Error *e)
{
    while (!client->dead && !client->closed) {
        _cleanup_http_response_ HttpResponse response = {0};
        int r = http_parser_next(client->parser, &response, e);

        if (r < 0)
            return r;
        if (r > 0)
            break;
        r = take_response(client, &response, e);
        if (r < 0)
            return r;
        if (response.close)
            return error_set(e, -ECONNRESET, "Cloud Hypervisor closes its API socket");
        if (!client->dead)
            client_flush(client);
    }
    return 0;
}

/* One read. 1: there may be more, 0: nothing for now, negative: the end. */
static int client_read(ChClient *client, Error *e)
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
        return error_set_errno(e, -errno, "cannot read from Cloud Hypervisor's API socket");
    }
    if (k == 0)
        return error_set(e, -ECONNRESET, "Cloud Hypervisor closed its API socket");
    r = http_parser_feed(client->parser, buffer, (size_t)k);
    if (r < 0)
        return error_set_errno(e, r, "cannot take an answer of Cloud Hypervisor");
    r = client_dispatch(client, e);
    return r < 0 ? r : 1;
}

static void on_io(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ChClient *client = userdata;
    int r = 1;

    client_enter(client);
    if (revents & EPOLLOUT)
        client_flush(client);
    if (revents & ~(uint32_t)EPOLLOUT)
        for (int i = 0; i < READS_MAX && r > 0 && !client->dead && !client->closed; i++)
            r = client_read(client, &e);
    if (r < 0 && !client->dead)
        client_closed(client, &e);
    client_leave(client);
}

int ch_client_new(Loop *loop, int fd, ChClosedFn on_closed, void *userdata, ChClient **ret)
{
    _cleanup_(ch_client_freep) ChClient *client = calloc(1, sizeof(*client));
    int r;

    if (!client) {
        fd_close(fd);
        return -ENOMEM;
    }
    client->loop = loop;
    client->fd = fd;
    client->on_closed = on_closed;
    client->userdata = userdata;
    r = http_parser_new(&client->parser);
    if (r < 0)
        return r;
    r = loop_add_io(loop, fd, EPOLLIN, on_io, client, &client->io);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(client);
    return 0;
}
