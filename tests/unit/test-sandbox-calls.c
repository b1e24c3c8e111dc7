/* SPDX-License-Identifier: MIT */

/* The daemon's calls about VMs that run, with a fake VMM: repeated ones, those that wait, and streams. What
 * is refused and what fails is in test-sandbox-service.c. */

#include "unit.h"

#include <fcntl.h>

#include "fake-vmm.h"

typedef struct Reply {
    bool ended;
    TtrpcCode code;
    char text[300];
    bool existed;
    unsigned n_sandboxes, messages;
    char state[20], containers[40], reason[60];
    uint64_t agent_private;
} Reply;

typedef struct Fixture {
    FakeVm vm;
    SandboxSettings settings;
    SandboxService *service;
    TtrpcServer *server;
    TtrpcClient *client;
} Fixture;

static bool over; /* the test has ended: replies that were awaited lie on a stack that is gone */

static void start_service(Fixture *f)
{
    assert_int_equal(sandbox_service_new(f->vm.loop, &f->settings, NULL, NULL, &f->service, NULL), 0);
    assert_int_equal(ttrpc_server_new(f->vm.loop, &f->server), 0);
    assert_int_equal(sandbox_service_register(f->service, f->server), 0);
}

static void connect_client(Fixture *f)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(ttrpc_server_add_connection(f->server, pair[0]), 0);
    assert_int_equal(ttrpc_client_new(f->vm.loop, pair[1], &f->client), 0);
}

static void stop_service(Fixture *f)
{
    f->client = ttrpc_client_free(f->client);
    f->server = ttrpc_server_free(f->server);
    f->service = sandbox_service_free(f->service);
}

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    *state = f;
    fake_vm_start(&f->vm);
    f->settings = fake_vm_settings(&f->vm);
    start_service(f);
    connect_client(f);
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    char key[SANDBOX_KEY_SIZE];

    over = true;
    stop_service(f);
    fake_vm_settle(&f->vm, 0);
    sandbox_key("ns", "pod", key);
    (void)sandbox_remove_leftover(f->settings.state_dir, "ns", "pod", NULL);
    fake_vm_stop(&f->vm);
    free(f);
    over = false;
    return 0;
}

static void take_status(const Cloudhv__Daemon__V1__SandboxStatus *s, Reply *r)
{
    snprintf(r->state, sizeof(r->state), "%s", s->state);
    snprintf(r->reason, sizeof(r->reason), "%s", s->end_reason);
    r->containers[0] = 0;
    for (size_t i = 0; i < s->n_containers; i++)
        snprintf(r->containers + strlen(r->containers), sizeof(r->containers) - strlen(r->containers), "%s ",
                 s->containers[i]);
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    const ProtobufCMessage *m = reply->response;
    Reply *r = userdata;

    if (over)
        return;
    assert_false(r->ended);
    r->ended = !m || m->descriptor != &cloudhv__daemon__v1__sandbox_event__descriptor;
    r->code = reply->code;
    snprintf(r->text, sizeof(r->text), "%s", reply->message ?: "");
    if (!m)
        return;
    r->messages++;
    if (m->descriptor == &cloudhv__daemon__v1__acquire_sandbox_response__descriptor)
        r->existed = ((const Cloudhv__Daemon__V1__AcquireSandboxResponse *)m)->existed;
    else if (m->descriptor == &cloudhv__daemon__v1__release_sandbox_response__descriptor)
        r->existed = ((const Cloudhv__Daemon__V1__ReleaseSandboxResponse *)m)->existed;
    else if (m->descriptor == &cloudhv__daemon__v1__usage_response__descriptor)
        r->agent_private = ((const Cloudhv__Daemon__V1__UsageResponse *)m)->agent_private;
    else if (m->descriptor == &cloudhv__daemon__v1__sandbox_event__descriptor)
        take_status(((const Cloudhv__Daemon__V1__SandboxEvent *)m)->status, r);
    else if (m->descriptor == &cloudhv__daemon__v1__status_response__descriptor) {
        const Cloudhv__Daemon__V1__StatusResponse *s = (const Cloudhv__Daemon__V1__StatusResponse *)m;

        r->n_sandboxes = (unsigned)s->n_sandboxes;
        if (s->n_sandboxes > 0)
            take_status(s->sandboxes[0], r);
    }
}

