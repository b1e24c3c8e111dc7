/* SPDX-License-Identifier: MIT */

#include "ttrpc/link.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ttrpc/crc32.h"

typedef enum FrameKind {
    KIND_RESET = 1,
    KIND_RESET_ACK = 2,
    KIND_DATA = 3,
    KIND_CLOSE = 4,
} FrameKind;

typedef enum LinkState {
    STATE_IDLE,
    STATE_AWAITING_ACK, /* client only */
    STATE_ESTABLISHED,
} LinkState;

/* On the wire, big-endian, followed by `length` bytes. The checksum covers everything behind it. */
typedef struct __attribute__((packed)) Header {
    uint8_t magic[4];
    uint32_t crc;
    uint64_t nonce;
    uint8_t kind;
    uint8_t reserved; /* 0 */
    uint16_t length;
} Header;
_Static_assert(sizeof(Header) == LINK_HEADER_SIZE, "the header's size is part of the format");

#define CRC_OFFSET 8u /* of the first byte that the checksum covers */

static const uint8_t magic[4] = {'C', 'H', 'V', 'L'};

/* A frame is gathered in `partial` only when it comes in pieces. */
struct Link {
    LinkRole role;
    LinkState state;
    uint64_t nonce;
    const uint8_t *input;
    size_t n_input;
    uint16_t have;    /* bytes of the frame in progress */
    bool emitted;     /* `partial` was handed out and can be released */
    uint8_t *partial; /* a whole frame's room, once its header is known */
    uint8_t head[LINK_HEADER_SIZE];
};

int ttrpc_link_new(LinkRole role, Link **ret)
{
    Link *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->role = role;
    *ret = l;
    return 0;
}

static void frame_forget(Link *l)
{
    free(l->partial);
    l->partial = NULL;
    l->have = 0;
    l->emitted = false;
}

Link *ttrpc_link_free(Link *l)
{
    if (!l)
        return NULL;
    frame_forget(l);
    free(l);
    return NULL;
}

void ttrpc_link_start(Link *l, uint64_t nonce)
{
    frame_forget(l);
    l->nonce = nonce;
    l->state = STATE_AWAITING_ACK;
}

void ttrpc_link_end(Link *l)
{
    l->state = STATE_IDLE;
}

void ttrpc_link_stop(Link *l)
{
    frame_forget(l);
    l->input = NULL;
    l->n_input = 0;
    l->state = STATE_IDLE;
}

bool ttrpc_link_is_established(const Link *l)
{
    return l->state == STATE_ESTABLISHED;
}

uint64_t ttrpc_link_nonce(const Link *l)
{
    return l->nonce;
}

bool ttrpc_link_is_at_rest(const Link *l)
{
    return l->n_input == 0 && (l->have == 0 || l->emitted);
}

void ttrpc_link_resume(Link *l, uint64_t nonce)
{
    frame_forget(l);
    l->nonce = nonce;
    l->state = STATE_ESTABLISHED;
}

void ttrpc_link_feed(Link *l, const uint8_t *bytes, size_t n)
{
    l->input = bytes;
    l->n_input = n;
}

/* Whether the first `n` bytes can be the beginning of a header. */
static bool header_is_possible(const uint8_t *bytes, size_t n)
{
    const Header *h = (const Header *)bytes;

    if (memcmp(h->magic, magic, n < sizeof(magic) ? n : sizeof(magic)) != 0)
        return false;
    if (n < LINK_HEADER_SIZE)
        return true;
    return h->kind >= KIND_RESET && h->kind <= KIND_CLOSE && h->reserved == 0 &&
           be16toh(h->length) <= LINK_PAYLOAD_MAX;
}

/* Fills the header, passing over everything that is none. True when it is complete. */
static bool take_header(Link *l)
{
    while (l->have < LINK_HEADER_SIZE) {
        size_t n = LINK_HEADER_SIZE - l->have;

        if (l->have == 0) {
            const uint8_t *p = l->n_input > 0 ? memchr(l->input, magic[0], l->n_input) : NULL;

            if (!p) {
                l->n_input = 0;
                return false;
            }
            l->n_input -= (size_t)(p - l->input);
            l->input = p;
        }
        if (n > l->n_input)
            n = l->n_input;
        if (n == 0)
            return false;
        memcpy(l->head + l->have, l->input, n);
        l->have = (uint16_t)(l->have + n);
        l->input += n;
        l->n_input -= n;
        while (l->have > 0 && !header_is_possible(l->head, l->have)) {
            l->have--;
            memmove(l->head, l->head + 1, l->have);
        }
    }
    return true;
}

/* Makes *ret a whole frame. 0, or 1 when its end has not arrived. */
static int take_frame(Link *l, const uint8_t **ret)
{
    size_t size, n;

    if (l->emitted)
        frame_forget(l);
    if (!l->partial && !take_header(l))
        return 1;
    size = LINK_HEADER_SIZE + be16toh(((const Header *)l->head)->length);
    if (!l->partial) {
        l->partial = malloc(size);
        if (!l->partial)
            return -ENOMEM;
        memcpy(l->partial, l->head, LINK_HEADER_SIZE);
    }
    n = size - l->have < l->n_input ? size - l->have : l->n_input;
    if (n > 0)
        memcpy(l->partial + l->have, l->input, n);
    l->have = (uint16_t)(l->have + n);
    l->input += n;
    l->n_input -= n;
    if (l->have < size)
        return 1;
    l->emitted = true;
    *ret = l->partial;
    return 0;
}

