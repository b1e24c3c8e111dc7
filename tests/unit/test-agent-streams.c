/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "agent/streams.h"

typedef struct Result {
    int calls, number;
    size_t n;
    bool eof;
    char data[1024];
} Result;

typedef struct Fixture {
    Loop *loop;
    OutputStream *output;
    InputStream *input;
    int fd; /* the process's end */
} Fixture;

static void on_output(int number, const void *data, size_t n, bool eof, void *userdata)
{
    Result *r = userdata;

    r->calls++;
    r->number = number;
    r->n = n;
    r->eof = eof;
    if (n > 0)
        memcpy(r->data, data, n < sizeof(r->data) ? n : sizeof(r->data));
}

static void on_input(int number, void *userdata)
{
    Result *r = userdata;

    r->calls++;
    r->number = number;
}

static int setup_output(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(output_stream_new(f->loop, fds[0], &f->output), 0);
    f->fd = fds[1];
    *state = f;
    return 0;
}

static int setup_input(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(input_stream_new(f->loop, fds[1], &f->input), 0);
    f->fd = fds[0];
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    output_stream_free(f->output);
    input_stream_free(f->input);
    if (f->fd >= 0)
        close(f->fd);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void turn(Fixture *f)
{
    while (loop_run_once(f->loop, 0) > 0)
        ;
}

static void assert_data(const Result *r, const char *text, bool eof)
{
    assert_int_equal(r->calls, 1);
    assert_int_equal(r->number, 0);
    assert_int_equal(r->n, strlen(text));
    assert_memory_equal(r->data, text, strlen(text));
    assert_int_equal(r->eof, eof);
}

static void test_read_waits_and_acknowledges(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0}, c = {0}, d = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    turn(f);
    assert_int_equal(a.calls, 0);
    assert_int_equal(write(f->fd, "hello", 5), 5);
    turn(f);
    assert_data(&a, "hello", false);
    /* Not acknowledged: the same again, also after more has come. */
    assert_int_equal(write(f->fd, "more", 4), 4);
    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &b), 0);
    assert_data(&b, "hello", false);
    assert_int_equal(output_stream_read(f->output, 2, 0, on_output, &c), 0);
    assert_data(&c, "llo", false);
    assert_int_equal(output_stream_read(f->output, 5, 0, on_output, &d), 0);
    assert_data(&d, "more", false);
}

static void test_offsets_out_of_range(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0};

    assert_int_equal(write(f->fd, "hello", 5), 5);
    assert_int_equal(output_stream_read(f->output, 1, 0, on_output, &a), -ERANGE);
    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    assert_int_equal(output_stream_read(f->output, 6, 0, on_output, &b), -ERANGE);
    assert_int_equal(output_stream_read(f->output, 3, 0, on_output, &b), 0);
    assert_int_equal(output_stream_read(f->output, 2, 0, on_output, &b), -ERANGE);
    assert_int_equal(output_stream_read(f->output, UINT64_MAX, 0, on_output, &b), -ERANGE);
    assert_int_equal(b.calls, 1);
}

static void test_small_pieces(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0}, c = {0};

    assert_int_equal(write(f->fd, "hello", 5), 5);
    f->fd = (close(f->fd), -1);
    assert_int_equal(output_stream_read(f->output, 0, 2, on_output, &a), 0);
    assert_data(&a, "he", false);
    assert_int_equal(output_stream_read(f->output, 2, 100, on_output, &b), 0);
    assert_data(&b, "llo", false);
    assert_int_equal(output_stream_read(f->output, 5, 100, on_output, &c), 0);
    assert_data(&c, "", true);
    c.calls = 0;
    assert_int_equal(output_stream_read(f->output, 5, 100, on_output, &c), 0);
    assert_data(&c, "", true);
}

static void test_end_while_waiting(void **state)
{
    Fixture *f = *state;
    Result a = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    f->fd = (close(f->fd), -1);
    turn(f);
    assert_data(&a, "", true);
}

static void test_second_reader_takes_over(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &b), 0);
    assert_int_equal(a.number, -ECANCELED);
    assert_int_equal(write(f->fd, "x", 1), 1);
    turn(f);
    assert_int_equal(a.calls, 1);
    assert_data(&b, "x", false);
}

static void test_nothing_is_read_unasked(void **state)
{
    static const char block[4096];
    Fixture *f = *state;
    Result a = {0};

    while (write(f->fd, block, sizeof(block)) > 0)
        continue;
    assert_int_equal(errno, EAGAIN);
    turn(f);
    assert_int_equal(write(f->fd, block, 1), -1);
    /* What was not asked for wakes nobody up. */
    assert_int_equal(loop_run_once(f->loop, 0), 0);
    assert_int_equal(output_stream_read(f->output, 0, 100, on_output, &a), 0);
    assert_int_equal(a.n, 100);
    output_stream_cancel(f->output);
}

static void test_cancel_loses_nothing(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    output_stream_cancel(f->output);
    assert_int_equal(write(f->fd, "x", 1), 1);
    turn(f);
    assert_int_equal(a.calls, 0);
    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &b), 0);
    assert_data(&b, "x", false);
}

