/* SPDX-License-Identifier: MIT */

/* The task service with containers, execs and their states, against a fake pod and a fake agent. */

#include "unit.h"

#include <signal.h>

#define FAKE_STDIO
#include "fake-shim.h"

typedef struct Reply {
    bool ended;
    TtrpcCode code;
    char text[300];
    uint32_t pid, exit_status;
    bool has_exited_at;
    Containerd__Status status;
} Reply;

static bool over; /* the test has ended: replies that were still awaited lie on a stack that is gone */

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Reply *r = userdata;

    if (over)
        return;
    assert_false(r->ended);
    r->ended = true;
    r->code = reply->code;
    snprintf(r->text, sizeof(r->text), "%s", reply->message ?: "");
    if (!reply->response)
        return;
    if (reply->response->descriptor == &containerd__state_response__descriptor) {
        const Containerd__StateResponse *s = (const Containerd__StateResponse *)reply->response;

        r->status = s->status;
        r->pid = s->pid;
        r->exit_status = s->exit_status;
        r->has_exited_at = s->exited_at;
    } else if (reply->response->descriptor == &containerd__wait_response__descriptor) {
        r->exit_status = ((const Containerd__WaitResponse *)reply->response)->exit_status;
        r->has_exited_at = ((const Containerd__WaitResponse *)reply->response)->exited_at;
    } else if (reply->response->descriptor == &containerd__delete_response__descriptor) {
        r->exit_status = ((const Containerd__DeleteResponse *)reply->response)->exit_status;
        r->pid = ((const Containerd__DeleteResponse *)reply->response)->pid;
    }
}

/* Calls and lets the loop run: without an answer the call waits for the agent. */
static void call(FakeShim *f, const char *method, const ProtobufCMessage *request, Reply *r)
{
    TtrpcCallSpec spec = {.service = &containerd__task__descriptor,
                          .service_name = "containerd.task.v2.Task",
                          .method = method,
                          .request = request};

    *r = (Reply){0};
    assert_int_equal(ttrpc_client_call(f->containerd, &spec, on_reply, r, NULL), 0);
    fake_settle(f, 2000);
}

static void create(FakeShim *f, const char *id, const char *bundle, Reply *r)
{
    Containerd__CreateTaskRequest request = CONTAINERD__CREATE_TASK_REQUEST__INIT;
    Containerd__Mount mount = CONTAINERD__MOUNT__INIT, *mounts[] = {&mount};
    char *path = *bundle ? fs_join(f->directory, bundle) : strdup("");

    mount.type = mount.source = (char *)"overlay";
    request.id = (char *)id;
    request.bundle = path;
    request.rootfs = mounts;
    request.n_rootfs = 1;
    call(f, "Create", &request.base, r);
    free(path);
}

static void start(FakeShim *f, const char *id, const char *exec_id, Reply *r)
{
    Containerd__StartRequest request = CONTAINERD__START_REQUEST__INIT;

    request.id = (char *)id;
    request.exec_id = (char *)exec_id;
    call(f, "Start", &request.base, r);
}

static void state_of(FakeShim *f, const char *id, const char *exec_id, Reply *r)
{
    Containerd__StateRequest request = CONTAINERD__STATE_REQUEST__INIT;

    request.id = (char *)id;
    request.exec_id = (char *)exec_id;
    call(f, "State", &request.base, r);
}

static void wait_for_end(FakeShim *f, const char *id, const char *exec_id, Reply *r)
{
    Containerd__WaitRequest request = CONTAINERD__WAIT_REQUEST__INIT;

    request.id = (char *)id;
    request.exec_id = (char *)exec_id;
    call(f, "Wait", &request.base, r);
}

static void delete_task(FakeShim *f, const char *id, const char *exec_id, Reply *r)
{
    Containerd__DeleteRequest request = CONTAINERD__DELETE_REQUEST__INIT;

    request.id = (char *)id;
    request.exec_id = (char *)exec_id;
    call(f, "Delete", &request.base, r);
}

static void send_signal(FakeShim *f, const char *id, uint32_t number, Reply *r)
{
    Containerd__KillRequest request = CONTAINERD__KILL_REQUEST__INIT;

    request.id = (char *)id;
    request.signal = number;
    call(f, "Kill", &request.base, r);
}

