/* SPDX-License-Identifier: MIT */

/* The parser of frames, and which frame gets descriptors that come with bytes. */

#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ttrpc/frame.h"

static size_t put_frame(uint8_t *to, uint32_t id, FrameType type, uint8_t flags, const char *payload)
{
    frame_header_pack(to, (uint32_t)strlen(payload), id, type, flags);
    memcpy(to + FRAME_HEADER_SIZE, payload, strlen(payload));
    return FRAME_HEADER_SIZE + strlen(payload);
}

static void feed(FrameParser *p, const uint8_t *bytes, size_t n)
{
    assert_int_equal(frame_parser_feed(p, bytes, n, NULL, 0), 0);
}

static void expect(FrameParser *p, uint32_t id, const char *payload)
{
    Frame f;

    assert_int_equal(frame_parser_next(p, &f), 0);
    assert_int_equal(f.stream_id, id);
    assert_false(f.oversized);
    assert_int_equal(f.size, strlen(payload));
    if (*payload)
        assert_memory_equal(f.payload, payload, strlen(payload));
    else
        assert_null(f.payload);
}

static void expect_none(FrameParser *p)
{
    Frame f;

    assert_int_equal(frame_parser_next(p, &f), 1);
}

static void test_header(void **state)
{
    static const uint8_t wanted[] = {0, 1, 2, 3, 0xa0, 0xb0, 0xc0, 0xd1, 2, 5};
    uint8_t header[FRAME_HEADER_SIZE];

    frame_header_pack(header, 0x010203, 0xa0b0c0d1, FRAME_RESPONSE, FRAME_REMOTE_CLOSED | FRAME_NO_DATA);
    assert_memory_equal(header, wanted, sizeof(wanted));
}

static void test_several(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = 0;

    n += put_frame(bytes + n, 1, FRAME_REQUEST, 0, "one");
    n += put_frame(bytes + n, 3, FRAME_DATA, FRAME_NO_DATA, "");
    n += put_frame(bytes + n, 5, FRAME_RESPONSE, 0, "three");
    feed(&p, bytes, n);
    expect(&p, 1, "one");
    expect(&p, 3, "");
    expect(&p, 5, "three");
    expect_none(&p);
    frame_parser_clear(&p);
}

static void test_bytewise(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 7, FRAME_REQUEST, 0, "in pieces");

    n += put_frame(bytes + n, 9, FRAME_REQUEST, 0, "");
    for (size_t i = 0; i < n; i++) {
        expect_none(&p);
        feed(&p, bytes + i, 1);
        if (i + 1 == n - FRAME_HEADER_SIZE)
            expect(&p, 7, "in pieces");
    }
    expect(&p, 9, "");
    expect_none(&p);
    frame_parser_clear(&p);
}

/* What is too long is announced and passed over, and costs no memory. */
static void test_oversized(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    size_t left = FRAME_PAYLOAD_MAX + 1;
    uint8_t header[FRAME_HEADER_SIZE], piece[65536] = {0}, bytes[100];
    Frame f;

    frame_header_pack(header, FRAME_PAYLOAD_MAX + 1, 1, FRAME_REQUEST, 0);
    feed(&p, header, sizeof(header));
    expect_none(&p);
    for (; left > sizeof(piece); left -= sizeof(piece)) {
        feed(&p, piece, sizeof(piece));
        expect_none(&p);
        assert_int_equal(p.allocated, 0);
    }
    feed(&p, piece, left);
    assert_int_equal(frame_parser_next(&p, &f), 0);
    assert_true(f.oversized);
    assert_null(f.payload);
    assert_int_equal(f.size, FRAME_PAYLOAD_MAX + 1);
    feed(&p, bytes, put_frame(bytes, 3, FRAME_REQUEST, 0, "next"));
    expect(&p, 3, "next");
    frame_parser_clear(&p);
}

/* A header that promises 4 MiB takes as much memory as has arrived. */
static void test_memory_follows_arrival(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t header[FRAME_HEADER_SIZE], piece[10000] = {0};

    frame_header_pack(header, FRAME_PAYLOAD_MAX, 1, FRAME_REQUEST, 0);
    feed(&p, header, sizeof(header));
    expect_none(&p);
    assert_int_equal(p.allocated, 0);
    feed(&p, piece, sizeof(piece));
    expect_none(&p);
    assert_in_range(p.allocated, sizeof(piece), 2 * sizeof(piece));
    frame_parser_clear(&p);
}

