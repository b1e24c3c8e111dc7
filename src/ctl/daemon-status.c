/* SPDX-License-Identifier: MIT */

#include "ctl/daemon-status.h"

#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/loop.h"
#include "ttrpc/ttrpc.h"

enum { ID_WIDTH = 13 };

typedef struct Question {
    Loop *loop;
    DaemonStatus *status;
    Error error;
} Question;

static void question_clear(Question *q)
{
    daemon_status_free(q->status);
    error_clear(&q->error);
}

/* Answers belong to the call that brought them: what is kept is a copy. */
static DaemonStatus *status_copy(const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    _cleanup_free_ uint8_t *packed = malloc(n ?: 1);

    if (!packed)
        return NULL;
    protobuf_c_message_pack(message, packed);
    return cloudhv__daemon__v1__status_response__unpack(NULL, n, packed);
}

static void on_status(const TtrpcReply *reply, void *userdata)
{
    Question *q = userdata;

    if (q->error.number < 0)
        return;
    if (ttrpc_reply_error(reply, "asking cloudhv-sandbox-daemon for its status", &q->error) >= 0) {
        q->status = status_copy(reply->response);
        if (!q->status)
            error_set_errno(&q->error, -ENOMEM, "cannot keep the daemon's status");
    }
    loop_exit(q->loop, 0);
}

static void on_hello(const TtrpcReply *reply, void *userdata)
{
    Question *q = userdata;

    /* The call that matters follows on the same connection, and fails with it. */
    if (reply->code != TTRPC_OK && q->error.number == 0 && reply->code != TTRPC_CANCELED &&
        reply->code != TTRPC_UNAVAILABLE) {
        (void)ttrpc_reply_error(reply, "greeting cloudhv-sandbox-daemon", &q->error);
        loop_exit(q->loop, 0);
    }
}

static int ask(TtrpcClient *client, uint64_t timeout_usec, Question *q)
{
    Cloudhv__Daemon__V1__HelloRequest hello = CLOUDHV__DAEMON__V1__HELLO_REQUEST__INIT;
    Cloudhv__Daemon__V1__StatusRequest request = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;
    TtrpcCallSpec spec = {.service = &cloudhv__daemon__v1__sandboxes__descriptor,
                          .method = "Hello",
                          .request = &hello.base,
                          .timeout_usec = timeout_usec};
    int r;

    hello.protocol = 1;
    hello.peer = (char *)"cloudhvctl";
    r = ttrpc_client_call(client, &spec, on_hello, q, NULL);
    if (r < 0)
        return r;
    spec.method = "Status";
    spec.request = &request.base;
    return ttrpc_client_call(client, &spec, on_status, q, NULL);
}

int daemon_status_get(const char *socket, uint64_t timeout_usec, DaemonStatus **ret, Error *e)
{
    _cleanup_(question_clear) Question q = {0};
    _cleanup_loop_ Loop *loop = NULL;
    TtrpcClient *client = NULL;
    int fd, r;

    r = loop_new(&loop);
    if (r < 0)
        return error_set_errno(e, r, "cannot make an event loop");
    q.loop = loop;
    fd = fd_connect_unix(socket);
    if (fd < 0)
        return error_set_errno(e, fd, "cannot reach cloudhv-sandbox-daemon at %s", socket);
    r = ttrpc_client_new(loop, fd, &client);
    if (r >= 0)
        r = ask(client, timeout_usec, &q);
    if (r >= 0)
        r = loop_run(loop);
    ttrpc_client_free(client);
    if (r < 0)
        return error_set_errno(e, r, "cannot speak to cloudhv-sandbox-daemon at %s", socket);
    if (!q.status)
        return error_move(e, &q.error);
    *ret = TAKE_PTR(q.status);
    return 0;
}

DaemonStatus *daemon_status_free(DaemonStatus *status)
{
    if (status)
        cloudhv__daemon__v1__status_response__free_unpacked(status, NULL);
    return NULL;
}

/* "12s", "7min", "3h", "20d" */
static void age_string(uint64_t usec, char ret[static 16])
{
    uint64_t seconds = usec / USEC_PER_SEC;

    if (seconds < 120)
        snprintf(ret, 16, "%us", (unsigned)seconds);
    else if (seconds < 2 * 3600)
        snprintf(ret, 16, "%umin", (unsigned)(seconds / 60));
    else if (seconds < 2 * 86400)
        snprintf(ret, 16, "%uh", (unsigned)(seconds / 3600));
    else
        snprintf(ret, 16, "%ud", (unsigned)(seconds / 86400 % 100000));
}

static void print_sandbox(const Cloudhv__Daemon__V1__SandboxStatus *s, uint64_t now_usec, FILE *to)
{
    char age[16] = "-", pid[16] = "-";

    if (s->since_usec && now_usec >= s->since_usec)
        age_string(now_usec - s->since_usec, age);
    if (s->vmm_pid)
        snprintf(pid, sizeof(pid), "%u", s->vmm_pid);
    fprintf(to, "%-10s %-*.*s %-10s %5s %8s %6u %7llu %10zu  %s\n", s->namespace_, ID_WIDTH, ID_WIDTH,
            s->sandbox_id, s->state, age, pid, s->vcpus, (unsigned long long)s->memory_mb, s->n_containers,
            s->end_reason);
}

