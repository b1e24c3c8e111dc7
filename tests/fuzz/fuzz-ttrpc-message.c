/* SPDX-License-Identifier: MIT */

/* Every message of every service that we speak, as its receiver decodes it: what is accepted can be encoded,
 * decoded and encoded again to the same bytes, and survives the way in a request and a response. The first
 * two bytes choose service and method. */

#include "agent.pb-c.h"
#include "containerd-events.pb-c.h"
#include "containerd-sandbox.pb-c.h"
#include "containerd-task.pb-c.h"
#include "daemon.pb-c.h"
#include "fuzz.h"
#include "ttrpc/message.h"

static const ProtobufCServiceDescriptor *const services[] = {
    &cloudhv__agent__v1__control__descriptor,
    &cloudhv__agent__v1__task__descriptor,
    &cloudhv__daemon__v1__sandboxes__descriptor,
    &containerd__task__descriptor,
    &containerd__events__descriptor,
    &containerd__sandbox__descriptor,
};

static uint8_t *pack(const ProtobufCMessage *m, size_t *ret)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes = malloc(n + 1);

    REQUIRE(bytes);
    *ret = protobuf_c_message_pack(m, bytes);
    REQUIRE(*ret == n);
    return bytes;
}

static Frame read_frame(FrameParser *p, const uint8_t *bytes, size_t n)
{
    Frame frame = {0};

    REQUIRE(frame_parser_feed(p, bytes, n, NULL, 0) == 0);
    REQUIRE(frame_parser_next(p, &frame) == 0);
    REQUIRE(frame.size == n - FRAME_HEADER_SIZE);
    return frame;
}

static void check_request(const ProtobufCMessage *m, const uint8_t *packed, size_t n_packed)
{
    FrameParser p = FRAME_PARSER_INIT;
    _cleanup_free_ uint8_t *bytes = NULL;
    TtrpcRequest *request;
    Frame frame;
    size_t n;

    REQUIRE(ttrpc_message_pack_request(7, 0, "service", "method", 5, m, &bytes, &n) == 0);
    frame = read_frame(&p, bytes, n);
    REQUIRE(frame.stream_id == 7 && frame.type == FRAME_REQUEST);
    request =
        (TtrpcRequest *)ttrpc_message_unpack(&cloudhv__ttrpc__request__descriptor, frame.payload, frame.size);
    REQUIRE(request && request->timeout_nano == 5 && strcmp(request->method, "method") == 0);
    REQUIRE(request->payload.len == n_packed);
    REQUIRE(n_packed == 0 || memcmp(request->payload.data, packed, n_packed) == 0);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    frame_parser_clear(&p);
}

static void check_response(const ProtobufCMessage *m, const uint8_t *packed, size_t n_packed)
{
    FrameParser p = FRAME_PARSER_INIT;
    _cleanup_free_ uint8_t *bytes = NULL;
    TtrpcResponse *response;
    Frame frame;
    size_t n;

    REQUIRE(ttrpc_message_pack_response(9, TTRPC_OK, NULL, m, &bytes, &n) == 0);
    frame = read_frame(&p, bytes, n);
    response = (TtrpcResponse *)ttrpc_message_unpack(&cloudhv__ttrpc__response__descriptor, frame.payload,
                                                     frame.size);
    REQUIRE(response && !response->status && response->payload.len == n_packed);
    REQUIRE(n_packed == 0 || memcmp(response->payload.data, packed, n_packed) == 0);
    protobuf_c_message_free_unpacked(&response->base, NULL);
    frame_parser_clear(&p);
}

/* A failure's text, of whatever bytes, arrives as text that Go accepts. */
static void check_failure(Input in)
{
    _cleanup_free_ char *text = take_string(&in, 2 * MESSAGE_ERROR_MAX);
    FrameParser p = FRAME_PARSER_INIT;
    _cleanup_free_ uint8_t *bytes = NULL;
    TtrpcResponse *response;
    Frame frame;
    size_t n;

    REQUIRE(ttrpc_message_pack_response(9, TTRPC_INTERNAL, text, NULL, &bytes, &n) == 0);
    frame = read_frame(&p, bytes, n);
    response = (TtrpcResponse *)ttrpc_message_unpack(&cloudhv__ttrpc__response__descriptor, frame.payload,
                                                     frame.size);
    REQUIRE(response && response->status && response->status->code == TTRPC_INTERNAL);
    REQUIRE(strlen(response->status->message) <= MESSAGE_ERROR_MAX && is_utf8(response->status->message));
    protobuf_c_message_free_unpacked(&response->base, NULL);
    frame_parser_clear(&p);
}

/* Fields that the message's type does not know are kept as they were, also with numbers that no decoder
 * takes. */
static bool has_unknown_fields(const ProtobufCMessage *m)
{
    if (m->n_unknown_fields > 0)
        return true;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const char *at = (const char *)m + f->offset;
        size_t n = f->label == PROTOBUF_C_LABEL_REPEATED
                       ? *(const size_t *)((const char *)m + f->quantifier_offset)
                       : 1;
        ProtobufCMessage *const *inner = f->label == PROTOBUF_C_LABEL_REPEATED
                                             ? *(ProtobufCMessage *const *const *)at
                                             : (ProtobufCMessage *const *)at;

        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        /* Of a oneof, the number says whose turn it is. */
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
            *(const uint32_t *)((const char *)m + f->quantifier_offset) != f->id)
            continue;
        for (size_t k = 0; k < n; k++)
            if (inner[k] && has_unknown_fields(inner[k]))
                return true;
    }
    return false;
}

static void check(const ProtobufCMessageDescriptor *descriptor, Input in)
{
    ProtobufCMessage *m = ttrpc_message_unpack(descriptor, in.bytes, in.n), *again;
    _cleanup_free_ uint8_t *first = NULL, *second = NULL;
    size_t n_first, n_second;

    if (!m)
        return;
    first = pack(m, &n_first);
    /* Encoded anew it is hardly longer, and so within the budget of the next decoding. */
    again = ttrpc_message_unpack(descriptor, first, n_first);
    REQUIRE(again || has_unknown_fields(m));
    if (again) {
        second = pack(again, &n_second);
        REQUIRE(n_first == n_second && memcmp(first, second, n_first) == 0);
        protobuf_c_message_free_unpacked(again, NULL);
    }
    check_request(m, first, n_first);
    check_response(m, first, n_first);
    protobuf_c_message_free_unpacked(m, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};
    const ProtobufCServiceDescriptor *service = services[take_u8(&in) % ELEMENTSOF(services)];
    uint8_t which = take_u8(&in);
    const ProtobufCMethodDescriptor *method = &service->methods[(which >> 1) % service->n_methods];

    if (size > 256 * 1024)
        return 0;
    check(which & 1 ? method->output : method->input, in);
    check(&cloudhv__ttrpc__request__descriptor, in);
    check(&cloudhv__ttrpc__response__descriptor, in);
    check_failure(in);
    return 0;
}