/* ------------------------------------------------------------------------------------------------
 * descriptors */

/* Descriptors on the write end of a pipe, whose closing the read end tells. */
static int pipe_fds[2];

static int make_pipe(void **state)
{
    return pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK);
}

static int close_pipe(void **state)
{
    char c;
    ssize_t n;

    close(pipe_fds[1]);
    n = read(pipe_fds[0], &c, 1);
    close(pipe_fds[0]);
    /* End of file: nobody has one left. */
    return n == 0 ? 0 : -1;
}

static int new_fd(void)
{
    return fcntl(pipe_fds[1], F_DUPFD_CLOEXEC, 3);
}

static size_t take_fds(FrameParser *p)
{
    size_t n;
    int *fds = frame_parser_take_fds(p, &n);

    for (size_t i = 0; i < n; i++)
        close(fds[i]);
    free(fds);
    return n;
}

/* They belong to the last frame that begins in the bytes they came with. */
static void test_fds_of_last(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 1, FRAME_REQUEST, 0, "first");
    int fds[2] = {new_fd(), new_fd()};

    n += put_frame(bytes + n, 3, FRAME_REQUEST, 0, "second");
    assert_int_equal(frame_parser_feed(&p, bytes, n, fds, 2), 0);
    expect(&p, 1, "first");
    assert_int_equal(take_fds(&p), 0);
    expect(&p, 3, "second");
    assert_int_equal(take_fds(&p), 2);
    assert_int_equal(take_fds(&p), 0);
    expect_none(&p);
    frame_parser_clear(&p);
}

/* Also when that frame is completed later, with other bytes. */
static void test_fds_of_incomplete(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 1, FRAME_REQUEST, 0, "in two");
    int fd = new_fd();

    assert_int_equal(frame_parser_feed(&p, bytes, 5, &fd, 1), 0);
    expect_none(&p);
    feed(&p, bytes + 5, n - 5);
    expect(&p, 1, "in two");
    assert_int_equal(take_fds(&p), 1);
    frame_parser_clear(&p);
}

static void test_fds_without_beginning(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 1, FRAME_REQUEST, 0, "in two");
    int fd = new_fd();

    feed(&p, bytes, 5);
    expect_none(&p);
    assert_int_equal(frame_parser_feed(&p, bytes + 5, n - 5, &fd, 1), 0);
    expect(&p, 1, "in two");
    assert_int_equal(take_fds(&p), 0);
    frame_parser_clear(&p);
}

/* Nobody takes them: the next call closes them. */
static void test_fds_unwanted(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 1, FRAME_REQUEST, 0, "x");
    int fd = new_fd();

    assert_int_equal(frame_parser_feed(&p, bytes, n, &fd, 1), 0);
    expect(&p, 1, "x");
    expect_none(&p);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    frame_parser_clear(&p);
}

static void test_too_many_fds(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    size_t n = put_frame(bytes, 1, FRAME_REQUEST, 0, "x");
    int fds[FRAME_FDS_MAX + 1];

    for (unsigned i = 0; i <= FRAME_FDS_MAX; i++)
        fds[i] = new_fd();
    assert_int_equal(frame_parser_feed(&p, bytes, n, fds, FRAME_FDS_MAX + 1), 0);
    expect(&p, 1, "x");
    assert_int_equal(take_fds(&p), 0);
    frame_parser_clear(&p);
}

static void test_fds_of_cleared(void **state)
{
    FrameParser p = FRAME_PARSER_INIT;
    uint8_t bytes[100];
    int fd = new_fd();

    put_frame(bytes, 1, FRAME_REQUEST, 0, "x");
    assert_int_equal(frame_parser_feed(&p, bytes, 4, &fd, 1), 0);
    expect_none(&p);
    frame_parser_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_bytewise),
        cmocka_unit_test(test_oversized),
        cmocka_unit_test(test_memory_follows_arrival),
        cmocka_unit_test_setup_teardown(test_fds_of_last, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_fds_of_incomplete, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_fds_without_beginning, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_fds_unwanted, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_too_many_fds, make_pipe, close_pipe),
        cmocka_unit_test_setup_teardown(test_fds_of_cleared, make_pipe, close_pipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
