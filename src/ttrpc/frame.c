/* SPDX-License-Identifier: MIT */

#include "ttrpc/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

void frame_header_pack(uint8_t header[static FRAME_HEADER_SIZE], uint32_t size, uint32_t stream_id,
                       FrameType type, uint8_t flags)
{
    put_u32(header, size);
    put_u32(header + 4, stream_id);
    header[8] = (uint8_t)type;
    header[9] = flags;
}

static void fds_close(int **fds, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        fd_close((*fds)[i]);
    free(*fds);
    *fds = NULL;
    *n = 0;
}

/* Releases what belongs to the frame in progress or handed out last. */
static void release_frame(FrameParser *p)
{
    free(p->buffer);
    p->buffer = NULL;
    p->allocated = 0;
    fds_close(&p->fds, &p->n_fds);
    p->n_header = 0;
    p->done = 0;
    p->emitted = false;
}

void frame_parser_clear(FrameParser *p)
{
    release_frame(p);
    fds_close(&p->fed_fds, &p->n_fed_fds);
    *p = FRAME_PARSER_INIT;
}

int frame_parser_feed(FrameParser *p, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds)
{
    p->input = bytes;
    p->n_input = n;
    p->started_in_input = false;
    if (n_fds == 0)
        return 0;
    fds_close(&p->fed_fds, &p->n_fed_fds);
    if (n_fds <= FRAME_FDS_MAX)
        p->fed_fds = malloc(n_fds * sizeof(int));
    if (!p->fed_fds) {
        for (size_t i = 0; i < n_fds; i++)
            fd_close(fds[i]);
        return n_fds <= FRAME_FDS_MAX ? -ENOMEM : 0;
    }
    memcpy(p->fed_fds, fds, n_fds * sizeof(int));
    p->n_fed_fds = n_fds;
    return 0;
}

/* The input is used up: what came with it belongs to the frame that began last in it, if one did. */
static void bind_fds(FrameParser *p)
{
    if (p->n_fed_fds == 0)
        return;
    if (p->started_in_input) {
        fds_close(&p->fds, &p->n_fds);
        p->fds = p->fed_fds;
        p->n_fds = p->n_fed_fds;
        p->fed_fds = NULL;
        p->n_fed_fds = 0;
    } else
        fds_close(&p->fed_fds, &p->n_fed_fds);
}

static size_t take_input(FrameParser *p, size_t max, const uint8_t **ret)
{
    size_t n = p->n_input < max ? p->n_input : max;

    *ret = p->input;
    p->input += n;
    p->n_input -= n;
    return n;
}

/* Makes room for `n` bytes more. Memory follows what has arrived, not what was announced, so that headers
 * alone cost the other side more than us. */
static int buffer_grow(FrameParser *p, size_t n, size_t size)
{
    size_t want = p->allocated ? p->allocated * 2 : 4096;
    uint8_t *q;

    if (p->done + n <= p->allocated)
        return 0;
    if (want < p->done + n)
        want = p->done + n;
    if (want > size)
        want = size;
    q = realloc(p->buffer, want);
    if (!q)
        return -ENOMEM;
    p->buffer = q;
    p->allocated = want;
    return 0;
}

/* Takes what there is of the payload; *ret points to it when it is complete. */
static int take_payload(FrameParser *p, size_t size, const uint8_t **ret)
{
    const uint8_t *piece;
    size_t n;
    int r;

    if (size > FRAME_PAYLOAD_MAX) {
        p->done += (uint32_t)take_input(p, size - p->done, &piece);
        *ret = NULL;
        return 0;
    }
    if (p->done == 0 && p->n_input >= size) {
        p->done += (uint32_t)take_input(p, size, &piece);
        *ret = size > 0 ? piece : NULL;
        return 0;
    }
    n = take_input(p, size - p->done, &piece);
    if (n > 0) {
        r = buffer_grow(p, n, size);
        if (r < 0)
            return r;
        memcpy(p->buffer + p->done, piece, n);
        p->done += (uint32_t)n;
    }
    *ret = p->buffer;
    return 0;
}

int frame_parser_next(FrameParser *p, Frame *ret)
{
    const uint8_t *piece, *payload = NULL;
    uint32_t size;
    size_t n;
    int r;

    if (p->emitted)
        release_frame(p);
    if (p->n_input == 0) {
        bind_fds(p);
        return 1;
    }
    if (p->n_header == 0)
        p->started_in_input = true;
    if (p->n_header < FRAME_HEADER_SIZE) {
        n = take_input(p, FRAME_HEADER_SIZE - p->n_header, &piece);
        memcpy(p->header + p->n_header, piece, n);
        p->n_header += (uint8_t)n;
        if (p->n_header < FRAME_HEADER_SIZE) {
            bind_fds(p);
            return 1;
        }
    }
    size = get_u32(p->header);
    r = take_payload(p, size, &payload);
    if (r < 0)
        return r;
    if (p->n_input == 0)
        bind_fds(p);
    if (p->done < size)
        return 1;
    p->emitted = true;
    p->started_in_input = false;
    *ret = (Frame){
        .stream_id = get_u32(p->header + 4),
        .type = p->header[8],
        .flags = p->header[9],
        .oversized = size > FRAME_PAYLOAD_MAX,
        .size = size,
        .payload = payload,
    };
    return 0;
}

int *frame_parser_take_fds(FrameParser *p, size_t *ret_n)
{
    int *fds = p->emitted ? p->fds : NULL;

    *ret_n = fds ? p->n_fds : 0;
    if (fds) {
        p->fds = NULL;
        p->n_fds = 0;
    }
    return fds;
}

bool frame_parser_is_at_rest(const FrameParser *p)
{
    return p->n_input == 0 && (p->n_header == 0 || p->emitted);
}
