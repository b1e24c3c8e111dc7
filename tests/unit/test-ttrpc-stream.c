/* SPDX-License-Identifier: MIT */

/* Calls that last: streams, deadlines, cancelling, and connections that end meanwhile. */

#include "test-ttrpc.h"

static void send_event(TtrpcCall *call, uint64_t total)
{
    Cloudhv__Agent__V1__PressureEvent event = CLOUDHV__AGENT__V1__PRESSURE_EVENT__INIT;

    event.memory_total = total;
    assert_int_equal(ttrpc_call_send(call, &event.base), 0);
}

static void start_stream(Pair *p, Result *result, TtrpcPending **ret)
{
    pair_server(p);
    pair_connect(p);
    assert_int_equal(call_watch(p, result, ret), 0);
    wait_for(p, NULL, &p->n_held, 1);
}

static void test_stream(void **state)
{
    Result result = {0};
    Pair p;

    start_stream(&p, &result, NULL);
    send_event(p.held[0], 1);
    send_event(p.held[0], 2);
    wait_for(&p, NULL, &result.messages, 2);
    assert_false(result.ended);
    ttrpc_call_reply(take_held(&p, 0), NULL);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_OK);
    assert_int_equal(result.messages, 2);
    assert_int_equal(p.cancelled, 0);
    pair_done(&p);
}

static void test_stream_fails(void **state)
{
    Result result = {0};
    Pair p;

    start_stream(&p, &result, NULL);
    send_event(p.held[0], 1);
    ttrpc_call_fail(take_held(&p, 0), TTRPC_ABORTED, "enough");
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.messages, 1);
    assert_int_equal(result.code, TTRPC_ABORTED);
    assert_string_equal(result.text, "enough");
    pair_done(&p);
}

/* The server hears that nobody wants more. */
static void test_stream_cancelled(void **state)
{
    Result result = {0};
    TtrpcPending *pending;
    Pair p;

    start_stream(&p, &result, &pending);
    p.end_when_cancelled = true;
    ttrpc_pending_cancel(pending);
    wait_for(&p, NULL, &p.cancelled, 1);
    settle(&p);
    assert_int_equal(result.replies, 0);
    pair_done(&p);
}

static void test_stream_of_unary(void **state)
{
    Cloudhv__Agent__V1__PressureEvent event = CLOUDHV__AGENT__V1__PRESSURE_EVENT__INIT;
    Result result = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &result, NULL), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    assert_int_equal(ttrpc_call_send(p.held[0], &event.base), -EPROTOTYPE);
    reply_empty(take_held(&p, 0));
    wait_for(&p, &result.ended, NULL, 0);
    pair_done(&p);
}

/* A reader that takes nothing holds back its stream, and costs a bounded amount of memory. */
static void test_stream_backs_up(void **state)
{
    Cloudhv__Agent__V1__PressureEvent event = CLOUDHV__AGENT__V1__PRESSURE_EVENT__INIT;
    Result result = {0};
    unsigned sent = 0;
    Pair p;
    int r;

    start_stream(&p, &result, NULL);
    event.memory_total = event.memory_available = UINT64_MAX;
    while ((r = ttrpc_call_send(p.held[0], &event.base)) == 0)
        assert_true(++sent < 1000000);
    assert_int_equal(r, -EAGAIN);
    wait_for(&p, NULL, &result.messages, sent);
    ttrpc_call_reply(take_held(&p, 0), NULL);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_OK);
    pair_done(&p);
}

static void test_deadline(void **state)
{
    Result slow = {0}, quick = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    p.end_when_cancelled = true;
    assert_int_equal(call_quiesce(&p, 50 * USEC_PER_MSEC, &slow, NULL), 0);
    wait_for(&p, &slow.ended, NULL, 0);
    assert_int_equal(slow.code, TTRPC_DEADLINE_EXCEEDED);
    /* The server was told the deadline, too. */
    wait_for(&p, NULL, &p.cancelled, 1);
    assert_int_equal(call_hello(&p, 1, "x", &quick), 0);
    wait_for(&p, &quick.ended, NULL, 0);
    assert_int_equal(quick.code, TTRPC_OK);
    pair_done(&p);
}

/* An answer that comes after the deadline goes nowhere. */
static void test_late_answer(void **state)
{
    Result slow = {0}, quick = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 20 * USEC_PER_MSEC, &slow, NULL), 0);
    wait_for(&p, &slow.ended, NULL, 0);
    wait_for(&p, NULL, &p.cancelled, 1);
    reply_empty(take_held(&p, 0));
    assert_int_equal(call_hello(&p, 1, "x", &quick), 0);
    wait_for(&p, &quick.ended, NULL, 0);
    assert_int_equal(slow.replies, 1);
    pair_done(&p);
}

static void test_unary_cancelled(void **state)
{
    Result result = {0}, other = {0};
    TtrpcPending *pending;
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &result, &pending), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    ttrpc_pending_cancel(pending);
    reply_empty(take_held(&p, 0));
    assert_int_equal(call_hello(&p, 1, "x", &other), 0);
    wait_for(&p, &other.ended, NULL, 0);
    assert_int_equal(result.replies, 0);
    pair_done(&p);
}

