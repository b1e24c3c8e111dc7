/* SPDX-License-Identifier: MIT */

/* What a VMM may send on its API socket and its event stream that its guest has broken into. The first byte says how
 * the bytes are cut into pieces, on which nothing depends. */

#include <errno.h>

#include "fuzz.h"
#include "vmm/ch-events.h"
#include "vmm/http.h"

enum { RESPONSES_MAX = 256 };

typedef struct Run {
    unsigned status[RESPONSES_MAX];
    size_t size[RESPONSES_MAX];
    size_t n;
    int result; /* 1, or what ended the conversation */
} Run;

static void run_http(Input in, size_t cut, Run *ret)
{
    HttpParser *p = NULL;

    *ret = (Run){.result = 1};
    REQUIRE(http_parser_new(&p) == 0);
    while (in.n > 0 && ret->result == 1) {
        _cleanup_error_ Error e = ERROR_INIT;
        Input piece = take(&in, cut);
        HttpResponse response = {0};

        REQUIRE(http_parser_feed(p, piece.bytes, piece.n) == 0);
        while ((ret->result = http_parser_next(p, &response, &e)) == 0) {
            REQUIRE(response.status >= 200 && response.status < 600);
            REQUIRE(!response.body == (response.size == 0) && response.size <= HTTP_BODY_MAX);
            REQUIRE(!response.body || response.body[response.size] == 0);
            REQUIRE(ret->n < RESPONSES_MAX);
            ret->status[ret->n] = response.status;
            ret->size[ret->n++] = response.size;
            http_response_clear(&response);
        }
        if (ret->result < 0) {
            REQUIRE(e.number == ret->result && e.message);
            REQUIRE(ret->result == -EBADMSG || ret->result == -EMSGSIZE);
            REQUIRE(http_parser_next(p, &response, NULL) == ret->result);
        }
    }
    http_parser_free(p);
}

static void run_events(Input in, size_t cut, Run *ret)
{
    ChEvents events = {0};

    *ret = (Run){.result = 1};
    while (in.n > 0 && ret->result == 1) {
        Input piece = take(&in, cut);
        ChEvent event = {0};

        REQUIRE(ch_events_feed(&events, piece.bytes, piece.n) == 0);
        while ((ret->result = ch_events_next(&events, &event, NULL)) == 0) {
            REQUIRE(event.source && event.event && json_is_object(event.object));
            REQUIRE(ret->n < RESPONSES_MAX);
            ret->size[ret->n++] = strlen(event.event) + (event.id ? strlen(event.id) : 0);
            ch_event_clear(&event);
        }
    }
    ch_events_clear(&events);
}

static void compare(const Run *a, const Run *b)
{
    REQUIRE(a->n == b->n && a->result == b->result);
    for (size_t i = 0; i < a->n; i++)
        REQUIRE(a->status[i] == b->status[i] && a->size[i] == b->size[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Run whole, pieces;
    Input in = {data, size};
    uint8_t first = take_u8(&in);

    if (size > 3000) /* a response takes 17 bytes at least, an event 27 */
        return 0;
    run_http(in, SIZE_MAX, &whole);
    run_http(in, 1 + first, &pieces);
    compare(&whole, &pieces);
    run_events(in, SIZE_MAX, &whole);
    run_events(in, 1 + first, &pieces);
    compare(&whole, &pieces);
    return 0;
}
