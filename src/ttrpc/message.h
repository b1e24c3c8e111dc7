/* SPDX-License-Identifier: MIT */
#pragma once

/* What lies in the payload of ttrpc's frames: encoding of requests, responses and stream data into complete
 * frames, and decoding that bounds the memory which a hostile peer's message can take. No I/O. */

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "ttrpc.pb-c.h"
#include "ttrpc/frame.h"
#include "ttrpc/ttrpc.h"

typedef Cloudhv__Ttrpc__Request TtrpcRequest;
typedef Cloudhv__Ttrpc__Response TtrpcResponse;

/* Messages of errors are cut to this many bytes; what in them is not UTF-8 becomes '?'. */
#define MESSAGE_ERROR_MAX 4096u

/* A complete frame in *ret, which the caller frees. `payload` may be NULL. -EMSGSIZE when it would be longer
 * than FRAME_PAYLOAD_MAX; -EINVAL when a required string of `payload` is missing. */
int ttrpc_message_pack_request(uint32_t stream_id, uint8_t flags, const char *service, const char *method,
                               int64_t timeout_nano, const ProtobufCMessage *payload, uint8_t **ret,
                               size_t *ret_size);
/* With `code` other than TTRPC_OK the payload is left out. */
int ttrpc_message_pack_response(uint32_t stream_id, TtrpcCode code, const char *text,
                                const ProtobufCMessage *payload, uint8_t **ret, size_t *ret_size);
int ttrpc_message_pack_data(uint32_t stream_id, uint8_t flags, const ProtobufCMessage *payload, uint8_t **ret,
                            size_t *ret_size);

/* Decodes with a budget of memory that grows with `size`: protobuf allows two bytes on the wire to become
 * more than a hundred in memory. NULL for what is malformed or takes more. Freed by
 * protobuf_c_message_free_unpacked(message, NULL). */
ProtobufCMessage *ttrpc_message_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
                                       size_t size);

static inline void message_freep(ProtobufCMessage **m)
{
    if (*m)
        protobuf_c_message_free_unpacked(*m, NULL);
}
#define _cleanup_message_ _cleanup_(message_freep)
