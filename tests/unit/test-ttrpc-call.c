/* SPDX-License-Identifier: MIT */

/* Calls of a connection as plain state: ids, deadlines, and what frames mean. */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "ttrpc/call.h"

static CallAccept accept_frame(CallTable *t, uint32_t id, uint8_t type, uint8_t flags, Call **call,
                               TtrpcCode *code, const char **text)
{
    return call_table_accept(t, &(Frame){.stream_id = id, .type = type, .flags = flags}, call, code, text);
}

static void test_table(void **state)
{
    Call a = {.id = 1, .deadline = UINT64_MAX}, b = {.id = 3, .deadline = 50}, c = {.id = 5, .deadline = 40};
    CallTable t = {0};

    assert_int_equal(call_table_next_id(&t), 1);
    call_table_add(&t, &a);
    call_table_add(&t, &b);
    call_table_add(&t, &c);
    assert_int_equal(t.count, 3);
    assert_int_equal(call_table_next_id(&t), 7);
    assert_ptr_equal(call_table_find(&t, 3), &b);
    assert_null(call_table_find(&t, 4));
    assert_int_equal(call_table_next_deadline(&t), 40);
    assert_null(call_table_expired(&t, 39));
    assert_ptr_equal(call_table_expired(&t, 40), &c);
    c.finished = true;
    assert_null(call_table_find(&t, 5));
    assert_null(call_table_expired(&t, 40));
    assert_int_equal(call_table_next_deadline(&t), 50);
    call_table_remove(&t, &b);
    call_table_remove(&t, &a);
    assert_ptr_equal(t.first, &c);
    assert_ptr_equal(t.last, &c);
    call_table_remove(&t, &c);
    assert_null(t.first);
    assert_int_equal(t.count, 0);
    assert_int_equal(call_table_next_deadline(&t), UINT64_MAX);
    /* An id is never used twice. */
    assert_int_equal(call_table_next_id(&t), 7);
    t.last_id = UINT32_MAX;
    assert_int_equal(call_table_next_id(&t), 0);
}

static void test_deadline(void **state)
{
    assert_int_equal(call_deadline(100, 0), UINT64_MAX);
    assert_int_equal(call_deadline(100, -5), 100);
    assert_int_equal(call_deadline(100, 2000), 102);
    assert_true(call_deadline(100, INT64_MAX) > 100);
}

static void test_accept(void **state)
{
    Call stream = {.id = 1, .stream = true}, *call = NULL;
    TtrpcCode code = TTRPC_OK;
    const char *text = NULL;
    CallTable t = {0};

    assert_int_equal(accept_frame(&t, 2, FRAME_REQUEST, 0, &call, &code, &text), CALL_ACCEPT_REFUSE);
    assert_int_equal(code, TTRPC_INVALID_ARGUMENT);
    assert_non_null(strstr(text, "must be odd"));
    assert_int_equal(accept_frame(&t, 1, FRAME_DATA, 0, &call, &code, &text), CALL_ACCEPT_REFUSE);
    assert_non_null(strstr(text, "never opened"));
    assert_int_equal(accept_frame(&t, 1, FRAME_REQUEST, 0, &call, &code, &text), CALL_ACCEPT_REQUEST);
    call_table_add(&t, &stream);
    assert_int_equal(accept_frame(&t, 1, FRAME_REQUEST, 0, &call, &code, &text), CALL_ACCEPT_REFUSE);
    assert_non_null(strstr(text, "higher than all before"));
    assert_int_equal(accept_frame(&t, 3, FRAME_REQUEST, FRAME_REMOTE_OPEN, &call, &code, &text),
                     CALL_ACCEPT_REFUSE);
    assert_int_equal(code, TTRPC_UNIMPLEMENTED);
    /* A refused id is used up as well. */
    assert_int_equal(accept_frame(&t, 3, FRAME_REQUEST, 0, &call, &code, &text), CALL_ACCEPT_REFUSE);
    /* Types of a later version, and what servers send. */
    assert_int_equal(accept_frame(&t, 1, 9, 0, &call, &code, &text), CALL_ACCEPT_IGNORE);
    assert_int_equal(accept_frame(&t, 1, FRAME_RESPONSE, 0, &call, &code, &text), CALL_ACCEPT_IGNORE);
    assert_int_equal(accept_frame(&t, 1, FRAME_DATA, 0, &call, &code, &text), CALL_ACCEPT_IGNORE);
    assert_int_equal(accept_frame(&t, 1, FRAME_DATA, FRAME_REMOTE_CLOSED, &call, &code, &text),
                     CALL_ACCEPT_CANCEL);
    assert_ptr_equal(call, &stream);
    stream.finished = true;
    assert_int_equal(accept_frame(&t, 1, FRAME_DATA, FRAME_REMOTE_CLOSED, &call, &code, &text),
                     CALL_ACCEPT_IGNORE);
}