static void exec_with(FakeShim *f, const char *id, const char *exec_id, const char *process, bool terminal,
                      Reply *r)
{
    Containerd__ExecProcessRequest request = CONTAINERD__EXEC_PROCESS_REQUEST__INIT;
    Containerd__Any any = CONTAINERD__ANY__INIT;

    any.value.data = (uint8_t *)process;
    any.value.len = strlen(process);
    request.id = (char *)id;
    request.exec_id = (char *)exec_id;
    request.terminal = terminal;
    request.spec = *process ? &any : NULL;
    call(f, "Exec", &request.base, r);
}

static void exec(FakeShim *f, const char *exec_id, Reply *r)
{
    exec_with(f, "c", exec_id, "{\"args\":[\"/bin/sh\"],\"cwd\":\"/\"}", false, r);
}

#define assert_ok(r)                                                                                         \
    do {                                                                                                     \
        assert_true((r)->ended);                                                                             \
        if ((r)->code != TTRPC_OK)                                                                           \
            fail_msg("code %i: %s", (r)->code, (r)->text);                                                   \
    } while (0)

#define assert_refused(r, expected, words)                                                                   \
    do {                                                                                                     \
        assert_true((r)->ended);                                                                             \
        assert_int_equal((r)->code, expected);                                                               \
        if (!strstr((r)->text, words))                                                                       \
            fail_msg("\"%s\" is not in \"%s\"", words, (r)->text);                                           \
    } while (0)

/* A pod that runs, with the bundles of one container in it. */
static FakeShim *pod(void **state)
{
    FakeShim *f = calloc(1, sizeof(*f));
    Reply r;

    *state = f;
    f->agent_answers = true;
    fake_shim_start(f, true);
    fake_bundle(f, "s", "sandbox", "");
    fake_bundle(f, "c", "container", "");
    fake_bundle(f, "t", "container", ",\"terminal\":true");
    create(f, FAKE_ID, "s", &r);
    assert_ok(&r);
    start(f, FAKE_ID, "", &r);
    assert_ok(&r);
    assert_int_equal(f->acquired, 1);
    assert_int_equal(f->configured, 1);
    return f;
}

static FakeShim *pod_with_container(void **state)
{
    FakeShim *f = pod(state);
    Reply r;

    create(f, "c", "c", &r);
    assert_ok(&r);
    start(f, "c", "", &r);
    assert_ok(&r);
    return f;
}

static int teardown(void **state)
{
    over = true;
    if (*state)
        fake_shim_stop(*state);
    over = false;
    free(*state);
    return 0;
}

/* The agent tells that a process has ended: the first that somebody waits for, or an exec. */
static void end_process(FakeShim *f, const char *exec_id, uint32_t status, bool oom)
{
    Cloudhv__Agent__V1__WaitProcessResponse response = CLOUDHV__AGENT__V1__WAIT_PROCESS_RESPONSE__INIT;

    response.exit_status = status;
    response.oom_killed = oom;
    for (unsigned i = 0; i < f->n_calls; i++) {
        const Cloudhv__Agent__V1__ProcessRequest *request =
            (const Cloudhv__Agent__V1__ProcessRequest *)f->calls[i].request;

        if (strcmp(f->calls[i].method, "WaitProcess") != 0 || strcmp(request->exec_id, exec_id) != 0)
            continue;
        fake_reply(f, i, &response.base);
        fake_settle(f, 2000);
        return;
    }
    fail_msg("nobody waits for \"%s\"", exec_id);
}

