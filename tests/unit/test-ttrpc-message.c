/* SPDX-License-Identifier: MIT */

/* Envelopes in frames, and the bounds of decoding. */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent.pb-c.h"
#include "ttrpc/message.h"

static Frame frame_of(FrameParser *p, const uint8_t *bytes, size_t n)
{
    Frame frame = {0};

    assert_int_equal(frame_parser_feed(p, bytes, n, NULL, 0), 0);
    assert_int_equal(frame_parser_next(p, &frame), 0);
    assert_int_equal(frame.size, n - FRAME_HEADER_SIZE);
    return frame;
}

static void test_request(void **state)
{
    Cloudhv__Agent__V1__KillRequest kill = CLOUDHV__AGENT__V1__KILL_REQUEST__INIT, *again;
    FrameParser p = FRAME_PARSER_INIT;
    TtrpcRequest *request;
    uint8_t *bytes;
    Frame frame;
    size_t n;

    kill.id = (char *)"c1";
    kill.signal = 9;
    assert_int_equal(
        ttrpc_message_pack_request(5, FRAME_REMOTE_CLOSED, "a.Service", "Kill", 1234, &kill.base, &bytes, &n),
        0);
    frame = frame_of(&p, bytes, n);
    assert_int_equal(frame.stream_id, 5);
    assert_int_equal(frame.type, FRAME_REQUEST);
    assert_int_equal(frame.flags, FRAME_REMOTE_CLOSED);
    request =
        (TtrpcRequest *)ttrpc_message_unpack(&cloudhv__ttrpc__request__descriptor, frame.payload, frame.size);
    assert_non_null(request);
    assert_string_equal(request->service, "a.Service");
    assert_string_equal(request->method, "Kill");
    assert_int_equal(request->timeout_nano, 1234);
    again = (Cloudhv__Agent__V1__KillRequest *)ttrpc_message_unpack(
        &cloudhv__agent__v1__kill_request__descriptor, request->payload.data, request->payload.len);
    assert_non_null(again);
    assert_string_equal(again->id, "c1");
    assert_int_equal(again->signal, 9);
    protobuf_c_message_free_unpacked(&again->base, NULL);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    frame_parser_clear(&p);
    free(bytes);
}

static void test_data_stands_alone(void **state)
{
    Cloudhv__Agent__V1__PressureEvent event = CLOUDHV__AGENT__V1__PRESSURE_EVENT__INIT;
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t *bytes;
    Frame frame;
    size_t n;

    event.memory_total = 3;
    assert_int_equal(ttrpc_message_pack_data(7, 0, &event.base, &bytes, &n), 0);
    frame = frame_of(&p, bytes, n);
    assert_int_equal(frame.type, FRAME_DATA);
    assert_int_equal(frame.size, 2);
    assert_memory_equal(frame.payload, "\x08\x03", 2);
    frame_parser_clear(&p);
    free(bytes);
}

static void test_too_long(void **state)
{
    Cloudhv__Agent__V1__WriteStreamRequest request = CLOUDHV__AGENT__V1__WRITE_STREAM_REQUEST__INIT;
    uint8_t *bytes = NULL, *data = calloc(1, FRAME_PAYLOAD_MAX);
    size_t n = 77;

    request.data = (ProtobufCBinaryData){.data = data, .len = FRAME_PAYLOAD_MAX};
    assert_int_equal(ttrpc_message_pack_request(1, 0, "s", "m", 0, &request.base, &bytes, &n), -EMSGSIZE);
    assert_int_equal(ttrpc_message_pack_response(1, TTRPC_OK, NULL, &request.base, &bytes, &n), -EMSGSIZE);
    assert_int_equal(ttrpc_message_pack_data(1, 0, &request.base, &bytes, &n), -EMSGSIZE);
    assert_null(bytes);
    assert_int_equal(n, 77);
    free(data);
}