static void test_finish_with_a_writer_left(void **state)
{
    Fixture *f = *state;
    Result a = {0}, b = {0};

    assert_int_equal(write(f->fd, "x", 1), 1);
    output_stream_finish(f->output);
    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    assert_data(&a, "x", false);
    assert_int_equal(output_stream_read(f->output, 1, 0, on_output, &b), 0);
    assert_data(&b, "", true);
}

static void test_finish_ends_a_waiting_read(void **state)
{
    Fixture *f = *state;
    Result a = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    output_stream_finish(f->output);
    assert_data(&a, "", true);
}

static void test_free_ends_a_waiting_read(void **state)
{
    Fixture *f = *state;
    Result a = {0};

    assert_int_equal(output_stream_read(f->output, 0, 0, on_output, &a), 0);
    f->output = output_stream_free(f->output);
    assert_int_equal(a.number, -ECANCELED);
}

static void test_write(void **state)
{
    Fixture *f = *state;
    Result a = {0};
    char buffer[16];

    assert_int_equal(input_stream_write(f->input, 0, "hello", 5, on_input, &a), 0);
    assert_int_equal(a.calls, 1);
    /* Repeated, in part and whole, and then more. */
    assert_int_equal(input_stream_write(f->input, 0, "hello", 5, on_input, &a), 0);
    assert_int_equal(input_stream_write(f->input, 3, "lo!", 3, on_input, &a), 0);
    assert_int_equal(a.calls, 3);
    assert_int_equal(a.number, 0);
    assert_int_equal(read(f->fd, buffer, sizeof(buffer)), 6);
    assert_memory_equal(buffer, "hello!", 6);
    assert_int_equal(input_stream_write(f->input, 7, "x", 1, on_input, &a), -ERANGE);
    assert_int_equal(a.calls, 3);
    input_stream_close(f->input);
    assert_int_equal(read(f->fd, buffer, sizeof(buffer)), 0);
    assert_int_equal(input_stream_write(f->input, 6, "x", 1, on_input, &a), 0);
    assert_int_equal(a.number, -EPIPE);
}

/* Fills the pipe: the write waits, and goes on as the process reads. */
static void test_back_pressure(void **state)
{
    enum { SIZE = 300 * 1024 };
    _cleanup_free_ char *data = malloc(SIZE), *got = malloc(SIZE);
    Fixture *f = *state;
    Result a = {0};
    size_t n = 0;

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 7 + i / 1000);
    assert_int_equal(input_stream_write(f->input, 0, data, SIZE, on_input, &a), 0);
    turn(f);
    assert_int_equal(a.calls, 0);
    /* The end waits for what was taken before it. */
    input_stream_close(f->input);
    while (n < SIZE) {
        ssize_t k = read(f->fd, got + n, SIZE - n);

        assert_true(k > 0);
        n += (size_t)k;
        turn(f);
    }
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.number, 0);
    assert_memory_equal(data, got, SIZE);
    assert_int_equal(read(f->fd, got, 1), 0);
}

/* A client that died in the middle of a write, and the next one, which repeats it. */
static void test_interrupted_write_is_repeated(void **state)
{
    enum { SIZE = 100 * 1024 };
    _cleanup_free_ char *data = calloc(1, SIZE), *got = malloc(SIZE);
    Fixture *f = *state;
    Result a = {0}, b = {0};
    size_t n = 0;

    data[SIZE - 1] = 'z';
    assert_int_equal(input_stream_write(f->input, 0, data, SIZE, on_input, &a), 0);
    input_stream_cancel(f->input);
    assert_int_equal(input_stream_write(f->input, 0, data, SIZE, on_input, &b), 0);
    while (n < SIZE) {
        ssize_t k = read(f->fd, got + n, SIZE - n);

        assert_true(k > 0);
        n += (size_t)k;
        turn(f);
    }
    assert_int_equal(a.calls, 0);
    assert_int_equal(b.calls, 1);
    assert_int_equal(got[SIZE - 1], 'z');
    assert_int_equal(read(f->fd, got, 1), -1);
}

static void test_reader_gone(void **state)
{
    enum { SIZE = 100 * 1024 };
    _cleanup_free_ char *data = calloc(1, SIZE);
    Fixture *f = *state;
    Result a = {0};

    assert_int_equal(input_stream_write(f->input, 0, data, SIZE, on_input, &a), 0);
    f->fd = (close(f->fd), -1);
    turn(f);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.number, -EPIPE);
}

#define OUTPUT(t) cmocka_unit_test_setup_teardown(t, setup_output, teardown)
#define INPUT(t) cmocka_unit_test_setup_teardown(t, setup_input, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        OUTPUT(test_read_waits_and_acknowledges),
        OUTPUT(test_offsets_out_of_range),
        OUTPUT(test_small_pieces),
        OUTPUT(test_end_while_waiting),
        OUTPUT(test_second_reader_takes_over),
        OUTPUT(test_nothing_is_read_unasked),
        OUTPUT(test_cancel_loses_nothing),
        OUTPUT(test_finish_with_a_writer_left),
        OUTPUT(test_finish_ends_a_waiting_read),
        OUTPUT(test_free_ends_a_waiting_read),
        INPUT(test_write),
        INPUT(test_back_pressure),
        INPUT(test_interrupted_write_is_repeated),
        INPUT(test_reader_gone),
    };

    /* As the agent has it. */
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
