/* SPDX-License-Identifier: MIT */

/* A server goes on with the call that another one was in the middle of. */

#include "test-ttrpc.h"

#include <signal.h>

/* `before` has the connection at first, `after` then; the client is in the loop of the latter. */
typedef struct Relay {
    Pair before, after;
    int fd; /* the server's end */
    int number;
    TtrpcHandover handover;
    TtrpcCall *call;
} Relay;

static Relay relay;

static void handle_hand_over(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    relay.call = call;
    relay.number = ttrpc_call_hand_over(call, &relay.handover);
}

static void settle_both(void)
{
    for (int i = 0; i < 10; i++) {
        settle(&relay.after);
        settle(&relay.before);
    }
}

static void begin(bool serial)
{
    int fds[2];

    relay = (Relay){.number = 1};
    pair_server(&relay.before);
    pair_server(&relay.after);
    relay.before.handlers[QUIESCE] = handle_hand_over;
    make_sockets(fds);
    relay.fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 3);
    if (serial) {
        assert_int_equal(ttrpc_server_add_serial(relay.before.server, fds[0]), 0);
        assert_int_equal(ttrpc_client_new_serial(relay.after.loop, fds[1], &relay.after.client), 0);
    } else {
        assert_int_equal(ttrpc_server_add_connection(relay.before.server, fds[0]), 0);
        assert_int_equal(ttrpc_client_new(relay.after.loop, fds[1], &relay.after.client), 0);
    }
    ttrpc_client_set_close(relay.after.client, on_client_close, &relay.after);
}

static void end(void)
{
    pair_done(&relay.after);
    if (relay.call)
        ttrpc_call_fail(relay.call, TTRPC_CANCELED, "handed over");
    ttrpc_handover_clear(&relay.handover);
    pair_done(&relay.before);
}

static void assert_answered(Result *result)
{
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    Result second = {0};

    assert_int_equal(relay.after.n_held, 1);
    assert_string_equal(ttrpc_call_method(relay.after.held[0]), "Quiesce");
    ttrpc_call_reply(take_held(&relay.after, 0), &response.base);
    wait_for(&relay.after, &result->ended, NULL, 0);
    assert_int_equal(result->code, TTRPC_OK);
    /* And the next call on the same connection. */
    assert_int_equal(call_hello(&relay.after, 5, "x", &second), 0);
    wait_for(&relay.after, &second.ended, NULL, 0);
    assert_int_equal(second.code, TTRPC_OK);
    assert_int_equal(second.protocol, 5);
    assert_int_equal(relay.after.lost, 0);
}

static void test_serial(void **state)
{
    Result hello = {0}, result = {0};

    begin(true);
    assert_int_equal(call_hello(&relay.after, 3, "x", &hello), 0);
    settle_both();
    assert_true(hello.ended);
    assert_int_equal(call_quiesce(&relay.after, 0, &result, NULL), 0);
    settle_both();
    assert_int_equal(relay.number, 0);
    assert_int_equal(relay.handover.fd, -EBADF);
    assert_int_equal(ttrpc_server_take_over(relay.after.server, &relay.handover), -ENOENT);
    assert_int_equal(ttrpc_server_add_serial(relay.after.server, relay.fd), 0);
    assert_int_equal(ttrpc_server_take_over(relay.after.server, &relay.handover), 0);
    assert_answered(&result);
    end();
}

static void test_socket(void **state)
{
    Result result = {0};

    begin(false);
    assert_int_equal(call_quiesce(&relay.after, 60 * USEC_PER_SEC, &result, NULL), 0);
    settle_both();
    assert_int_equal(relay.number, 0);
    assert_true(relay.handover.fd >= 0);
    relay.handover.fd = relay.fd; /* as a program has it that was executed */
    assert_int_equal(ttrpc_server_take_over(relay.after.server, &relay.handover), 0);
    assert_answered(&result);
    end();
}

/* What else the client has sent would be lost. */
static void test_not_alone(void **state)
{
    Result first = {0}, second = {0};

    begin(true);
    assert_int_equal(call_quiesce(&relay.after, 0, &first, NULL), 0);
    assert_int_equal(call_hello(&relay.after, 3, "x", &second), 0);
    settle_both();
    assert_int_equal(relay.number, -EBUSY);
    assert_true(second.ended);
    assert_int_equal(second.code, TTRPC_OK);
    close(relay.fd);
    end();
}

/* An established session is told that its server goes. */
static void test_server_goes(void **state)
{
    Result hello = {0};

    begin(true);
    assert_int_equal(call_hello(&relay.after, 3, "x", &hello), 0);
    settle_both();
    assert_true(hello.ended);
    ttrpc_server_end_sessions(relay.before.server);
    settle_both();
    assert_int_equal(relay.before.closed, 1);
    wait_for(&relay.after, NULL, &relay.after.lost, 1);
    assert_int_equal(relay.after.lost_number, -ECONNRESET);
    close(relay.fd);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_socket),
        cmocka_unit_test(test_not_alone),
        cmocka_unit_test(test_server_goes),
    };

    /* As in the agent: a port is written to whether somebody has its other end or not. */
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