/* ---------------------------------------------------------------------------------------------- lost
 * connections */

static void test_server_goes(void **state)
{
    Result a = {0}, b = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &a, NULL), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    p.end_when_cancelled = true;
    p.server = ttrpc_server_free(p.server);
    assert_int_equal(p.cancelled, 1);
    wait_for(&p, NULL, &p.lost, 1);
    assert_true(a.ended);
    assert_int_equal(a.code, TTRPC_UNAVAILABLE);
    assert_int_equal(p.lost_number, -ECONNRESET);
    assert_non_null(strstr(p.lost_text, "the other side closed the connection"));
    assert_int_equal(call_hello(&p, 1, "x", &b), -ENOTCONN);
    settle(&p);
    assert_int_equal(p.lost, 1);
    pair_done(&p);
}

static void test_client_goes(void **state)
{
    Result result = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &result, NULL), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    p.client = ttrpc_client_free(p.client);
    assert_true(result.ended);
    assert_int_equal(result.code, TTRPC_CANCELED);
    wait_for(&p, NULL, &p.cancelled, 1);
    wait_for(&p, NULL, &p.closed, 1);
    /* Its answer goes nowhere. */
    reply_empty(take_held(&p, 0));
    pair_done(&p);
}

static void on_reply_free_client(const TtrpcReply *reply, void *userdata)
{
    Pair *p = userdata;

    p->lost++;
    p->client = ttrpc_client_free(p->client);
}

static void test_freed_by_callback(void **state)
{
    Cloudhv__Agent__V1__HelloRequest request = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;
    TtrpcCallSpec spec = {.service = CONTROL, .method = "Hello", .request = &request.base};
    Result other = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(ttrpc_client_call(p.client, &spec, on_reply_free_client, &p, NULL), 0);
    assert_int_equal(call_quiesce(&p, 0, &other, NULL), 0);
    wait_for(&p, NULL, &p.lost, 1);
    assert_true(other.ended);
    assert_int_equal(other.code, TTRPC_CANCELED);
    settle(&p);
    pair_done(&p);
}

static void test_stopping_server(void **state)
{
    Result held = {0}, refused = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &held, NULL), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    ttrpc_server_stop(p.server);
    assert_int_equal(call_hello(&p, 1, "x", &refused), 0);
    wait_for(&p, &refused.ended, NULL, 0);
    assert_int_equal(refused.code, TTRPC_UNAVAILABLE);
    assert_non_null(strstr(refused.text, "stopping"));
    /* What was taken is still answered. */
    reply_empty(take_held(&p, 0));
    wait_for(&p, &held.ended, NULL, 0);
    assert_int_equal(held.code, TTRPC_OK);
    pair_done(&p);
}

static void on_flushed(LoopSource *source, void *userdata)
{
    ((Result *)userdata)->ended = true;
}

static void test_flush(void **state)
{
    Result result = {0}, flushed = {0};
    Pair p;

    pair_server(&p);
    pair_connect(&p);
    assert_int_equal(call_quiesce(&p, 0, &result, NULL), 0);
    wait_for(&p, NULL, &p.n_held, 1);
    reply_empty(take_held(&p, 0));
    assert_int_equal(ttrpc_server_flush(p.server, on_flushed, &flushed), 0);
    wait_for(&p, &flushed.ended, NULL, 0);
    wait_for(&p, &result.ended, NULL, 0);
    assert_int_equal(result.code, TTRPC_OK);
    pair_done(&p);
}

/* A peer that speaks something else is cut off, and the others are not. */
static void test_nonsense(void **state)
{
    uint8_t frame[10] = {0, 0, 0, 0, 0, 0, 0, 2, 2, 0};
    Result result = {0};
    int fds[2];
    Pair p;

    pair_server(&p);
    make_sockets(fds);
    assert_int_equal(ttrpc_client_new(p.loop, fds[0], &p.client), 0);
    ttrpc_client_set_close(p.client, on_client_close, &p);
    assert_int_equal(call_hello(&p, 1, "x", &result), 0);
    assert_int_equal(send(fds[1], frame, sizeof(frame), 0), sizeof(frame));
    wait_for(&p, NULL, &p.lost, 1);
    assert_int_equal(result.code, TTRPC_UNAVAILABLE);
    assert_int_equal(p.lost_number, -EPROTO);
    assert_non_null(strstr(p.lost_text, "belongs to no call (stream 2, type 2)"));
    close(fds[1]);
    pair_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_fails),
        cmocka_unit_test(test_stream_cancelled),
        cmocka_unit_test(test_stream_of_unary),
        cmocka_unit_test(test_stream_backs_up),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_late_answer),
        cmocka_unit_test(test_unary_cancelled),
        cmocka_unit_test(test_server_goes),
        cmocka_unit_test(test_client_goes),
        cmocka_unit_test(test_freed_by_callback),
        cmocka_unit_test(test_stopping_server),
        cmocka_unit_test(test_flush),
        cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
