/* SPDX-License-Identifier: MIT */

/* The link layer of serial ports. */

#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "ttrpc/crc32.h"
#include "ttrpc/link.h"

typedef struct Ends {
    Link *client, *server;
} Ends;

static int setup(void **state)
{
    Ends *e = calloc(1, sizeof(*e));

    *state = e;
    return ttrpc_link_new(LINK_CLIENT, &e->client) | ttrpc_link_new(LINK_SERVER, &e->server);
}

static int teardown(void **state)
{
    Ends *e = *state;

    ttrpc_link_free(e->client);
    ttrpc_link_free(e->server);
    free(e);
    return 0;
}

static void expect(Link *l, LinkEventType type)
{
    LinkEvent event;

    assert_int_equal(ttrpc_link_next(l, &event), 0);
    assert_int_equal(event.type, type);
}

static void expect_data(Link *l, const char *text)
{
    LinkEvent event;

    assert_int_equal(ttrpc_link_next(l, &event), 0);
    assert_int_equal(event.type, LINK_DATA);
    assert_int_equal(event.size, strlen(text));
    assert_memory_equal(event.payload, text, event.size);
}

static void expect_none(Link *l)
{
    LinkEvent event;

    assert_int_equal(ttrpc_link_next(l, &event), 1);
}

/* Begins a session; the server's answer reaches the client. */
static void begin(Ends *e, uint64_t nonce)
{
    uint8_t *bytes;
    size_t n;

    ttrpc_link_start(e->client, nonce);
    assert_false(ttrpc_link_is_established(e->client));
    assert_int_equal(ttrpc_link_pack_reset(e->client, &bytes, &n), 0);
    ttrpc_link_feed(e->server, bytes, n);
    expect(e->server, LINK_STARTED);
    expect_none(e->server);
    free(bytes);
    assert_int_equal(ttrpc_link_pack_reset_ack(e->server, &bytes, &n), 0);
    ttrpc_link_feed(e->client, bytes, n);
    expect(e->client, LINK_STARTED);
    expect_none(e->client);
    free(bytes);
    assert_true(ttrpc_link_is_established(e->client));
    assert_true(ttrpc_link_is_established(e->server));
}

static void pack(const Link *l, const char *text, uint8_t **ret, size_t *ret_n)
{
    assert_int_equal(ttrpc_link_pack_data(l, (const uint8_t *)text, strlen(text), ret, ret_n), 0);
}

static void test_crc32(void **state)
{
    assert_int_equal(crc32_ieee("123456789", 9), 0xcbf43926);
    assert_int_equal(crc32_ieee("", 0), 0);
}

static void test_session(void **state)
{
    Ends *e = *state;
    uint8_t *bytes;
    size_t n;

    begin(e, 42);
    pack(e->client, "question", &bytes, &n);
    ttrpc_link_feed(e->server, bytes, n);
    expect_data(e->server, "question");
    expect_none(e->server);
    free(bytes);
    pack(e->server, "answer", &bytes, &n);
    ttrpc_link_feed(e->client, bytes, n);
    expect_data(e->client, "answer");
    expect_none(e->client);
    free(bytes);
    assert_int_equal(ttrpc_link_pack_close(e->client, &bytes, &n), 0);
    ttrpc_link_feed(e->server, bytes, n);
    expect(e->server, LINK_CLOSED);
    assert_false(ttrpc_link_is_established(e->server));
    expect_none(e->server);
    free(bytes);
}

static void test_long_data(void **state)
{
    Ends *e = *state;
    size_t size = 3 * LINK_PAYLOAD_MAX + 5, n, done = 0;
    uint8_t *data = malloc(size), *bytes;
    LinkEvent event;

    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7);
    begin(e, 1);
    assert_int_equal(ttrpc_link_pack_data(e->client, data, size, &bytes, &n), 0);
    assert_int_equal(n, size + 4 * LINK_HEADER_SIZE);
    for (size_t at = 0; at < n; at += 1000) {
        ttrpc_link_feed(e->server, bytes + at, n - at < 1000 ? n - at : 1000);
        while (ttrpc_link_next(e->server, &event) == 0) {
            assert_int_equal(event.type, LINK_DATA);
            assert_memory_equal(event.payload, data + done, event.size);
            done += event.size;
        }
    }
    assert_int_equal(done, size);
    free(bytes);
    free(data);
}

