/* SPDX-License-Identifier: MIT */

/* Calls over sockets: answers, failures, descriptors. */

#include "test-ttrpc.h"

static void test_unary(void **state)
{
    Result a = {0}, b = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_hello(&p, 7, "me", &a), 0);
    assert_int_equal(a.replies, 0); /* never from inside the call */
    assert_int_equal(call_hello(&p, 8, "me", &b), 0);
    wait_for(&p, &b.ended, NULL, 0);
    assert_true(a.ended);
    assert_int_equal(a.code, TTRPC_OK);
    assert_int_equal(a.protocol, 7);
    assert_int_equal(b.protocol, 8);
    pair_done(&p);
}

static void test_out_of_order(void **state)
{
    Result results[40] = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(call_quiesce(&p, 0, &results[i], NULL), 0);
    wait_for(&p, NULL, &p.n_held, 40);
    for (unsigned i = 40; i-- > 0;) {
        unsigned k = (i * 7) % 40;

        if (k % 2)
            reply_empty(take_held(&p, k));
        else
            ttrpc_call_fail(take_held(&p, k), TTRPC_NOT_FOUND, "no %u", k);
    }
    for (unsigned i = 0; i < 40; i++)
        wait_for(&p, &results[i].ended, NULL, 0);
    for (unsigned i = 0; i < 40; i++) {
        char text[20] = "";

        if (i % 2 == 0)
            snprintf(text, sizeof(text), "no %u", i);
        assert_int_equal(results[i].code, i % 2 ? TTRPC_OK : TTRPC_NOT_FOUND);
        assert_string_equal(results[i].text, text);
        assert_int_equal(results[i].replies, 1);
    }
    pair_done(&p);
}

static void raw_call(Pair *p, const char *service, const char *method, Result *result)
{
    Cloudhv__Agent__V1__ShutdownRequest request = CLOUDHV__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    assert_int_equal(ttrpc_client_call(p->client,
                                       &(TtrpcCallSpec){.service = CONTROL,
                                                        .service_name = service,
                                                        .method = method,
                                                        .request = &request.base},
                                       on_unary, result, NULL),
                     0);
    wait_for(p, &result->ended, NULL, 0);
}

static void test_not_served(void **state)
{
    Result a = {0}, b = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    raw_call(&p, NULL, "Shutdown", &a);
    assert_int_equal(a.code, TTRPC_UNIMPLEMENTED);
    assert_string_equal(a.text, "cloudhv.agent.v1.Control/Shutdown is not implemented");
    raw_call(&p, "some.Service", "Shutdown", &b);
    assert_int_equal(b.code, TTRPC_UNIMPLEMENTED);
    assert_string_equal(b.text, "service some.Service is not known");
    pair_done(&p);
}

static void test_bad_specs(void **state)
{
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;
    Result result = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(ttrpc_client_call(p.client, &(TtrpcCallSpec){.service = CONTROL, .method = "Nothing"},
                                       on_unary, &result, NULL),
                     -EINVAL);
    assert_int_equal(
        ttrpc_client_call(p.client,
                          &(TtrpcCallSpec){.service = CONTROL, .method = "Hello", .request = &empty.base},
                          on_unary, &result, NULL),
        -EINVAL);
    pair_done(&p);
}

static void handle_names(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    ttrpc_call_fail(call, TTRPC_ABORTED, "%s/%s", ttrpc_call_service(call), ttrpc_call_method(call));
}

static void test_several_names(void **state)
{
    TtrpcHandler handlers[N_METHODS] = {[SHUTDOWN] = handle_names};
    Result a = {0}, b = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(ttrpc_server_add_service(p.server, "task.v2", CONTROL, handlers, NULL), 0);
    assert_int_equal(ttrpc_server_add_service(p.server, "task.v3", CONTROL, handlers, NULL), 0);
    raw_call(&p, "task.v2", "Shutdown", &a);
    raw_call(&p, "task.v3", "Shutdown", &b);
    assert_string_equal(a.text, "task.v2/Shutdown");
    assert_string_equal(b.text, "task.v3/Shutdown");
    pair_done(&p);
}

/* ------------------------------------------------------------------------------------------ descriptors */

