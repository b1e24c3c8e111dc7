/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "daemon.pb-c.h"
#include "sandbox/sandbox.h"
#include "sandbox/state.h"
#include "sandbox/uid.h"

/* A service on a socket pair. Its VMM is a program that ends at once, so that no VM is needed to see what
 * happens when one cannot be had. */
typedef struct Fixture {
    Loop *loop;
    char *dir;
    SandboxSettings settings;
    SandboxService *service;
    TtrpcServer *server;
    TtrpcClient *client;
    TtrpcCode code;
    char *message;
    unsigned answers;
    size_t n_sandboxes;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    int pair[2];

    assert_non_null(f);
    f->dir = strdup("/tmp/test-sandbox-service.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(loop_new(&f->loop), 0);
    f->settings = (SandboxSettings){
        .state_dir = f->dir,
        .driver = vmm_driver_by_name("qemu"),
        .vmm_binary = "/bin/false",
        .kernel = "/bin/true",
        .rootfs = "/bin/true",
        .kernel_args = "quiet",
        .default_vcpus = 1,
        .default_memory_mb = 128,
        .uid_base = 1879248192,
        .uid_count = 4,
        .gid = 1879248192,
        .emulate = true,
        .boot_timeout_usec = 10 * USEC_PER_SEC,
        .operation_timeout_usec = 10 * USEC_PER_SEC,
        .max_containers = 5,
    };
    assert_int_equal(sandbox_service_new(f->loop, &f->settings, NULL, NULL, &f->service, NULL), 0);
    assert_int_equal(ttrpc_server_new(f->loop, &f->server), 0);
    assert_int_equal(sandbox_service_register(f->service, f->server), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(ttrpc_server_add_connection(f->server, pair[0]), 0);
    assert_int_equal(ttrpc_client_new(f->loop, pair[1], &f->client), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    ttrpc_client_free(f->client);
    ttrpc_server_free(f->server);
    sandbox_service_free(f->service);
    loop_free(f->loop);
    assert_int_equal(fs_remove_tree(f->dir), 0);
    free(f->message);
    free(f->dir);
    free(f);
    return 0;
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Fixture *f = userdata;

    free(f->message);
    f->code = reply->code;
    f->message = strdup(reply->message ?: "");
    f->answers++;
    if (reply->response && reply->response->descriptor == &cloudhv__daemon__v1__status_response__descriptor)
        f->n_sandboxes = ((const Cloudhv__Daemon__V1__StatusResponse *)reply->response)->n_sandboxes;
}

static TtrpcCode call(Fixture *f, const char *method, const ProtobufCMessage *request, const int *fds,
                      size_t n_fds)
{
    unsigned before = f->answers;
    uint64_t deadline = loop_now() + 20 * USEC_PER_SEC;
    TtrpcCallSpec spec = {.service = &cloudhv__daemon__v1__sandboxes__descriptor,
                          .method = method,
                          .request = request,
                          .timeout_usec = 15 * USEC_PER_SEC,
                          .fds = fds,
                          .n_fds = n_fds};

    assert_int_equal(ttrpc_client_call(f->client, &spec, on_reply, f, NULL), 0);
    while (f->answers == before) {
        assert_true(loop_now() < deadline);
        assert_true(loop_run_once(f->loop, USEC_PER_SEC) >= 0);
    }
    return f->code;
}

static void assert_nothing_left(Fixture *f)
{
    static const char *const below[] = {"sandboxes", "vm"};

    for (size_t i = 0; i < ELEMENTSOF(below); i++) {
        _cleanup_free_ char *path = fs_join(f->dir, below[i]);

        assert_int_equal(rmdir(path), 0); /* only possible when it is empty */
        assert_int_equal(mkdir(path, 0700), 0);
    }
    assert_int_equal(sandbox_service_count(f->service), 0);
}

static void test_ids_are_checked(void **state)
{
    static const char *const bad[] = {
        "",
        "a/b",
        "..",
        "-a",
        "a-",
        "a..b",
        "a b",
        "\xc3\xa9",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 77 */};
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        Cloudhv__Daemon__V1__AcquireSandboxRequest request =
            CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;

        request.namespace_ = (char *)"ns";
        request.sandbox_id = (char *)bad[i];
        assert_int_equal(call(f, "AcquireSandbox", &request.base, NULL, 0), TTRPC_INVALID_ARGUMENT);
        assert_non_null(strstr(f->message, "not a valid sandbox id"));
    }
    assert_nothing_left(f);
}

static void test_descriptors_must_fit_the_nics(void **state)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__Nic nic = CLOUDHV__DAEMON__V1__NIC__INIT, *nics[] = {&nic};
    int fds[2] = {open("/dev/null", O_RDWR | O_CLOEXEC), open("/dev/null", O_RDWR | O_CLOEXEC)};
    Fixture *f = *state;

    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod";
    request.nics = nics;
    request.n_nics = 1;
    assert_int_equal(call(f, "AcquireSandbox", &request.base, fds, 2), TTRPC_INVALID_ARGUMENT);
    assert_string_equal(f->message, "1 NICs, but 2 TAP descriptors");
    assert_int_equal(call(f, "AcquireSandbox", &request.base, fds, 1), TTRPC_INVALID_ARGUMENT);
    assert_string_equal(f->message, "NIC 0 has a MAC address of 0 bytes");
    assert_nothing_left(f);
    close(fds[0]);
    close(fds[1]);
}

static void test_a_vmm_that_fails_leaves_nothing(void **state)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Fixture *f = *state;

    if (geteuid() != 0)
        skip();
    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod";
    request.shim_pid = (uint32_t)getpid();
    request.bundle = (char *)"/";
    for (int i = 0; i < 6; i++) { /* more often than there are uids */
        assert_int_not_equal(call(f, "AcquireSandbox", &request.base, NULL, 0), TTRPC_OK);
        assert_non_null(strstr(f->message, "cloudhv-pod"));
        assert_non_null(strstr(f->message, "ended with exit status 1"));
        assert_non_null(strstr(f->message, "cloudhv-pod"));
        assert_non_null(strstr(f->message, "ended with exit status 1"));
        assert_nothing_left(f);
    }
}