static void call_with(Fixture *f, const char *method, const ProtobufCMessage *request, const int *fds,
                      size_t n_fds, Reply *r)
{
    TtrpcCallSpec spec = {.service = &cloudhv__daemon__v1__sandboxes__descriptor,
                          .method = method,
                          .request = request,
                          .fds = fds,
                          .n_fds = n_fds,
                          .stream = strcmp(method, "Watch") == 0};

    *r = (Reply){0};
    assert_int_equal(ttrpc_client_call(f->client, &spec, on_reply, r, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
}

static void acquire(Fixture *f, Reply *r)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;

    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod";
    call_with(f, "AcquireSandbox", &request.base, NULL, 0, r);
}

static void named(Fixture *f, const char *method, Reply *r)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest release = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__SandboxRequest other = CLOUDHV__DAEMON__V1__SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__StatusRequest status = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;

    release.namespace_ = other.namespace_ = status.namespace_ = (char *)"ns";
    release.sandbox_id = other.sandbox_id = status.sandbox_id = (char *)"pod";
    call_with(f, method,
              strcmp(method, "ReleaseSandbox") == 0 ? &release.base
              : strcmp(method, "Status") == 0       ? &status.base
                                                    : &other.base,
              NULL, 0, r);
}

static void guest_takes_identity(Fixture *f)
{
    Cloudhv__Agent__V1__HelloResponse hello = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;
    Cloudhv__Agent__V1__IdentityResponse identity = CLOUDHV__AGENT__V1__IDENTITY_RESPONSE__INIT;

    hello.protocol = 1;
    fake_guest_reply(&f->vm, fake_guest_find(&f->vm, "Hello"), &hello.base);
    fake_vm_settle(&f->vm, 2000);
    fake_guest_reply(&f->vm, fake_guest_find(&f->vm, "Identity"), &identity.base);
    fake_vm_settle(&f->vm, 2000);
}

#define assert_ok(r)                                                                                         \
    do {                                                                                                     \
        assert_true((r)->ended);                                                                             \
        if ((r)->code != TTRPC_OK)                                                                           \
            fail_msg("code %i: %s", (r)->code, (r)->text);                                                   \
    } while (0)

static Fixture *running(void **state)
{
    Fixture *f = *state;
    Reply r;

    acquire(f, &r);
    assert_false(r.ended);
    guest_takes_identity(f);
    assert_ok(&r);
    assert_false(r.existed);
    return f;
}

static void test_repeated_acquire(void **state)
{
    Fixture *f = *state;
    Reply first, second, third;

    acquire(f, &first);
    acquire(f, &second); /* while the first one waits */
    assert_false(first.ended || second.ended);
    guest_takes_identity(f);
    assert_ok(&first);
    assert_ok(&second);
    assert_false(first.existed);
    assert_true(second.existed);
    acquire(f, &third);
    assert_ok(&third);
    assert_true(third.existed);
    assert_int_equal(f->vm.booted, 1);
    named(f, "ReleaseSandbox", &third);
    assert_ok(&third);
}

/* The TAP that comes with a repeated call is nobody's: it must not keep the device alive. */
static void test_repeated_acquire_closes_descriptors(void **state)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Fixture *f = running(state);
    int fds[2];
    Reply r;
    char c;

    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod";
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    call_with(f, "AcquireSandbox", &request.base, &fds[1], 1, &r);
    assert_ok(&r);
    close(fds[1]);
    assert_int_equal(read(fds[0], &c, 1), 0);
    close(fds[0]);
    named(f, "ReleaseSandbox", &r);
}