static void test_accept_limits(void **state)
{
    CallTable t = {.count = CALLS_MAX};
    TtrpcCode code = TTRPC_OK;
    const char *text = NULL;
    Call *call;
    Frame oversized = {.stream_id = 3, .type = FRAME_REQUEST, .oversized = true};

    assert_int_equal(accept_frame(&t, 1, FRAME_REQUEST, 0, &call, &code, &text), CALL_ACCEPT_REFUSE);
    assert_int_equal(code, TTRPC_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(text, "too many calls"));
    t.count = 0;
    code = TTRPC_OK;
    assert_int_equal(call_table_accept(&t, &oversized, &call, &code, &text), CALL_ACCEPT_REFUSE);
    assert_int_equal(code, TTRPC_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(text, "4 MiB"));
}

static void test_answer(void **state)
{
    Call unary = {.id = 1}, stream = {.id = 3, .stream = true}, *call = NULL;
    const struct {
        uint32_t id;
        uint8_t type, flags;
        int result;
        CallAnswer answer;
    } cases[] = {
        {1, FRAME_RESPONSE, 0, 0, CALL_ANSWER_RESPONSE},
        {1, FRAME_DATA, 0, -EPROTO, 0},
        {3, FRAME_RESPONSE, 0, 0, CALL_ANSWER_RESPONSE},
        {3, FRAME_DATA, 0, 0, CALL_ANSWER_MESSAGE},
        {3, FRAME_DATA, FRAME_REMOTE_CLOSED, 0, CALL_ANSWER_LAST},
        {3, FRAME_DATA, FRAME_REMOTE_CLOSED | FRAME_NO_DATA, 0, CALL_ANSWER_END},
        {3, FRAME_DATA, FRAME_NO_DATA, 0, CALL_ANSWER_IGNORE},
        {2, FRAME_RESPONSE, 0, -EPROTO, 0},
        {5, FRAME_RESPONSE, 0, 0, CALL_ANSWER_IGNORE}, /* has ended */
        {7, FRAME_RESPONSE, 0, -EPROTO, 0},            /* was never made */
        {7, FRAME_REQUEST, 0, 0, CALL_ANSWER_IGNORE},
    };
    CallTable t = {0};

    call_table_add(&t, &unary);
    call_table_add(&t, &stream);
    t.last_id = 5;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CallAnswer answer = CALL_ANSWER_END;
        Frame frame = {.stream_id = cases[i].id, .type = cases[i].type, .flags = cases[i].flags};

        assert_int_equal(call_table_answer(&t, &frame, &answer, &call), cases[i].result);
        if (cases[i].result < 0)
            continue;
        assert_int_equal(answer, cases[i].answer);
        if (answer != CALL_ANSWER_IGNORE)
            assert_int_equal(call->id, cases[i].id);
        frame.oversized = true;
        if (answer != CALL_ANSWER_IGNORE) {
            assert_int_equal(call_table_answer(&t, &frame, &answer, &call), 0);
            assert_int_equal(answer, CALL_ANSWER_OVERSIZED);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),         cmocka_unit_test(test_deadline), cmocka_unit_test(test_accept),
        cmocka_unit_test(test_accept_limits), cmocka_unit_test(test_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