static void assert_events(const FakeShim *f, const char *const *topics, size_t n)
{
    assert_int_equal(f->n_events, n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(f->events[i], topics[i]);
}

/* ---------------------------------------------------------------------------------------------------- life
 */

static void test_life(void **state)
{
    static const char *const topics[] = {"/tasks/create", "/tasks/start",  "/tasks/create", "/tasks/start",
                                         "/tasks/exit",   "/tasks/delete", "/tasks/exit",   "/tasks/delete"};
    FakeShim *f = pod_with_container(state);
    Reply r, waiter;

    assert_int_equal(f->images, 1);
    assert_int_equal(f->attached, 1);
    state_of(f, "c", "", &r);
    assert_ok(&r);
    assert_int_equal(r.status, CONTAINERD__STATUS__RUNNING);
    assert_int_equal(r.pid, getpid());
    assert_false(r.has_exited_at);
    wait_for_end(f, "c", "", &waiter);
    assert_false(waiter.ended);
    delete_task(f, "c", "", &r);
    assert_refused(&r, TTRPC_FAILED_PRECONDITION, "container c is running and cannot become being deleted");
    /* Only the lowest byte is an exit status, whatever the guest says. */
    end_process(f, "", 0x1203, false);
    assert_ok(&waiter);
    assert_int_equal(waiter.exit_status, 3);
    assert_true(waiter.has_exited_at);
    state_of(f, "c", "", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__STOPPED);
    assert_int_equal(r.exit_status, 3);
    assert_true(r.has_exited_at);
    wait_for_end(f, "c", "", &r);
    assert_ok(&r);
    assert_int_equal(r.exit_status, 3);
    delete_task(f, "c", "", &r);
    assert_ok(&r);
    assert_int_equal(r.exit_status, 3);
    assert_int_equal(f->detached, 1);
    state_of(f, "c", "", &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "container c: not found");

    send_signal(f, FAKE_ID, SIGKILL, &r);
    assert_ok(&r);
    delete_task(f, FAKE_ID, "", &r);
    assert_ok(&r);
    assert_int_equal(r.exit_status, 137);
    assert_int_equal(f->released, 1);
    assert_null(f->shim.pod);
    assert_events(f, topics, ELEMENTSOF(topics));
}

static void test_last_words_return(void **state)
{
    Cloudhv__Agent__V1__ReadTreeFileResponse response = CLOUDHV__AGENT__V1__READ_TREE_FILE_RESPONSE__INIT;
    FakeShim *f = pod_with_container(state);
    _cleanup_free_ char *text = NULL;
    Reply waiter;

    f->agent_answers = false;
    wait_for_end(f, "c", "", &waiter);
    end_process(f, "", 1, false);
    /* The exit is not told before the file is back. */
    assert_false(waiter.ended);
    assert_true(fake_find(f, "ReadTreeFile") < FAKE_CALLS_MAX);
    response.data = (ProtobufCBinaryData){.data = (uint8_t *)"out of luck", .len = 11};
    fake_reply(f, fake_find(f, "ReadTreeFile"), &response.base);
    fake_settle(f, 2000);
    assert_ok(&waiter);
    assert_int_equal(fs_read_file(f->last_words, 100, &text, NULL), 0);
    assert_string_equal(text, "out of luck");
}

static void test_oom(void **state)
{
    FakeShim *f = pod_with_container(state);

    end_process(f, "", 137, true);
    assert_int_equal(f->n_events, 6);
    assert_string_equal(f->events[4], "/tasks/oom");
    assert_string_equal(f->events[5], "/tasks/exit");
}

/* The agent's answers about start and end may cross: the start is told first. */
static void test_end_before_start(void **state)
{
    FakeShim *f = pod(state);
    Reply r;

    create(f, "c", "c", &r);
    assert_ok(&r);
    f->agent_answers = false;
    start(f, "c", "", &r);
    assert_false(r.ended);
    end_process(f, "", 5, false);
    assert_int_equal(f->n_events, 3);
    fake_reply(f, fake_find(f, "StartProcess"), NULL);
    fake_settle(f, 2000);
    assert_ok(&r);
    assert_string_equal(f->events[3], "/tasks/start");
    fake_reply(f, fake_find(f, "ReadTreeFile"), NULL);
    fake_settle(f, 2000);
    assert_int_equal(f->n_events, 5);
    assert_string_equal(f->events[4], "/tasks/exit");
    state_of(f, "c", "", &r);
    assert_int_equal(r.exit_status, 5);
}

/* -------------------------------------------------------------------------------------------------- refusals
 */

static void test_create_refusals(void **state)
{
    Containerd__CreateTaskRequest request = CONTAINERD__CREATE_TASK_REQUEST__INIT;
    FakeShim *f = pod(state);
    Reply r;

    create(f, "../c", "c", &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "../c");
    create(f, FAKE_ID, "s", &r);
    assert_refused(&r, TTRPC_ALREADY_EXISTS, "container " FAKE_ID " exists");
    create(f, "other", "s", &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "this shim serves " FAKE_ID);
    create(f, "c", "", &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "no absolute path");
    create(f, "c", "missing", &r);
    /* "Not found" would be news about the container. */
    assert_refused(&r, TTRPC_UNKNOWN, "missing/config.json");
    request.id = (char *)"c";
    request.bundle = (char *)"/b";
    request.checkpoint = (char *)"/c";
    call(f, "Create", &request.base, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "checkpoints are not supported");
    create(f, "t", "t", &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "process.terminal is true, the request says otherwise");
    assert_null(container_find(&f->shim, "c"));
    assert_null(container_find(&f->shim, "t"));
    assert_int_equal(f->images, 0);
}

static void test_rootfs_mounts(void **state)
{
    Containerd__CreateTaskRequest request = CONTAINERD__CREATE_TASK_REQUEST__INIT;
    FakeShim *f = pod(state);
    _cleanup_free_ char *bundle = fs_join(f->directory, "c");
    Reply r;

    request.id = (char *)"c";
    request.bundle = bundle;
    call(f, "Create", &request.base, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "0 mounts");
    assert_null(container_find(&f->shim, "c"));
}

static void assert_nothing_left(FakeShim *f, const Reply *r, const char *words)
{
    assert_true(r->ended);
    assert_int_not_equal(r->code, TTRPC_OK);
    if (!strstr(r->text, "cannot create container c: ") || !strstr(r->text, words))
        fail_msg("%s", r->text);
    assert_null(container_find(&f->shim, "c"));
    assert_int_equal(f->shim.record->n_disks, 0);
}

/* Whatever step fails, the steps before it are undone, and the next attempt can succeed. */
static void test_create_undone(void **state)
{
    FakeShim *f = pod(state);
    Reply r;

    f->image_fails = true;
    create(f, "c", "c", &r);
    assert_nothing_left(f, &r, "the fake image has no luck");
    assert_int_equal(f->attached, 0);
    f->image_fails = false;
    f->attach_fails = true;
    create(f, "c", "c", &r);
    assert_nothing_left(f, &r, "the fake pod has no luck");
    assert_int_equal(f->detached, 1);
    f->attach_fails = false;
    f->agent_answers = false;
    create(f, "c", "c", &r);
    while (!r.ended) {
        unsigned i = fake_find(f, "CreateContainer");

        if (i < FAKE_CALLS_MAX) {
            fake_refuse(f, i, TTRPC_NOT_FOUND, "no such program");
            f->agent_answers = true;
        } else
            fake_reply(f, 0, NULL); /* its files */
        fake_settle(f, 2000);
    }
    assert_nothing_left(f, &r, "no such program");
    assert_int_equal(r.code, TTRPC_UNKNOWN);
    assert_int_equal(f->detached, 2);
    create(f, "c", "c", &r);
    assert_ok(&r);
}

static void test_acquire_fails(void **state)
{
    FakeShim *f = calloc(1, sizeof(*f));
    Reply r;

    *state = f;
    f->acquire_fails = true;
    fake_shim_start(f, false);
    fake_bundle(f, "s", "sandbox", "");
    create(f, FAKE_ID, "s", &r);
    assert_refused(&r, ttrpc_code_from_errno(-EIO),
                   "cannot create container " FAKE_ID ": the fake pod has no luck");
    assert_int_equal(f->released, 1);
    assert_null(f->shim.pod);
    assert_null(f->shim.containers);
}

static void test_container_without_pod(void **state)
{
    FakeShim *f = calloc(1, sizeof(*f));
    Reply r;

    *state = f;
    fake_shim_start(f, false);
    fake_bundle(f, "c", "container", "");
    create(f, "c", "c", &r);
    assert_true(r.ended && strstr(r.text, "its sandbox " FAKE_ID " has no running VM"));
}

static void test_start_refusals(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply r;

    start(f, "c", "", &r);
    assert_refused(&r, TTRPC_FAILED_PRECONDITION, "container c is running and cannot become being started");
    start(f, "none", "", &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "container none: not found");
    start(f, "c", "none", &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "container c: process none not found");
}

static void test_start_fails(void **state)
{
    FakeShim *f = pod(state);
    Reply r;

    create(f, "c", "c", &r);
    f->agent_answers = false;
    start(f, "c", "", &r);
    fake_refuse(f, fake_find(f, "StartProcess"), TTRPC_INTERNAL, "crun has no luck");
    fake_settle(f, 2000);
    assert_true(r.ended && strstr(r.text, "cannot start container c: ") &&
                strstr(r.text, "crun has no luck"));
    state_of(f, "c", "", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__CREATED);
    /* It can be tried again. */
    f->agent_answers = true;
    start(f, "c", "", &r);
    assert_ok(&r);
}

static void test_kill(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply r;

    send_signal(f, "c", 65, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "there is no signal 65");
    send_signal(f, "c", SIGTERM, &r);
    assert_ok(&r);
    f->agent_answers = false;
    send_signal(f, "c", SIGTERM, &r);
    assert_false(r.ended);
    fake_refuse(f, fake_find(f, "Kill"), TTRPC_NOT_FOUND, "gone");
    fake_settle(f, 2000);
    assert_refused(&r, TTRPC_NOT_FOUND, "process already finished");
    send_signal(f, "c", SIGTERM, &r);
    fake_refuse(f, fake_find(f, "Kill"), TTRPC_INTERNAL, "no luck");
    fake_settle(f, 2000);
    assert_refused(&r, TTRPC_INTERNAL, "container c: cannot send the signal: ");
    f->agent_answers = true;
    end_process(f, "", 0, false);
    send_signal(f, "c", SIGTERM, &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "process already finished");
    /* The sandbox's container has no process: what would not end one does not end it. */
    send_signal(f, FAKE_ID, SIGUSR1, &r);
    assert_ok(&r);
    state_of(f, FAKE_ID, "", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__RUNNING);
    send_signal(f, FAKE_ID, SIGTERM, &r);
    state_of(f, FAKE_ID, "", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__STOPPED);
    assert_int_equal(r.exit_status, 128 + SIGTERM);
}

static void test_resize(void **state)
{
    Containerd__ResizePtyRequest request = CONTAINERD__RESIZE_PTY_REQUEST__INIT;
    FakeShim *f = pod_with_container(state);
    Reply r;

    request.id = (char *)"c";
    call(f, "ResizePty", &request.base, &r);
    assert_refused(&r, TTRPC_FAILED_PRECONDITION, "container c: the process has no terminal");
    exec_with(f, "c", "e", "{\"args\":[\"/bin/sh\"],\"cwd\":\"/\",\"terminal\":true}", true, &r);
    assert_ok(&r);
    request.exec_id = (char *)"e";
    call(f, "ResizePty", &request.base, &r);
    assert_ok(&r);
}

/* --------------------------------------------------------------------------------------------------- waiters
 */

static void test_waiters(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply *many = calloc(300, sizeof(*many)), r;
    Containerd__WaitRequest request = CONTAINERD__WAIT_REQUEST__INIT;
    unsigned refused = 0;

    request.id = (char *)"c";
    for (unsigned i = 0; i < 300; i++) {
        call(f, "Wait", &request.base, &many[i]);
        refused += many[i].ended;
    }
    assert_int_equal(refused, 300 - 256);
    assert_refused(&many[299], TTRPC_RESOURCE_EXHAUSTED, "256 callers wait");
    end_process(f, "", 9, false);
    for (unsigned i = 0; i < 256; i++) {
        assert_ok(&many[i]);
        assert_int_equal(many[i].exit_status, 9);
    }
    wait_for_end(f, "c", "", &r);
    assert_ok(&r);
    free(many);
}

/* A waiter whose connection is gone is forgotten. */
static void test_waiter_goes(void **state)
{
    FakeShim *f = pod_with_container(state);
    Container *c = container_find(&f->shim, "c");
    Reply r;

    wait_for_end(f, "c", "", &r);
    assert_int_equal(c->init.n_waiters, 1);
    f->containerd = ttrpc_client_free(f->containerd);
    fake_settle(f, 2000);
    assert_int_equal(c->init.n_waiters, 0);
    f->containerd = fake_connect(f->shim.loop, f->shim.server);
    end_process(f, "", 0, false);
}

/* ------------------------------------------------------------------------------------------------------ exec
 */

static void test_exec(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply r, waiter;

    exec(f, "e", &r);
    assert_ok(&r);
    assert_string_equal(f->events[4], "/tasks/exec-added");
    state_of(f, "c", "e", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__CREATED);
    exec(f, "e", &r);
    assert_refused(&r, TTRPC_ALREADY_EXISTS, "container c has an exec e already");
    start(f, "c", "e", &r);
    assert_ok(&r);
    assert_string_equal(f->events[5], "/tasks/exec-started");
    wait_for_end(f, "c", "e", &waiter);
    delete_task(f, "c", "e", &r);
    assert_refused(&r, TTRPC_FAILED_PRECONDITION, "exec e is running");
    end_process(f, "e", 7, true);
    assert_ok(&waiter);
    assert_int_equal(waiter.exit_status, 7);
    /* An exec that was killed for memory is no news about the container. */
    assert_string_equal(f->events[6], "/tasks/exit");
    delete_task(f, "c", "e", &r);
    assert_ok(&r);
    assert_int_equal(r.exit_status, 7);
    state_of(f, "c", "e", &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "process e not found");
    state_of(f, "c", "", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__RUNNING);
}

static void test_exec_refusals(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply r;

    exec_with(f, "none", "e", "{}", false, &r);
    assert_refused(&r, TTRPC_NOT_FOUND, "container none: not found");
    exec_with(f, FAKE_ID, "e", "{\"args\":[\"a\"],\"cwd\":\"/\"}", false, &r);
    assert_true(r.ended && strstr(r.text, "without a process"));
    exec_with(f, "c", "a/b", "{\"args\":[\"a\"],\"cwd\":\"/\"}", false, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "exec id");
    exec_with(f, "c", "e", "", false, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "no process");
    exec_with(f, "c", "e", "{\"args\":[]}", false, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "args");
    exec_with(f, "c", "e", "{\"args\":[\"a\"],\"cwd\":\"/\",\"terminal\":true}", false, &r);
    assert_refused(&r, TTRPC_INVALID_ARGUMENT, "process.terminal is true");
    f->agent_answers = false;
    exec(f, "e", &r);
    fake_refuse(f, fake_find(f, "Exec"), TTRPC_INTERNAL, "no memory");
    fake_settle(f, 2000);
    assert_true(r.ended && strstr(r.text, "cannot make exec e: ") && strstr(r.text, "no memory"));
    assert_null(container_process(container_find(&f->shim, "c"), "e"));
    end_process(f, "", 0, false);
    exec(f, "e", &r);
    assert_true(r.ended && strstr(r.text, "container c is "));
}

/* An exec that the agent has yet to make is not to be deleted under its answer. */
static void test_exec_deleted_early(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply made, r;

    f->agent_answers = false;
    exec(f, "e", &made);
    assert_false(made.ended);
    delete_task(f, "c", "e", &r);
    assert_refused(&r, TTRPC_FAILED_PRECONDITION, "exec e is being created");
    fake_reply(f, fake_find(f, "Exec"), NULL);
    fake_settle(f, 2000);
    assert_ok(&made);
    state_of(f, "c", "e", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__CREATED);
}

/* ---------------------------------------------------------------------------------------------- the VM's end
 */

static void test_vm_ends(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply waiter, sandbox, r;

    exec(f, "e", &r);
    wait_for_end(f, "c", "", &waiter);
    wait_for_end(f, FAKE_ID, "", &sandbox);
    shim_pod_ended(&f->shim, "it burned");
    fake_settle(f, 2000);
    assert_ok(&waiter);
    assert_int_equal(waiter.exit_status, 137);
    assert_ok(&sandbox);
    assert_int_equal(sandbox.exit_status, 137);
    state_of(f, "c", "e", &r);
    assert_int_equal(r.status, CONTAINERD__STATUS__STOPPED);
}

/* The answer to a start comes after the VM was found to have ended, and after containerd has tidied up. */
static void test_exec_deleted_after_vm_ended(void **state)
{
    FakeShim *f = pod_with_container(state);
    Reply started, r;

    exec(f, "e", &r);
    f->agent_answers = false;
    start(f, "c", "e", &started);
    assert_false(started.ended);
    shim_pod_ended(&f->shim, "it burned");
    fake_settle(f, 2000);
    assert_refused(&started, TTRPC_UNAVAILABLE, "the pod's VM has ended");
    f->agent_answers = true;
    delete_task(f, "c", "e", &r);
    assert_ok(&r);
    assert_int_equal(r.exit_status, 137);
    while (f->n_calls > 0)
        fake_refuse(f, 0, TTRPC_UNAVAILABLE, "gone");
    fake_settle(f, 2000);
}

/* -------------------------------------------------------------------------------------------------- shutdown
 */

static void test_shutdown(void **state)
{
    Containerd__ShutdownRequest request = CONTAINERD__SHUTDOWN_REQUEST__INIT;
    FakeShim *f = pod(state);
    Reply made, r;

    request.id = (char *)FAKE_ID;
    call(f, "Shutdown", &request.base, &r);
    assert_ok(&r);
    assert_int_equal(f->stopped, 0); /* a pod is there */
    f->agent_answers = false;
    create(f, "c", "c", &made);
    assert_false(made.ended);
    request.id = (char *)"c";
    call(f, "Shutdown", &request.base, &r);
    assert_ok(&r);
    f->agent_answers = true;
    while (f->n_calls > 0) {
        fake_reply(f, 0, NULL);
        fake_settle(f, 2000);
    }
    assert_true(made.ended && strstr(made.text, "containerd shuts the shim down"));
    assert_null(container_find(&f->shim, "c"));
    send_signal(f, FAKE_ID, SIGKILL, &r);
    delete_task(f, FAKE_ID, "", &r);
    assert_ok(&r);
    assert_int_equal(f->stopped, 1);
}

/* ---------------------------------------------------------------------------------------------------- states
 */

static void test_moves(void **state)
{
    /* Rows: from; columns: to. */
    static const char *const allowed[] = {
        [PROCESS_CREATING] = ".C....D", [PROCESS_CREATED] = "..S.E.D", [PROCESS_STARTING] = ".C.RE..",
        [PROCESS_RUNNING] = "....E..",  [PROCESS_ENDING] = ".....X.",  [PROCESS_STOPPED] = "......D",
        [PROCESS_DELETING] = ".....X.",
    };
    Container c = {.id = (char *)"c1"};

    for (int from = PROCESS_CREATING; from <= PROCESS_DELETING; from++)
        for (int to = PROCESS_CREATING; to <= PROCESS_DELETING; to++) {
            Process p = {.container = &c, .exec_id = (char *)"", .state = (ProcessState)from};
            _cleanup_error_ Error e = ERROR_INIT;
            int r = process_move(&p, (ProcessState)to, &e);

            if (allowed[from][to] != '.') {
                assert_int_equal(r, 0);
                assert_int_equal(p.state, to);
                continue;
            }
            assert_int_equal(r, -EPERM);
            assert_int_equal(p.state, from);
            assert_non_null(strstr(e.message, "container c1 is "));
            assert_non_null(strstr(e.message, process_state_name((ProcessState)from)));
            assert_non_null(strstr(e.message, process_state_name((ProcessState)to)));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_life, teardown),
        cmocka_unit_test_teardown(test_last_words_return, teardown),
        cmocka_unit_test_teardown(test_oom, teardown),
        cmocka_unit_test_teardown(test_end_before_start, teardown),
        cmocka_unit_test_teardown(test_create_refusals, teardown),
        cmocka_unit_test_teardown(test_rootfs_mounts, teardown),
        cmocka_unit_test_teardown(test_create_undone, teardown),
        cmocka_unit_test_teardown(test_acquire_fails, teardown),
        cmocka_unit_test_teardown(test_container_without_pod, teardown),
        cmocka_unit_test_teardown(test_start_refusals, teardown),
        cmocka_unit_test_teardown(test_start_fails, teardown),
        cmocka_unit_test_teardown(test_kill, teardown),
        cmocka_unit_test_teardown(test_resize, teardown),
        cmocka_unit_test_teardown(test_waiters, teardown),
        cmocka_unit_test_teardown(test_waiter_goes, teardown),
        cmocka_unit_test_teardown(test_exec, teardown),
        cmocka_unit_test_teardown(test_exec_refusals, teardown),
        cmocka_unit_test_teardown(test_exec_deleted_early, teardown),
        cmocka_unit_test_teardown(test_vm_ends, teardown),
        cmocka_unit_test_teardown(test_exec_deleted_after_vm_ended, teardown),
        cmocka_unit_test_teardown(test_shutdown, teardown),
        cmocka_unit_test(test_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