static void test_release(void **state)
{
    Fixture *f = running(state);
    Reply r;

    named(f, "ReleaseSandbox", &r);
    assert_ok(&r);
    assert_true(r.existed);
    assert_int_equal(sandbox_service_count(f->service), 0);
    named(f, "ReleaseSandbox", &r);
    assert_ok(&r);
    assert_false(r.existed);
}

static void test_released_before_ready(void **state)
{
    Fixture *f = *state;
    Reply acquired, released;

    acquire(f, &acquired);
    assert_false(acquired.ended);
    named(f, "ReleaseSandbox", &released);
    assert_ok(&released);
    assert_true(acquired.ended);
    assert_int_equal(acquired.code, TTRPC_ABORTED);
    assert_string_equal(acquired.text, "the sandbox was released before its VM was ready");
}

static void test_boot_fails(void **state)
{
    Fixture *f = *state;
    Reply r;

    f->vm.boot = -ENOMEM;
    acquire(f, &r);
    assert_true(r.ended);
    assert_int_equal(r.code, ttrpc_code_from_errno(-ENOMEM));
    assert_non_null(strstr(r.text, "the fake VMM has no luck"));
    assert_int_equal(sandbox_service_count(f->service), 0);
}

static void test_status(void **state)
{
    Cloudhv__Daemon__V1__AddContainerRequest add = CLOUDHV__DAEMON__V1__ADD_CONTAINER_REQUEST__INIT;
    Cloudhv__Daemon__V1__Disk disk = CLOUDHV__DAEMON__V1__DISK__INIT, *disks[] = {&disk};
    Fixture *f = running(state);
    Reply r;

    add.namespace_ = (char *)"ns";
    add.sandbox_id = (char *)"pod";
    add.container_id = (char *)"web";
    add.disks = disks;
    add.n_disks = 1;
    disk.serial = (char *)"i1";
    disk.path = (char *)"relative";
    call_with(f, "AddContainer", &add.base, NULL, 0, &r);
    assert_int_equal(r.code, TTRPC_INVALID_ARGUMENT);
    assert_non_null(strstr(r.text, "the path \"relative\" of disk i1 is not absolute"));
    disk.path = (char *)"/proc/self/exe";
    disk.read_only = true;
    call_with(f, "AddContainer", &add.base, NULL, 0, &r);
    assert_ok(&r);
    named(f, "Status", &r);
    assert_ok(&r);
    assert_int_equal(r.n_sandboxes, 1);
    assert_string_equal(r.state, "running");
    assert_string_equal(r.containers, "web ");
    fake_vmm_ends(&f->vm, "it burned");
    fake_vm_settle(&f->vm, 2000);
    named(f, "Status", &r);
    assert_string_equal(r.state, "ended");
    assert_string_equal(r.reason, "it burned");
    acquire(f, &r);
    assert_int_equal(r.code, TTRPC_FAILED_PRECONDITION);
    assert_non_null(strstr(r.text, "the VM of sandbox pod has ended: it burned"));
    call_with(f, "AddContainer", &add.base, NULL, 0, &r);
    assert_true(r.ended && strstr(r.text, "sandbox pod is ended: it burned"));
    named(f, "ReleaseSandbox", &r);
    assert_ok(&r);
}

/* The configured VMM may be one that this version cannot drive: that is a reason, not an end. */
static void test_status_without_driver(void **state)
{
    Fixture *f = *state;
    Reply r;

    f->settings.driver = NULL;
    f->settings.no_vmm_reason = (char *)"no VM can be run: no driver";
    named(f, "Status", &r);
    assert_ok(&r);
    acquire(f, &r);
    assert_int_equal(r.code, TTRPC_UNIMPLEMENTED);
    assert_string_equal(r.text, "no VM can be run: no driver");
}