/* A killed client leaves the beginning of a frame of any length; the next one's reset still arrives. */
static void test_half_frame(void **state)
{
    Ends *e = *state;
    uint8_t *data = calloc(1, LINK_PAYLOAD_MAX), *bytes, *reset;
    size_t n, n_reset;

    begin(e, 1);
    assert_int_equal(ttrpc_link_pack_data(e->client, data, LINK_PAYLOAD_MAX, &bytes, &n), 0);
    for (size_t cut = 1; cut < n; cut += 97) {
        LinkEvent event;
        unsigned started = 0;

        ttrpc_link_feed(e->server, bytes, cut);
        expect_none(e->server);
        ttrpc_link_start(e->client, 1000 + cut);
        assert_int_equal(ttrpc_link_pack_reset(e->client, &reset, &n_reset), 0);
        ttrpc_link_feed(e->server, reset, n_reset);
        while (ttrpc_link_next(e->server, &event) == 0) {
            assert_int_not_equal(event.type, LINK_DATA);
            started += event.type == LINK_STARTED;
        }
        assert_int_equal(started, 1);
        assert_true(ttrpc_link_is_established(e->server));
        free(reset);
    }
    free(bytes);
    free(data);
}

static void test_other_nonce(void **state)
{
    Ends *e = *state;
    uint8_t *old, *bytes;
    size_t n_old, n;

    begin(e, 1);
    pack(e->client, "old", &old, &n_old);
    begin(e, 2);
    pack(e->client, "new", &bytes, &n);
    ttrpc_link_feed(e->server, old, n_old);
    expect_none(e->server);
    ttrpc_link_feed(e->server, bytes, n);
    expect_data(e->server, "new");
    free(old);
    free(bytes);
}

static void test_damaged(void **state)
{
    Ends *e = *state;
    uint8_t *bytes;
    size_t n;

    begin(e, 1);
    pack(e->client, "words", &bytes, &n);
    bytes[n - 1] ^= 1;
    ttrpc_link_feed(e->server, bytes, n);
    expect(e->server, LINK_BROKEN);
    assert_false(ttrpc_link_is_established(e->server));
    /* The session is over, also for what is intact. */
    bytes[n - 1] ^= 1;
    ttrpc_link_feed(e->server, bytes, n);
    expect_none(e->server);
    free(bytes);
    begin(e, 2);
}

static void test_garbage_between(void **state)
{
    static const uint8_t garbage[] = "CHVLCHVCHVL login: \xff\0\0CHVL";
    Ends *e = *state;
    uint8_t *bytes, *all;
    size_t n;

    begin(e, 1);
    ttrpc_link_end(e->server);
    begin(e, 3);
    assert_int_equal(ttrpc_link_pack_reset(e->client, &bytes, &n), 0);
    all = malloc(sizeof(garbage) + n);
    memcpy(all, garbage, sizeof(garbage));
    memcpy(all + sizeof(garbage), bytes, n);
    ttrpc_link_end(e->server);
    ttrpc_link_feed(e->server, all, sizeof(garbage) + n);
    expect(e->server, LINK_STARTED);
    free(all);
    free(bytes);
}

static void test_data_before_session(void **state)
{
    Ends *e = *state;
    uint8_t *bytes;
    size_t n;

    ttrpc_link_start(e->client, 5);
    pack(e->client, "early", &bytes, &n);
    ttrpc_link_feed(e->server, bytes, n);
    expect_none(e->server);
    free(bytes);
    /* Not even an answer to another client's reset begins a session. */
    begin(e, 6);
    assert_int_equal(ttrpc_link_pack_reset_ack(e->server, &bytes, &n), 0);
    ttrpc_link_start(e->client, 7);
    ttrpc_link_feed(e->client, bytes, n);
    expect_none(e->client);
    assert_false(ttrpc_link_is_established(e->client));
    free(bytes);
}

static void test_stop_forgets(void **state)
{
    Ends *e = *state;
    uint8_t *bytes;
    size_t n;

    begin(e, 1);
    pack(e->client, "words", &bytes, &n);
    ttrpc_link_feed(e->server, bytes, n - 1);
    expect_none(e->server);
    ttrpc_link_stop(e->server);
    ttrpc_link_feed(e->server, bytes + n - 1, 1);
    expect_none(e->server);
    free(bytes);
    begin(e, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32),
        cmocka_unit_test_setup_teardown(test_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_frame, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_nonce, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_data_before_session, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_forgets, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
