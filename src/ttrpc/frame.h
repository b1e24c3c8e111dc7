/* SPDX-License-Identifier: MIT */
#pragma once

/* Frames of ttrpc (containerd/ttrpc, PROTOCOL.md): a header of ten bytes and up to 4 MiB of payload. A parser
 * that turns bytes into frames without doing I/O, and the header's encoding. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER_SIZE 10u
#define FRAME_PAYLOAD_MAX (4u << 20)
#define FRAME_FDS_MAX 32u /* descriptors that can come with one frame */

typedef enum FrameType {
    FRAME_REQUEST = 1,
    FRAME_RESPONSE = 2,
    FRAME_DATA = 3,
} FrameType;

typedef enum FrameFlags {
    FRAME_REMOTE_CLOSED = 1 << 0, /* the sender sends no more data on this stream */
    FRAME_REMOTE_OPEN = 1 << 1,   /* a request whose sender will send data */
    FRAME_NO_DATA = 1 << 2,       /* this data frame carries no message, not even an empty one */
} FrameFlags;

typedef struct Frame {
    uint32_t stream_id;
    uint8_t type; /* also values that FrameType does not know */
    uint8_t flags;
    bool oversized;         /* the payload was announced as more than FRAME_PAYLOAD_MAX and thrown away */
    uint32_t size;          /* as announced */
    const uint8_t *payload; /* NULL when oversized or empty */
} Frame;

typedef struct FrameParser {
    const uint8_t *input; /* what was fed and is not looked at yet */
    size_t n_input;
    uint8_t header[FRAME_HEADER_SIZE];
    uint8_t n_header;
    bool started_in_input; /* the frame in progress began in the bytes fed last */
    bool emitted;          /* the last frame was handed out and can be released */
    uint32_t done;         /* bytes of the payload seen */
    uint8_t *buffer;       /* of a payload that comes in pieces; grows with what arrives */
    size_t allocated;
    int *fds; /* of the frame in progress */
    size_t n_fds;
    int *fed_fds; /* came with the bytes fed last, not bound to a frame yet */
    size_t n_fed_fds;
} FrameParser;

#define FRAME_PARSER_INIT ((FrameParser){0})

/* Forgets a frame in progress, releases its memory and closes its descriptors. */
void frame_parser_clear(FrameParser *p);

/* Gives the parser bytes, which must stay valid until frame_parser_next() has returned 1, and the descriptors
 * that came with them (which become the parser's, also on failure). They belong to the last frame that begins
 * in these bytes: a receive ends with the send that carried descriptors (unix(7)), and such a send carries
 * one frame, or its beginning. Where no frame begins, or more than FRAME_FDS_MAX come, they are closed. */
int frame_parser_feed(FrameParser *p, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds);

/* The next complete frame: 0, or 1 when more bytes are needed, or -ENOMEM. The frame is valid until the next
 * call for this parser. */
int frame_parser_next(FrameParser *p, Frame *ret);

/* Whether nothing was fed beyond the frame handed out last. */
bool frame_parser_is_at_rest(const FrameParser *p);

/* The descriptors of the frame handed out last, as an array that the caller frees; NULL when there are none.
 * Those that nobody takes are closed by the next call for the parser. */
int *frame_parser_take_fds(FrameParser *p, size_t *ret_n);

void frame_header_pack(uint8_t header[static FRAME_HEADER_SIZE], uint32_t size, uint32_t stream_id,
                       FrameType type, uint8_t flags);