/* What an intact frame means to the client; true when it is an event. */
static bool client_handle(Link *l, const Header *h, LinkEvent *ret)
{
    if (be64toh(h->nonce) != l->nonce)
        return false;
    if (l->state == STATE_AWAITING_ACK && h->kind == KIND_RESET_ACK) {
        l->state = STATE_ESTABLISHED;
        *ret = (LinkEvent){.type = LINK_STARTED};
        return true;
    }
    return false;
}

static bool server_handle(Link *l, const Header *h, LinkEvent *ret)
{
    if (h->kind != KIND_RESET)
        return false;
    l->nonce = be64toh(h->nonce);
    l->state = STATE_ESTABLISHED;
    *ret = (LinkEvent){.type = LINK_STARTED};
    return true;
}

static bool handle(Link *l, const uint8_t *frame, LinkEvent *ret)
{
    const Header *h = (const Header *)frame;
    size_t size = LINK_HEADER_SIZE + be16toh(h->length);

    if (crc32_ieee(frame + CRC_OFFSET, size - CRC_OFFSET) != be32toh(h->crc)) {
        if (l->state != STATE_ESTABLISHED)
            return false;
        l->state = STATE_IDLE;
        *ret = (LinkEvent){.type = LINK_BROKEN};
        return true;
    }
    if (l->role == LINK_CLIENT ? client_handle(l, h, ret) : server_handle(l, h, ret))
        return true;
    if (l->state != STATE_ESTABLISHED || be64toh(h->nonce) != l->nonce)
        return false;
    if (h->kind == KIND_DATA && size > LINK_HEADER_SIZE) {
        *ret = (LinkEvent){
            .type = LINK_DATA,
            .payload = frame + LINK_HEADER_SIZE,
            .size = size - LINK_HEADER_SIZE,
        };
        return true;
    }
    if (h->kind == KIND_CLOSE) {
        l->state = STATE_IDLE;
        *ret = (LinkEvent){.type = LINK_CLOSED};
        return true;
    }
    return false;
}

int ttrpc_link_next(Link *l, LinkEvent *ret)
{
    const uint8_t *frame;
    int r;

    do {
        r = take_frame(l, &frame);
        if (r != 0)
            return r;
    } while (!handle(l, frame, ret));
    return 0;
}

static void header_put(uint8_t *frame, uint64_t nonce, FrameKind kind, size_t length)
{
    Header *h = (Header *)frame;

    memcpy(h->magic, magic, sizeof(magic));
    h->nonce = htobe64(nonce);
    h->kind = (uint8_t)kind;
    h->reserved = 0;
    h->length = htobe16((uint16_t)length);
    h->crc = htobe32(crc32_ieee(frame + CRC_OFFSET, LINK_HEADER_SIZE - CRC_OFFSET + length));
}

/* A frame without payload behind `zeros` bytes. */
static int pack_control(const Link *l, FrameKind kind, size_t zeros, uint8_t **ret, size_t *ret_size)
{
    uint8_t *p = calloc(1, zeros + LINK_HEADER_SIZE);

    if (!p)
        return -ENOMEM;
    header_put(p + zeros, l->nonce, kind, 0);
    *ret = p;
    *ret_size = zeros + LINK_HEADER_SIZE;
    return 0;
}

int ttrpc_link_pack_reset(const Link *l, uint8_t **ret, size_t *ret_size)
{
    return pack_control(l, KIND_RESET, LINK_FRAME_MAX, ret, ret_size);
}

int ttrpc_link_pack_reset_ack(const Link *l, uint8_t **ret, size_t *ret_size)
{
    return pack_control(l, KIND_RESET_ACK, LINK_FRAME_MAX, ret, ret_size);
}

int ttrpc_link_pack_close(const Link *l, uint8_t **ret, size_t *ret_size)
{
    return pack_control(l, KIND_CLOSE, 0, ret, ret_size);
}

int ttrpc_link_pack_data(const Link *l, const uint8_t *bytes, size_t n, uint8_t **ret, size_t *ret_size)
{
    size_t frames = (n + LINK_PAYLOAD_MAX - 1) / LINK_PAYLOAD_MAX, size = n + frames * LINK_HEADER_SIZE;
    uint8_t *out = malloc(size), *p = out;

    if (!out)
        return -ENOMEM;
    while (n > 0) {
        size_t k = n < LINK_PAYLOAD_MAX ? n : LINK_PAYLOAD_MAX;

        memcpy(p + LINK_HEADER_SIZE, bytes, k);
        header_put(p, l->nonce, KIND_DATA, k);
        p += LINK_HEADER_SIZE + k;
        bytes += k;
        n -= k;
    }
    *ret = out;
    *ret_size = size;
    return 0;
}
