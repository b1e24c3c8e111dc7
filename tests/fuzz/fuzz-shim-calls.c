/* SPDX-License-Identifier: MIT */

/* Every request of the task service, with contents from the input, against containers in all of their states;
 * in between the agent answers, refuses or tells the end of a process, also with contents from the input.
 * There is no VM, no FIFO and no image: see fake-shim.h. Each request is answered exactly once, answers tell
 * the truth about states, and in the end all of it can be taken down. */

#define FAKE_STDIO
#include "fake-shim.h"
#include "fuzz.h"
#include "ttrpc/message.h"

enum { REQUESTS_MAX = 64 };

typedef struct Request {
    FakeShim *fake;
    const ProtobufCMethodDescriptor *method;
    char *id, *exec_id; /* as a State request names them */
    bool ended;
} Request;

static void check_state(const Containerd__StateResponse *response)
{
    REQUIRE(response->pid == (uint32_t)getpid());
    REQUIRE(response->status >= CONTAINERD__STATUS__UNKNOWN &&
            response->status <= CONTAINERD__STATUS__PAUSING);
    /* An end has a time, what has not ended has none. */
    REQUIRE((response->status == CONTAINERD__STATUS__STOPPED) <= (response->exited_at != NULL));
    REQUIRE(response->status != CONTAINERD__STATUS__CREATED || !response->exited_at);
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Request *r = userdata;

    REQUIRE(!r->ended);
    r->ended = true;
    if (reply->code == TTRPC_OK) {
        REQUIRE(reply->response && reply->response->descriptor == r->method->output);
        if (r->method->output == &containerd__state_response__descriptor)
            check_state((const Containerd__StateResponse *)reply->response);
    } else
        REQUIRE(is_utf8(reply->message));
}

/* Containerd checks none of this for us, but a bundle is only looked for below our own directory. */
static bool is_harmless(const ProtobufCMessage *m)
{
    if (m->descriptor != &containerd__create_task_request__descriptor)
        return true;
    return strncmp(((const Containerd__CreateTaskRequest *)m)->bundle, "/proc/self/cwd/", 15) == 0 &&
           !strstr(((const Containerd__CreateTaskRequest *)m)->bundle, "..");
}

static void request(FakeShim *f, Request *requests, unsigned *n, Input *in)
{
    const ProtobufCServiceDescriptor *service = &containerd__task__descriptor;
    const ProtobufCMethodDescriptor *method = &service->methods[take_u8(in) % service->n_methods];
    Input bytes = take(in, take_u8(in));
    ProtobufCMessage *m = ttrpc_message_unpack(method->input, bytes.bytes, bytes.n);
    TtrpcCallSpec spec = {.service = service,
                          .service_name = "containerd.task.v3.Task",
                          .method = method->name,
                          .request = m,
                          .timeout_usec = 0};

    if (m && is_harmless(m) && *n < REQUESTS_MAX) {
        Request *r = &requests[(*n)++];

        *r = (Request){.fake = f, .method = method};
        REQUIRE(ttrpc_client_call(f->containerd, &spec, on_reply, r, NULL) == 0);
    }
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

/* One of the calls that wait in the agent gets its answer. */
static void answer(FakeShim *f, Input *in)
{
    uint8_t which = take_u8(in), how = take_u8(in);
    Input bytes = take(in, take_u8(in));

    if (f->n_calls == 0)
        return;
    which %= (uint8_t)f->n_calls;
    if (how & 1) {
        _cleanup_free_ char *text = take_string(&bytes, 200);

        fake_refuse(f, which, (TtrpcCode)(how >> 1) % 20, text);
    } else {
        ProtobufCMessage *m = ttrpc_message_unpack(fake_output(f->calls[which].method), bytes.bytes, bytes.n);

        fake_reply(f, which, m);
        if (m)
            protobuf_c_message_free_unpacked(m, NULL);
    }
}

/* What must hold between any two steps. */
static void check_containers(const FakeShim *f)
{
    for (const Container *c = f->shim.containers; c; c = c->next) {
        REQUIRE(container_find(&f->shim, c->id) == c);
        REQUIRE(!c->create || c->init.state == PROCESS_CREATING);
        REQUIRE(c->create || c->teardown || c->init.state != PROCESS_CREATING);
        /* The start of what owns the pod ends with the pod. */
        REQUIRE(!c->init.op || c->init.state == PROCESS_STARTING || c->owns_pod);
        REQUIRE(c->init.n_waiters == 0 || c->init.state < PROCESS_STOPPED);
        for (const Process *p = c->execs; p; p = p->next) {
            REQUIRE(!p->op || p->state == PROCESS_CREATING || p->state == PROCESS_STARTING ||
                    p->state == PROCESS_DELETING);
            REQUIRE(*p->exec_id && p->container == c && container_process((Container *)c, p->exec_id) == p);
        }
    }
}

static void steps(FakeShim *f, Request *requests, Input in)
{
    unsigned n = 0;

    while (in.n > 0) {
        switch (take_u8(&in) % 8) {
        case 0:
            f->agent_answers = !f->agent_answers;
            break;
        case 1:
        case 2:
            answer(f, &in);
            break;
        case 3:
            shim_pod_ended(&f->shim, "the input says so");
            break;
        default:
            request(f, requests, &n, &in);
            break;
        }
        fake_settle(f, 0);
        check_containers(f);
    }
    /* Whatever waits for the agent ends with the agent's connection. */
    while (f->n_calls > 0) {
        fake_refuse(f, 0, TTRPC_UNAVAILABLE, "the end");
        fake_settle(f, 0);
    }
    check_containers(f);
    shim_pod_ended(&f->shim, "the end");
    fake_settle(f, 0);
    for (unsigned i = 0; i < n; i++)
        REQUIRE(requests[i].ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Request requests[REQUESTS_MAX] = {0};
    FakeShim f = {0};
    Input in = {data, size};
    uint8_t how = take_u8(&in);

    if (size > 2048)
        return 0;
    f.agent_answers = how & 1;
    f.acquire_fails = how & 2 && how & 4;
    f.attach_fails = how & 8 && how & 16;
    f.image_fails = how & 32 && how & 64;
    fake_shim_start(&f, false);
    fake_bundle(&f, "s", "sandbox", "");
    fake_bundle(&f, "c", "container", "");
    fake_bundle(&f, "p", NULL, "");
    REQUIRE(chdir(f.directory) == 0);
    steps(&f, requests, in);
    REQUIRE(chdir("/") == 0);
    fake_shim_stop(&f);
    return 0;
}
