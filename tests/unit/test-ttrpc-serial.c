/* SPDX-License-Identifier: MIT */

/* Sessions over a serial port, of which a socket pair is the wire, and the greeting of a hybrid vsock. */

#include "test-ttrpc.h"

#include "ttrpc/link.h"

/* The host's end of the port is handed from client to client, as QEMU's chardev is. */
typedef struct Port {
    Pair p;
    int host;
} Port;

static int setup(void **state)
{
    Port *port = calloc(1, sizeof(*port));
    int fds[2];

    pair_server(&port->p);
    make_sockets(fds);
    port->host = fds[1];
    *state = port;
    return ttrpc_server_add_serial(port->p.server, fds[0]);
}

static int teardown(void **state)
{
    Port *port = *state;

    pair_done(&port->p);
    if (port->host >= 0)
        close(port->host);
    free(port);
    return 0;
}

static void connect_host(Port *port)
{
    int fd = fcntl(port->host, F_DUPFD_CLOEXEC, 3);

    assert_true(fd >= 0);
    assert_int_equal(ttrpc_client_new_serial(port->p.loop, fd, &port->p.client), 0);
    ttrpc_client_set_close(port->p.client, on_client_close, &port->p);
}

static void assert_served(Port *port, uint32_t number)
{
    Result result = {0};

    assert_int_equal(call_hello(&port->p, number, "x", &result), 0);
    wait_for(&port->p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_OK);
    assert_int_equal(result.protocol, number);
}

static void test_sessions(void **state)
{
    Port *port = *state;
    Pair *p = &port->p;

    for (uint32_t i = 1; i <= 3; i++) {
        connect_host(port);
        assert_served(port, i);
        p->client = ttrpc_client_free(p->client);
        wait_for(p, NULL, &p->closed, i);
    }
}

/* A client that was killed says no goodbye: the next one's reset ends its session and cancels its calls. */
static void test_killed_client(void **state)
{
    static const uint8_t half[] = {'C', 'H', 'V', 'L', 1, 2, 3};
    Port *port = *state;
    Pair *p = &port->p;
    TtrpcClient *killed;
    Result result = {0};

    connect_host(port);
    assert_int_equal(call_quiesce(p, 0, &result, NULL), 0);
    wait_for(p, NULL, &p->n_held, 1);
    killed = p->client;
    ttrpc_client_set_close(killed, NULL, NULL);
    assert_int_equal(send(port->host, half, sizeof(half), 0), sizeof(half));
    p->end_when_cancelled = true;
    connect_host(port);
    assert_served(port, 9);
    assert_int_equal(p->cancelled, 1);
    assert_int_equal(p->closed, 1);
    ttrpc_client_free(killed);
}

/* Bytes of nobody, such as a login prompt, do no harm. */
static void test_garbage_first(void **state)
{
    static const char garbage[] = "\r\nlogin: CHVL\0\xff";
    Port *port = *state;

    assert_int_equal(send(port->host, garbage, sizeof(garbage), 0), sizeof(garbage));
    settle(&port->p);
    connect_host(port);
    assert_served(port, 1);
}

/* A damaged frame ends the session, for both; another one can begin. */
static void test_damage(void **state)
{
    Port *port = *state;
    Pair *p = &port->p;
    uint8_t frame[LINK_HEADER_SIZE + 4] = {'C', 'H', 'V', 'L'};
    Result result = {0};

    connect_host(port);
    assert_served(port, 1);
    frame[16] = 3;
    frame[19] = 4;
    assert_int_equal(send(port->host, frame, sizeof(frame), 0), sizeof(frame));
    wait_for(p, NULL, &p->closed, 1);
    wait_for(p, NULL, &p->lost, 1);
    assert_int_equal(p->lost_number, -ECONNRESET);
    assert_int_equal(call_hello(p, 1, "x", &result), -ENOTCONN);
    p->client = ttrpc_client_free(p->client);
    connect_host(port);
    assert_served(port, 2);
}

