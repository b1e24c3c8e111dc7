/* SPDX-License-Identifier: MIT */

/* Calls to the daemon, each over a connection of its own, to a daemon that is a server of ours. */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/fs.h"
#include "config/field.h"
#include "daemon.pb-c.h"
#include "shim/daemon-link.h"

typedef struct Fixture {
    char directory[64], socket[96];
    Loop *loop;
    ShimConfig *config;
    TtrpcServer *server;
    TtrpcHandler handlers[32];
    DaemonLink *link;
    bool refuse_hello, hold;
    uint32_t protocol;
    TtrpcCall *held;
    unsigned greeted, asked, closed, replies;
    char text[300];
    int number;
} Fixture;

static void on_hello(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    Cloudhv__Daemon__V1__HelloResponse response = CLOUDHV__DAEMON__V1__HELLO_RESPONSE__INIT;
    Fixture *f = userdata;

    assert_string_equal(((const Cloudhv__Daemon__V1__HelloRequest *)message)->peer, "shim");
    f->greeted++;
    response.protocol = f->protocol;
    if (f->refuse_hello)
        ttrpc_call_fail(call, TTRPC_FAILED_PRECONDITION, "too old");
    else
        ttrpc_call_reply(call, &response.base);
}

static void on_gone(TtrpcCall *call, void *userdata)
{
    ((Fixture *)userdata)->held = NULL;
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits");
}

static void on_status(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    Cloudhv__Daemon__V1__StatusResponse response = CLOUDHV__DAEMON__V1__STATUS_RESPONSE__INIT;
    Fixture *f = userdata;

    f->asked++;
    response.active = 7;
    if (!f->hold) {
        ttrpc_call_reply(call, &response.base);
        return;
    }
    f->held = call;
    ttrpc_call_set_cancel(call, on_gone, f);
}

static void on_close(TtrpcServer *server, void *userdata)
{
    ((Fixture *)userdata)->closed++;
}

static void start_daemon(Fixture *f)
{
    int fd = fd_listen_unix(f->socket, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ttrpc_server_new(f->loop, &f->server), 0);
    assert_int_equal(ttrpc_server_add_service(f->server, NULL, &cloudhv__daemon__v1__sandboxes__descriptor,
                                              f->handlers, f),
                     0);
    assert_int_equal(ttrpc_server_listen(f->server, fd, (uid_t)-1), 0);
    ttrpc_server_set_close(f->server, on_close, f);
}

static size_t method(const char *name)
{
    const ProtobufCServiceDescriptor *d = &cloudhv__daemon__v1__sandboxes__descriptor;

    return (size_t)(protobuf_c_service_descriptor_get_method_by_name(d, name) - d->methods);
}

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    *state = f;
    snprintf(f->directory, sizeof(f->directory), "/tmp/test-daemon-link.XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->socket, sizeof(f->socket), "%s/socket", f->directory);
    f->handlers[method("Hello")] = on_hello;
    f->handlers[method("Status")] = on_status;
    f->protocol = 1;
    f->config = calloc(1, sizeof(*f->config));
    assert_int_equal(config_set_defaults(config_shim_fields, f->config), 0);
    free(f->config->daemon_socket);
    f->config->daemon_socket = strdup(f->socket);
    f->config->vmm.operation_timeout_secs = 20;
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(daemon_link_new(f->loop, f->config, "ns", "pod", &f->link), 0);
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    int r;

    daemon_link_free(f->link);
    ttrpc_server_free(f->server);
    loop_free(f->loop);
    shim_config_free(f->config);
    r = fs_remove_tree(f->directory);
    free(f);
    return r;
}

static void settle(Fixture *f)
{
    while (loop_run_once(f->loop, 5000) > 0)
        continue;
}

static void on_answer(const ProtobufCMessage *response, const Error *e, void *userdata)
{
    Fixture *f = userdata;

    assert_true(!response != !e);
    f->replies++;
    f->number = e ? e->number : 0;
    snprintf(f->text, sizeof(f->text), "%s", e ? error_message(e) : "");
    if (response)
        assert_int_equal(((const Cloudhv__Daemon__V1__StatusResponse *)response)->active, 7);
}

