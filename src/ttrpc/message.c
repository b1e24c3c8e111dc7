/* SPDX-License-Identifier: MIT */

#include "ttrpc/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Tags of field `payload` (wire type 2), which is appended by hand: so the method's message is encoded
 * straight into the frame. The order of fields on the wire is free. */
#define REQUEST_PAYLOAD_TAG (3 << 3 | 2)
#define RESPONSE_PAYLOAD_TAG (2 << 3 | 2)

static size_t varint_size(size_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static uint8_t *varint_put(uint8_t *p, size_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* A frame of `type` with `envelope` and, under `tag`, `payload`; each may be NULL. Without an envelope the
 * payload stands alone. */
static int pack(uint32_t stream_id, FrameType type, uint8_t flags, const ProtobufCMessage *envelope,
                uint8_t tag, const ProtobufCMessage *payload, uint8_t **ret, size_t *ret_size)
{
    size_t n_envelope = envelope ? protobuf_c_message_get_packed_size(envelope) : 0;
    size_t n_payload = payload ? protobuf_c_message_get_packed_size(payload) : 0;
    size_t size = n_envelope + n_payload;
    uint8_t *frame, *p;

    if (envelope && n_payload > 0)
        size += 1 + varint_size(n_payload);
    if (size > FRAME_PAYLOAD_MAX)
        return -EMSGSIZE;
    frame = malloc(FRAME_HEADER_SIZE + size);
    if (!frame)
        return -ENOMEM;
    frame_header_pack(frame, (uint32_t)size, stream_id, type, flags);
    p = frame + FRAME_HEADER_SIZE;
    if (envelope)
        p += protobuf_c_message_pack(envelope, p);
    if (envelope && n_payload > 0) {
        *p++ = tag;
        p = varint_put(p, n_payload);
    }
    if (n_payload > 0)
        protobuf_c_message_pack(payload, p);
    *ret = frame;
    *ret_size = FRAME_HEADER_SIZE + size;
    return 0;
}

int ttrpc_message_pack_request(uint32_t stream_id, uint8_t flags, const char *service, const char *method,
                               int64_t timeout_nano, const ProtobufCMessage *payload, uint8_t **ret,
                               size_t *ret_size)
{
    TtrpcRequest request = CLOUDHV__TTRPC__REQUEST__INIT;

    request.service = (char *)service;
    request.method = (char *)method;
    request.timeout_nano = timeout_nano;
    return pack(stream_id, FRAME_REQUEST, flags, &request.base, REQUEST_PAYLOAD_TAG, payload, ret, ret_size);
}

/* Length of the UTF-8 sequence at `text`, 0 where there is none (RFC 3629). */
static size_t utf8_length(const char *text)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    /* The second byte tells overlong forms, surrogates and what lies beyond U+10FFFF. */
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;

    if (n > 1 && (s[1] < low || s[1] > high))
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* Go refuses a whole message for one string that is not UTF-8, and texts may quote a file's name or a guest: what is
 * none becomes '?', and no sequence is cut in its middle. */
static void copy_text(char to[static MESSAGE_ERROR_MAX + 1], const char *from)
{
    size_t n = 0;

    while (*from) {
        size_t k = utf8_length(from);

        if (n + (k ?: 1) > MESSAGE_ERROR_MAX)
            break;
        if (k > 0)
            memcpy(to + n, from, k);
        else
            to[n] = '?';
        from += k ?: 1;
        n += k ?: 1;
    }
    to[n] = 0;
}

int ttrpc_message_pack_response(uint32_t stream_id, TtrpcCode code, const char *text,
                                const ProtobufCMessage *payload, uint8_t **ret, size_t *ret_size)
{
    TtrpcResponse response = CLOUDHV__TTRPC__RESPONSE__INIT;
    Cloudhv__Ttrpc__Status status = CLOUDHV__TTRPC__STATUS__INIT;
    char cut[MESSAGE_ERROR_MAX + 1];

    if (code != TTRPC_OK) {
        copy_text(cut, text);
        status.code = (int32_t)code;
        status.message = cut;
        response.status = &status;
        payload = NULL;
    }
    return pack(stream_id, FRAME_RESPONSE, 0, &response.base, RESPONSE_PAYLOAD_TAG, payload, ret, ret_size);
}

int ttrpc_message_pack_data(uint32_t stream_id, uint8_t flags, const ProtobufCMessage *payload, uint8_t **ret,
                            size_t *ret_size)
{
    return pack(stream_id, FRAME_DATA, flags, NULL, 0, payload, ret, ret_size);
}

static void *budget_alloc(void *data, size_t size)
{
    size_t *left = data, cost = size + 16; /* malloc's own */

    if (cost < size || cost > *left)
        return NULL;
    *left -= cost;
    return malloc(size);
}

static void budget_free(_unused_ void *data, void *p)
{
    free(p);
}

ProtobufCMessage *ttrpc_message_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
                                       size_t size)
{
    /* Small messages of many fields may grow sixteenfold and more, long ones are mostly data. */
    size_t left = (1u << 20) + 4 * size;
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &left};

    return protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
}