/* What a failure's text becomes on the wire. */
static char *text_sent(const char *text)
{
    FrameParser p = FRAME_PARSER_INIT;
    Cloudhv__Agent__V1__Empty ignored = CLOUDHV__AGENT__V1__EMPTY__INIT;
    TtrpcResponse *response;
    uint8_t *bytes;
    Frame frame;
    char *copy;
    size_t n;

    assert_int_equal(ttrpc_message_pack_response(1, TTRPC_NOT_FOUND, text, &ignored.base, &bytes, &n), 0);
    frame = frame_of(&p, bytes, n);
    response = (TtrpcResponse *)ttrpc_message_unpack(&cloudhv__ttrpc__response__descriptor, frame.payload,
                                                     frame.size);
    assert_non_null(response);
    assert_non_null(response->status);
    assert_int_equal(response->status->code, TTRPC_NOT_FOUND);
    assert_int_equal(response->payload.len, 0);
    copy = strdup(response->status->message);
    protobuf_c_message_free_unpacked(&response->base, NULL);
    frame_parser_clear(&p);
    free(bytes);
    return copy;
}

static void test_failure_texts(void **state)
{
    static const struct {
        const char *text, *sent;
    } cases[] = {
        {"", ""},
        {"container c1: not found", "container c1: not found"},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"file \xff\xfe", "file ??"},
        {"cut \xc3", "cut ?"},
        {"cut \xe2\x82", "cut ??"},
        {"\x80 alone", "? alone"},
        {"overlong \xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf", "overlong ?? ??? ????"},
        {"surrogate \xed\xa0\x80", "surrogate ???"},
        {"beyond \xf4\x90\x80\x80 \xf5\x80\x80\x80", "beyond ???? ????"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *sent = text_sent(cases[i].text);

        assert_string_equal(sent, cases[i].sent);
        free(sent);
    }
}

static void test_long_failure_text(void **state)
{
    char text[MESSAGE_ERROR_MAX + 100], *sent;

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    sent = text_sent(text);
    assert_int_equal(strlen(sent), MESSAGE_ERROR_MAX);
    free(sent);
    /* The two bytes of an é do not fit any more. */
    memcpy(text + MESSAGE_ERROR_MAX - 1, "\xc3\xa9", 2);
    sent = text_sent(text);
    assert_int_equal(strlen(sent), MESSAGE_ERROR_MAX - 1);
    free(sent);
}

static void test_malformed(void **state)
{
    const ProtobufCMessageDescriptor *d = &cloudhv__agent__v1__kill_request__descriptor;

    assert_null(ttrpc_message_unpack(d,
                                     (const uint8_t *)"\x0a\x05"
                                                      "abc",
                                     5));                                 /* shorter than it says */
    assert_null(ttrpc_message_unpack(d, (const uint8_t *)"\x18", 1));     /* a tag alone */
    assert_null(ttrpc_message_unpack(d, (const uint8_t *)"\x0f\x00", 2)); /* no such wire type */
}

/* Two bytes on the wire for each empty route, which takes more than a hundred in memory. */
static void test_budget(void **state)
{
    const ProtobufCMessageDescriptor *d = &cloudhv__agent__v1__configure_network_request__descriptor;
    size_t n = 4 * 1024 * 1024;
    uint8_t *bytes = malloc(n);
    ProtobufCMessage *m;

    for (size_t i = 0; i < n; i += 2)
        memcpy(bytes + i, "\x12\x00", 2);
    assert_null(ttrpc_message_unpack(d, bytes, n));
    m = ttrpc_message_unpack(d, bytes, 2000);
    assert_non_null(m);
    assert_int_equal(((Cloudhv__Agent__V1__ConfigureNetworkRequest *)m)->n_routes, 1000);
    protobuf_c_message_free_unpacked(m, NULL);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_data_stands_alone),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_failure_texts),
        cmocka_unit_test(test_long_failure_text),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