static bool same_file(int a, int b)
{
    struct stat x, y;

    assert_int_equal(fstat(a, &x), 0);
    assert_int_equal(fstat(b, &y), 0);
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static unsigned count_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void call_with_fds(Pair *p, const int *fds, size_t n, Result *result)
{
    Cloudhv__Agent__V1__QuiesceRequest request = CLOUDHV__AGENT__V1__QUIESCE_REQUEST__INIT;

    assert_int_equal(
        ttrpc_client_call(
            p->client,
            &(TtrpcCallSpec){
                .service = CONTROL, .method = "Quiesce", .request = &request.base, .fds = fds, .n_fds = n},
            on_unary, result, NULL),
        0);
}

static void test_fds(void **state)
{
    int pipes[4][2], fd;
    Result results[6] = {0};
    unsigned before;
    Pair p;

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pipe2(pipes[i], O_CLOEXEC), 0);
    pair_server(&p);
    pair_connect(&p);
    settle(&p);
    before = count_fds();

    /* All of it lies in the socket before the server reads. */
    call_quiesce(&p, 0, &results[0], NULL);
    call_with_fds(&p, (int[]){pipes[0][0], pipes[0][1]}, 2, &results[1]);
    call_quiesce(&p, 0, &results[2], NULL);
    call_with_fds(&p, (int[]){pipes[1][0]}, 1, &results[3]);
    call_with_fds(&p, (int[]){pipes[2][0], pipes[3][0]}, 2, &results[4]);
    call_quiesce(&p, 0, &results[5], NULL);
    wait_for(&p, NULL, &p.n_held, 6);

    for (unsigned i = 0; i < 6; i += i == 2 ? 3 : 2)
        assert_int_equal(ttrpc_call_take_fd(p.held[i]), -ENODATA);
    for (unsigned i = 0; i < 2; i++) {
        fd = ttrpc_call_take_fd(p.held[1]);
        assert_true(fd >= 0);
        assert_true(same_file(fd, pipes[0][i]));
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
    }
    assert_int_equal(ttrpc_call_take_fd(p.held[1]), -ENODATA);
    fd = ttrpc_call_take_fd(p.held[3]);
    assert_true(same_file(fd, pipes[1][0]));
    close(fd);
    /* The first of these is taken, the second is surplus and closed with the call. */
    fd = ttrpc_call_take_fd(p.held[4]);
    assert_true(same_file(fd, pipes[2][0]));
    close(fd);
    for (unsigned i = 0; i < 6; i++)
        reply_empty(take_held(&p, i));
    for (unsigned i = 0; i < 6; i++)
        wait_for(&p, &results[i].ended, NULL, 0);
    assert_int_equal(count_fds(), before);
    pair_done(&p);
    for (unsigned i = 0; i < 4; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
}

/* To a call that is refused at once, and more than one connection's worth. */
static void test_fds_unwanted(void **state)
{
    Cloudhv__Agent__V1__ShutdownRequest request = CLOUDHV__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[33];
    TtrpcCallSpec spec = {.service = CONTROL, .method = "Shutdown", .request = &request.base, .fds = fds};
    Result result = {0};
    unsigned before;
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    settle(&p);
    before = count_fds();
    for (unsigned i = 0; i < 33; i++)
        fds[i] = null;
    spec.n_fds = 33;
    assert_int_equal(ttrpc_client_call(p.client, &spec, on_unary, &result, NULL), -EINVAL);
    spec.n_fds = 32;
    assert_int_equal(ttrpc_client_call(p.client, &spec, on_unary, &result, NULL), 0);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_UNIMPLEMENTED);
    settle(&p);
    assert_int_equal(count_fds(), before);
    pair_done(&p);
    close(null);
}

/* --------------------------------------------------------------------------------------------- listening */

static void test_listen(void **state)
{
    char path[] = "/tmp/test-ttrpc-XXXXXX";
    char socket_path[64];
    Result result = {0};
    int fd;
    Pair p;

    assert_non_null(mkdtemp(path));
    snprintf(socket_path, sizeof(socket_path), "%s/socket", path);
    pair_server(&p);
    fd = fd_listen_unix(socket_path, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ttrpc_server_listen(p.server, fd, getuid()), 0);
    fd = fd_connect_unix(socket_path);
    assert_true(fd >= 0);
    assert_int_equal(ttrpc_client_new(p.loop, fd, &p.client), 0);
    assert_int_equal(call_hello(&p, 3, "x", &result), 0);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.protocol, 3);
    pair_done(&p);
    unlink(socket_path);
    rmdir(path);
}

static void test_listen_other_uid(void **state)
{
    char path[] = "/tmp/test-ttrpc-XXXXXX";
    char socket_path[64];
    Result result = {0};
    int fd;
    Pair p;

    assert_non_null(mkdtemp(path));
    snprintf(socket_path, sizeof(socket_path), "%s/socket", path);
    pair_server(&p);
    fd = fd_listen_unix(socket_path, 0600);
    assert_int_equal(ttrpc_server_listen(p.server, fd, getuid() + 1), 0);
    fd = fd_connect_unix(socket_path);
    assert_int_equal(ttrpc_client_new(p.loop, fd, &p.client), 0);
    assert_int_equal(call_hello(&p, 3, "x", &result), 0);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_UNAVAILABLE);
    pair_done(&p);
    unlink(socket_path);
    rmdir(path);
}

static void test_codes(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TtrpcReply reply = {.code = TTRPC_NOT_FOUND, .message = "no such pod"};

    for (TtrpcCode code = TTRPC_OK; code <= TTRPC_DATA_LOSS; code++)
        if (code != TTRPC_UNKNOWN)
            assert_int_equal(ttrpc_code_from_errno(ttrpc_code_to_errno(code)), code);
    assert_int_equal(ttrpc_code_from_errno(-EIO), TTRPC_UNKNOWN);
    assert_int_equal(ttrpc_reply_error(&reply, "Hello", &e), -ENOENT);
    assert_string_equal(e.message, "Hello: no such pod");
    reply.code = TTRPC_OK;
    assert_int_equal(ttrpc_reply_error(&reply, "Hello", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary),
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_not_served),
        cmocka_unit_test(test_bad_specs),
        cmocka_unit_test(test_several_names),
        cmocka_unit_test(test_fds),
        cmocka_unit_test(test_fds_unwanted),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_listen_other_uid),
        cmocka_unit_test(test_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