static int ask(Fixture *f, DaemonCall **ret, Error *e)
{
    Cloudhv__Daemon__V1__StatusRequest request = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;
    DaemonCallSpec spec = {.method = "Status", .request = &request.base, .timeout_usec = 20 * USEC_PER_SEC};

    return daemon_call(f->link, &spec, on_answer, f, ret, e);
}

static void test_calls(void **state)
{
    Fixture *f = *state;
    DaemonCall *call = NULL;

    start_daemon(f);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(ask(f, &call, NULL), 0);
        assert_int_equal(f->replies, i - 1); /* never from inside */
        settle(f);
        assert_int_equal(f->replies, i);
        if (f->number < 0)
            fail_msg("%s", f->text);
        /* Nothing is held while a pod just runs. */
        assert_int_equal(f->closed, i);
    }
    assert_int_equal(f->greeted, 2);
    assert_int_equal(daemon_link_timeout(f->link), 45 * USEC_PER_SEC);
}

static void test_no_daemon(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;
    DaemonCall *call = NULL;

    assert_int_equal(ask(f, &call, &e), -ENOENT);
    assert_non_null(strstr(e.message, "cannot reach cloudhv-sandbox-daemon at "));
    assert_non_null(strstr(e.message, f->socket));
    assert_null(call);
    settle(f);
    assert_int_equal(f->replies, 0);
    /* It may be there the next time. */
    start_daemon(f);
    assert_int_equal(ask(f, &call, NULL), 0);
    settle(f);
    assert_int_equal(f->replies, 1);
}

static void test_refused_hello(void **state)
{
    Fixture *f = *state;
    DaemonCall *call;

    start_daemon(f);
    f->refuse_hello = true;
    assert_int_equal(ask(f, &call, NULL), 0);
    settle(f);
    assert_int_equal(f->replies, 1);
    assert_int_equal(f->number, ttrpc_code_to_errno(TTRPC_FAILED_PRECONDITION));
    assert_string_equal(f->text, "cloudhv-sandbox-daemon: too old");
}

static void test_other_protocol(void **state)
{
    Fixture *f = *state;
    DaemonCall *call;

    start_daemon(f);
    f->protocol = 2;
    assert_int_equal(ask(f, &call, NULL), 0);
    settle(f);
    assert_int_equal(f->replies, 1);
    assert_string_equal(f->text, "cloudhv-sandbox-daemon: it speaks protocol 2, this shim 1");
}

static void test_daemon_goes(void **state)
{
    Fixture *f = *state;
    DaemonCall *call;

    start_daemon(f);
    f->hold = true;
    assert_int_equal(ask(f, &call, NULL), 0);
    settle(f);
    assert_non_null(f->held);
    f->server = ttrpc_server_free(f->server);
    settle(f);
    assert_int_equal(f->replies, 1);
    assert_int_equal(f->number, ttrpc_code_to_errno(TTRPC_UNAVAILABLE));
    assert_non_null(strstr(f->text, "the other side closed the connection"));
}

static void test_cancelled(void **state)
{
    Fixture *f = *state;
    DaemonCall *call;

    assert_null(daemon_call_cancel(NULL));
    start_daemon(f);
    f->hold = true;
    assert_int_equal(ask(f, &call, NULL), 0);
    settle(f);
    assert_non_null(f->held);
    assert_null(daemon_call_cancel(call));
    settle(f);
    assert_null(f->held); /* the daemon heard of it */
    assert_int_equal(f->replies, 0);
}

static void test_unknown_method(void **state)
{
    DaemonCallSpec spec = {.method = "Dance"};
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;
    DaemonCall *call;

    start_daemon(f);
    assert_int_equal(daemon_call(f->link, &spec, on_answer, f, &call, &e), -EINVAL);
    assert_non_null(strstr(e.message, "cannot call Dance of the sandbox daemon"));
    settle(f);
    assert_int_equal(f->replies, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_daemon, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_hello, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_protocol, setup, teardown),
        cmocka_unit_test_setup_teardown(test_daemon_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_method, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
