/* SPDX-License-Identifier: MIT */

/* The link layer of serial ports, in both roles: a stream of damaged and intact frames of several sessions,
 * cut into pieces in two ways, gives the same events, and only what the current session may say. */

#include <endian.h>

#include "fuzz.h"
#include "ttrpc/crc32.h"
#include "ttrpc/link.h"

enum { STREAM_MAX = 64 * 1024, EVENTS_MAX = 4096 };

typedef struct Stream {
    uint8_t bytes[STREAM_MAX];
    size_t n;
} Stream;

static void put(Stream *s, const void *bytes, size_t n)
{
    if (n > STREAM_MAX - s->n)
        n = STREAM_MAX - s->n;
    if (n > 0)
        memcpy(s->bytes + s->n, bytes, n);
    s->n += n;
}

/* A frame whose checksum is right, unless the input wants a byte of it changed. */
static void put_frame(Stream *s, Input *in)
{
    uint8_t frame[LINK_HEADER_SIZE + 256] = {'C', 'H', 'V', 'L'}, flags = take_u8(in);
    uint64_t nonce = htobe64((uint64_t)(flags & 3));
    Input payload = take(in, flags & 4 ? take_u8(in) : 0);
    uint16_t length = htobe16((uint16_t)payload.n);
    uint32_t crc;

    memcpy(frame + 8, &nonce, sizeof(nonce));
    frame[16] = (uint8_t)(1 + (flags >> 3) % 4);
    memcpy(frame + 18, &length, sizeof(length));
    if (payload.n > 0)
        memcpy(frame + LINK_HEADER_SIZE, payload.bytes, payload.n);
    crc = htobe32(crc32_ieee(frame + 8, LINK_HEADER_SIZE - 8 + payload.n));
    memcpy(frame + 4, &crc, sizeof(crc));
    if (flags & 64)
        frame[take_u8(in) % (LINK_HEADER_SIZE + payload.n)] ^= (uint8_t)(take_u8(in) | 1);
    put(s, frame, LINK_HEADER_SIZE + payload.n);
}

/* Events as one string: their types and what they carried. */
static size_t run(LinkRole role, const Stream *s, size_t cut, uint8_t *seen, size_t max)
{
    Link *l = NULL;
    size_t n = 0;
    bool established = false;

    REQUIRE(ttrpc_link_new(role, &l) == 0);
    if (role == LINK_CLIENT)
        ttrpc_link_start(l, 1);
    for (size_t at = 0; at < s->n; at += cut) {
        LinkEvent event;
        int r;

        ttrpc_link_feed(l, s->bytes + at, s->n - at < cut ? s->n - at : cut);
        while ((r = ttrpc_link_next(l, &event)) == 0) {
            if (event.type == LINK_STARTED)
                established = true;
            else
                REQUIRE(established);
            if (event.type == LINK_CLOSED || event.type == LINK_BROKEN)
                established = false;
            REQUIRE(ttrpc_link_is_established(l) == established);
            if (event.type == LINK_DATA)
                REQUIRE(event.size > 0 && event.size <= LINK_PAYLOAD_MAX);
            if (n < max)
                seen[n++] = (uint8_t)event.type;
            for (size_t i = 0; event.type == LINK_DATA && i < event.size && n < max; i++)
                seen[n++] = event.payload[i];
        }
        REQUIRE(r == 1);
    }
    ttrpc_link_free(l);
    return n;
}

/* What one side packs the other one reads, and nothing else. */
static void check_round_trip(Input in)
{
    _cleanup_free_ uint8_t *reset = NULL, *ack = NULL, *data = NULL;
    size_t n_reset, n_ack, n_data, done = 0;
    Link *client = NULL, *server = NULL;
    LinkEvent event;

    REQUIRE(ttrpc_link_new(LINK_CLIENT, &client) == 0 && ttrpc_link_new(LINK_SERVER, &server) == 0);
    ttrpc_link_start(client, 0x1122334455667788);
    REQUIRE(ttrpc_link_pack_reset(client, &reset, &n_reset) == 0);
    ttrpc_link_feed(server, reset, n_reset);
    REQUIRE(ttrpc_link_next(server, &event) == 0 && event.type == LINK_STARTED);
    REQUIRE(ttrpc_link_next(server, &event) == 1);
    REQUIRE(ttrpc_link_pack_reset_ack(server, &ack, &n_ack) == 0);
    ttrpc_link_feed(client, ack, n_ack);
    REQUIRE(ttrpc_link_next(client, &event) == 0 && event.type == LINK_STARTED);
    REQUIRE(ttrpc_link_pack_data(client, in.bytes, in.n, &data, &n_data) == 0);
    ttrpc_link_feed(server, data, n_data);
    while (ttrpc_link_next(server, &event) == 0) {
        REQUIRE(event.type == LINK_DATA && event.size <= in.n - done);
        REQUIRE(memcmp(event.payload, in.bytes + done, event.size) == 0);
        done += event.size;
    }
    REQUIRE(done == in.n);
    ttrpc_link_free(client);
    ttrpc_link_free(server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t a[EVENTS_MAX], b[EVENTS_MAX];
    static Stream stream;
    Input in = {data, size};
    uint8_t first = take_u8(&in);
    LinkRole role = first & 1 ? LINK_CLIENT : LINK_SERVER;
    size_t n;

    if (first & 2)
        check_round_trip(in);
    stream.n = 0;
    while (in.n > 0) {
        if (take_u8(&in) % 4 == 0) {
            Input raw = take(&in, take_u8(&in));

            put(&stream, raw.bytes, raw.n);
        } else
            put_frame(&stream, &in);
    }
    n = run(role, &stream, STREAM_MAX, a, sizeof(a));
    REQUIRE(run(role, &stream, 1 + (first >> 2), b, sizeof(b)) == n && memcmp(a, b, n) == 0);
    return 0;
}