/* Whoever waits for a disk hears of it when the daemon ends, and the VM goes on. */
static void test_service_ends(void **state)
{
    Cloudhv__Daemon__V1__AddContainerRequest add = CLOUDHV__DAEMON__V1__ADD_CONTAINER_REQUEST__INIT;
    Cloudhv__Daemon__V1__Disk disk = CLOUDHV__DAEMON__V1__DISK__INIT, *disks[] = {&disk};
    TtrpcCallSpec spec = {.service = &cloudhv__daemon__v1__sandboxes__descriptor,
                          .method = "AddContainer",
                          .request = &add.base};
    Fixture *f = running(state);
    Reply r = {0};

    add.namespace_ = (char *)"ns";
    add.sandbox_id = (char *)"pod";
    add.container_id = (char *)"web";
    add.disks = disks;
    add.n_disks = 1;
    disk.serial = (char *)"i1";
    disk.path = (char *)"/proc/self/exe";
    disk.read_only = true;
    assert_int_equal(ttrpc_client_call(f->client, &spec, on_reply, &r, NULL), 0);
    while (!f->vm.vmm->ops)
        assert_true(loop_run_once(f->vm.loop, 1000000) > 0);
    f->service = sandbox_service_free(f->service);
    fake_vm_settle(&f->vm, 2000);
    assert_true(r.ended);
    assert_int_equal(r.code, ttrpc_code_from_errno(-ECONNABORTED));
    assert_string_equal(r.text, "the disks of container web cannot be changed: the owner of the VM ends");
    assert_int_equal(f->vm.killed, 0);
}

static void test_watch(void **state)
{
    Cloudhv__Daemon__V1__WatchRequest request = CLOUDHV__DAEMON__V1__WATCH_REQUEST__INIT;
    Fixture *f = running(state);
    Reply all, other, r;

    call_with(f, "Watch", &request.base, NULL, 0, &all);
    /* The present state comes first. */
    assert_int_equal(all.messages, 1);
    assert_string_equal(all.state, "running");
    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"another";
    call_with(f, "Watch", &request.base, NULL, 0, &other);
    assert_int_equal(other.messages, 0);
    fake_vmm_ends(&f->vm, "it burned");
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(all.messages, 2);
    assert_string_equal(all.state, "ended");
    assert_string_equal(all.reason, "it burned");
    named(f, "ReleaseSandbox", &r);
    assert_int_equal(all.messages, 4); /* releasing, gone */
    assert_string_equal(all.state, "gone");
    assert_int_equal(other.messages, 0);
    assert_false(all.ended || other.ended);
}

static void test_usage(void **state)
{
    Cloudhv__Agent__V1__UsageResponse usage = CLOUDHV__AGENT__V1__USAGE_RESPONSE__INIT;
    Fixture *f = running(state);
    Reply r, s;

    named(f, "Usage", &r);
    assert_false(r.ended);
    usage.agent_private = 123456;
    fake_guest_reply(&f->vm, fake_guest_find(&f->vm, "Usage"), &usage.base);
    fake_vm_settle(&f->vm, 2000);
    assert_ok(&r);
    assert_int_equal(r.agent_private, 123456);
    /* One that waits when the VM is released is told so. */
    named(f, "Usage", &r);
    named(f, "ReleaseSandbox", &s);
    assert_ok(&s);
    assert_true(r.ended);
    assert_int_not_equal(r.code, TTRPC_OK);
    named(f, "Usage", &r);
    assert_int_equal(r.code, TTRPC_NOT_FOUND);
}

/* A daemon that is started anew takes the VMs over. */
static void test_restart(void **state)
{
    Fixture *f = running(state);
    Reply r;

    stop_service(f);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(f->vm.killed, 0);
    start_service(f);
    connect_client(f);
    fake_vm_settle(&f->vm, 2000);
    acquire(f, &r);
    assert_ok(&r);
    assert_true(r.existed);
    assert_int_equal(f->vm.booted, 1);
    named(f, "ReleaseSandbox", &r);
    assert_ok(&r);
    assert_int_equal(f->vm.killed, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_repeated_acquire, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeated_acquire_closes_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_release, setup, teardown),
        cmocka_unit_test_setup_teardown(test_released_before_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_boot_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_without_driver, setup, teardown),
        cmocka_unit_test_setup_teardown(test_service_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