static void print_template(const Cloudhv__Daemon__V1__TemplateStatus *t, uint64_t now_usec, FILE *to)
{
    char age[16] = "-";

    if (t->created_usec && now_usec >= t->created_usec)
        age_string(now_usec - t->created_usec, age);
    fprintf(to, "%-32s %-10s %5s %6u %7llu %8llu %6u\n", t->key, t->state, age, t->vcpus,
            (unsigned long long)t->memory_mb, (unsigned long long)(t->bytes >> 20), t->clones);
}

int daemon_status_print(const DaemonStatus *status, uint64_t now_usec, FILE *to)
{
    fprintf(to, "cloudhv-sandbox-daemon %s, VMM %s, %s%s%s\n", status->daemon_version,
            status->vmm[0] ? status->vmm : "none", status->kvm ? "KVM" : "no KVM",
            status->kvm_reason[0] ? ": " : "", status->kvm_reason);
    fprintf(to, "%u active, pool %u of %u, %u shadow, %zu snapshots\n", status->active, status->pool_ready,
            status->pool_target, status->shadow, status->n_snapshots);
    if (status->n_sandboxes > 0)
        fprintf(to, "\n%-10s %-*s %-10s %5s %8s %6s %7s %10s\n", "NAMESPACE", ID_WIDTH, "SANDBOX", "STATE",
                "AGE", "VMM PID", "VCPUS", "MIB", "CONTAINERS");
    for (size_t i = 0; i < status->n_sandboxes; i++)
        print_sandbox(status->sandboxes[i], now_usec, to);
    if (status->templates_reason[0])
        fprintf(to, "\nNo templates: %s\n", status->templates_reason);
    if (status->n_templates > 0)
        fprintf(to, "\n%-32s %-10s %5s %6s %7s %8s %6s\n", "TEMPLATE", "STATE", "AGE", "VCPUS", "MIB", "ON DISK",
                "CLONES");
    for (size_t i = 0; i < status->n_templates; i++)
        print_template(status->templates[i], now_usec, to);
    return fflush(to) == 0 ? 0 : -errno;
}

static json_t *strings_to_json(char **strings, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < n; i++)
        (void)json_array_append_new(array, json_string(strings[i]));
    return array;
}

static json_t *sandbox_to_json(const Cloudhv__Daemon__V1__SandboxStatus *s)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:o, s:I, s:s}", "namespace", s->namespace_,
                     "sandbox_id", s->sandbox_id, "state", s->state, "vmm_pid", (json_int_t)s->vmm_pid, "vmm",
                     s->vmm, "source", s->source, "vcpus", (json_int_t)s->vcpus, "memory_mb",
                     (json_int_t)s->memory_mb, "containers", strings_to_json(s->containers, s->n_containers),
                     "since_usec", (json_int_t)s->since_usec, "end_reason", s->end_reason);
}

static json_t *template_to_json(const Cloudhv__Daemon__V1__TemplateStatus *t)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "key", t->key, "state", t->state, "vcpus",
                     (json_int_t)t->vcpus, "memory_mb", (json_int_t)t->memory_mb, "bytes", (json_int_t)t->bytes,
                     "created_usec", (json_int_t)t->created_usec, "clones", (json_int_t)t->clones);
}

int daemon_status_print_json(const DaemonStatus *status, FILE *to)
{
    json_t *sandboxes = json_array(), *templates = json_array();
    _cleanup_json_ json_t *root = json_pack(
        "{s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:o, s:s, s:o, s:o}", "daemon_version", status->daemon_version, "vmm",
        status->vmm, "kvm", (int)status->kvm, "kvm_reason", status->kvm_reason, "pool_ready",
        (json_int_t)status->pool_ready, "pool_target", (json_int_t)status->pool_target, "active",
        (json_int_t)status->active, "shadow", (json_int_t)status->shadow, "snapshots",
        strings_to_json(status->snapshots, status->n_snapshots), "templates_reason", status->templates_reason,
        "templates", templates, "sandboxes", sandboxes);

    if (!root)
        return -ENOMEM;
    for (size_t i = 0; i < status->n_sandboxes; i++)
        if (json_array_append_new(sandboxes, sandbox_to_json(status->sandboxes[i])) < 0)
            return -ENOMEM;
    for (size_t i = 0; i < status->n_templates; i++)
        if (json_array_append_new(templates, template_to_json(status->templates[i])) < 0)
            return -ENOMEM;
    if (json_dumpf(root, to, JSON_INDENT(2)) < 0 || fputc('\n', to) == EOF || fflush(to) != 0)
        return -EIO;
    return 0;
}