/* Requests wait until the other side has answered the reset. */
static void test_held_until_ack(void **state)
{
    Port *port = *state;
    Pair *p = &port->p;
    uint8_t buffer[LINK_FRAME_MAX + LINK_HEADER_SIZE + 1], *ack;
    Result result = {0};
    Link *link;
    LinkEvent event;
    size_t size;
    ssize_t n;
    int fds[2];

    make_sockets(fds);
    assert_int_equal(ttrpc_client_new_serial(p->loop, fds[0], &p->client), 0);
    assert_int_equal(call_hello(p, 1, "x", &result), 0);
    settle(p);
    n = recv(fds[1], buffer, sizeof(buffer), 0);
    assert_int_equal(n, LINK_FRAME_MAX + LINK_HEADER_SIZE); /* the reset, and nothing behind it */
    assert_int_equal(ttrpc_link_new(LINK_SERVER, &link), 0);
    ttrpc_link_feed(link, buffer, (size_t)n);
    assert_int_equal(ttrpc_link_next(link, &event), 0);
    assert_int_equal(event.type, LINK_STARTED);
    assert_int_equal(ttrpc_link_pack_reset_ack(link, &ack, &size), 0);
    assert_int_equal(send(fds[1], ack, size, 0), size);
    settle(p);
    assert_true(recv(fds[1], buffer, sizeof(buffer), 0) > (ssize_t)LINK_HEADER_SIZE);
    free(ack);
    ttrpc_link_free(link);
    close(fds[1]);
    wait_for(p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_UNAVAILABLE);
}

static void test_no_descriptors(void **state)
{
    Cloudhv__Agent__V1__QuiesceRequest request = CLOUDHV__AGENT__V1__QUIESCE_REQUEST__INIT;
    Port *port = *state;
    Result result = {0};

    connect_host(port);
    assert_int_equal(ttrpc_client_call(port->p.client,
                                       &(TtrpcCallSpec){.service = CONTROL,
                                                        .method = "Quiesce",
                                                        .request = &request.base,
                                                        .fds = &port->host,
                                                        .n_fds = 1},
                                       on_unary, &result, NULL),
                     -EINVAL);
}

/* --------------------------------------------------------------------------------------------------------
 * vsock */

static void connect_vsock(Pair *p, uint64_t timeout_usec, int *ret_fd)
{
    int fds[2];

    make_sockets(fds);
    assert_int_equal(ttrpc_client_new_vsock(p->loop, fds[0], 1024, timeout_usec, &p->client), 0);
    ttrpc_client_set_close(p->client, on_client_close, p);
    *ret_fd = fds[1];
}

static void assert_greeted(int fd)
{
    char line[64] = "";

    assert_int_equal(recv(fd, line, sizeof(line) - 1, 0), strlen("CONNECT 1024\n"));
    assert_string_equal(line, "CONNECT 1024\n");
}

static void test_vsock(void **state)
{
    Result result = {0};
    Pair p;
    int fd;

    pair_server(&p);
    connect_vsock(&p, 20 * USEC_PER_SEC, &fd);
    assert_int_equal(call_hello(&p, 6, "x", &result), 0);
    settle(&p);
    assert_greeted(fd);
    assert_int_equal(recv(fd, &(char){0}, 1, 0), -1); /* the request waits */
    assert_int_equal(send(fd, "OK 107", 6, 0), 6);
    settle(&p);
    assert_int_equal(send(fd, "3741824\n", 8, 0), 8);
    assert_int_equal(ttrpc_server_add_connection(p.server, fd), 0);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.protocol, 6);
    pair_done(&p);
}

static void refuse_vsock(const char *answer, uint64_t timeout_usec, int number, const char *words)
{
    Result result = {0};
    Pair p;
    int fd;

    pair_server(&p);
    connect_vsock(&p, timeout_usec, &fd);
    assert_int_equal(call_hello(&p, 6, "x", &result), 0);
    assert_greeted(fd);
    if (*answer)
        assert_int_equal(send(fd, answer, strlen(answer), 0), strlen(answer));
    else if (timeout_usec > USEC_PER_SEC)
        close(fd);
    wait_for(&p, NULL, &p.lost, 1);
    assert_int_equal(result.code, TTRPC_UNAVAILABLE);
    assert_int_equal(p.lost_number, number);
    if (!strstr(p.lost_text, words))
        fail_msg("\"%s\" is not in \"%s\"", words, p.lost_text);
    if (*answer || timeout_usec <= USEC_PER_SEC)
        close(fd);
    pair_done(&p);
}

static void test_vsock_refusals(void **state)
{
    char endless[200];

    refuse_vsock("ERR no such port\x1b[2J\n", 20 * USEC_PER_SEC, -ECONNREFUSED, "'ERR no such port?[2J'");
    refuse_vsock("", 20 * USEC_PER_SEC, -ECONNREFUSED, "instead of answering");
    refuse_vsock("", 50 * USEC_PER_MSEC, -ETIMEDOUT, "did not answer the connection request in time");
    memset(endless, 'O', sizeof(endless));
    endless[sizeof(endless) - 1] = 0;
    refuse_vsock(endless, 20 * USEC_PER_SEC, -ECONNREFUSED, "OOO");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sessions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_until_ack, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
        cmocka_unit_test(test_vsock),
        cmocka_unit_test(test_vsock_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