static void test_no_vm_says_why(void **state)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Fixture *f = *state;

    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod";
    f->settings.no_vmm_reason = (char *)"no VM can be run: test";
    assert_int_equal(call(f, "AcquireSandbox", &request.base, NULL, 0), TTRPC_UNIMPLEMENTED);
    assert_string_equal(f->message, "no VM can be run: test");
    f->settings.no_vmm_reason = NULL;
}

static void test_unknown_sandboxes(void **state)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest release = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__AddContainerRequest add = CLOUDHV__DAEMON__V1__ADD_CONTAINER_REQUEST__INIT;
    Cloudhv__Daemon__V1__ResizeRequest resize = CLOUDHV__DAEMON__V1__RESIZE_REQUEST__INIT;
    Cloudhv__Daemon__V1__StatusRequest status = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;
    Fixture *f = *state;

    release.namespace_ = (char *)"ns";
    release.sandbox_id = (char *)"pod";
    assert_int_equal(call(f, "ReleaseSandbox", &release.base, NULL, 0), TTRPC_OK);
    add.namespace_ = (char *)"ns";
    add.sandbox_id = (char *)"pod";
    add.container_id = (char *)"c";
    assert_int_equal(call(f, "AddContainer", &add.base, NULL, 0), TTRPC_NOT_FOUND);
    assert_string_equal(f->message, "there is no sandbox pod in namespace ns");
    assert_int_equal(call(f, "Resize", &resize.base, NULL, 0), TTRPC_UNIMPLEMENTED);
    assert_non_null(strstr(f->message, "Resize"));
    assert_int_equal(call(f, "Status", &status.base, NULL, 0), TTRPC_OK);
    assert_int_equal(f->n_sandboxes, 0);
}

/* What an interrupted predecessor left goes at the start: a half-made sandbox, a uid without one, a damaged
 * state. */
static void test_leftovers_go_at_the_start(void **state)
{
    SandboxState s = {.namespace = (char *)"ns", .sandbox_id = (char *)"pod", .uid = 1879248193};
    _cleanup_free_ char *vm = NULL, *damaged = NULL;
    Fixture *f = *state;
    SandboxService *second;
    char key[SANDBOX_KEY_SIZE];
    uid_t uid;

    if (geteuid() != 0)
        skip();
    sandbox_key("ns", "pod", key);
    assert_int_equal(sandbox_state_write(f->dir, key, &s, NULL), 0);
    vm = state_vm_directory(f->dir, key);
    assert_int_equal(mkdir(vm, 0700), 0);
    damaged = state_file_path(f->dir, "0000000000000000");
    assert_int_equal(fs_write_file_atomic(damaged, "{", 1, 0600), 0);
    assert_int_equal(uid_take(f->settings.uid_base, 4, damaged, &uid, NULL), 0);
    assert_int_equal(sandbox_service_new(f->loop, &f->settings, NULL, NULL, &second, NULL), 0);
    sandbox_service_free(second);
    assert_nothing_left(f);
    assert_int_equal(uid_take(f->settings.uid_base, 1, damaged, &uid, NULL), 0);
    uid_give(uid, damaged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ids_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors_must_fit_the_nics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_vmm_that_fails_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_vm_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_sandboxes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftovers_go_at_the_start, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
