/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/fs.h"
#include "shim/io.h"

/* An agent with one process: its output is given, its input is kept. */
typedef struct Fake {
    Loop *loop;
    TtrpcServer *server;
    TtrpcClient *client;
    char directory[64], out[96], in[96];
    const uint8_t *output;
    size_t n_output;
    bool output_open; /* more may come: no end of file yet */
    TtrpcCall *reader;
    uint64_t reader_offset;
    uint64_t acknowledged;
    char input[256];
    size_t n_input;
    bool input_closed, drained;
} Fake;

static void answer_reader(Fake *f)
{
    Cloudhv__Agent__V1__ReadStreamResponse response = CLOUDHV__AGENT__V1__READ_STREAM_RESPONSE__INIT;
    size_t left = f->n_output - f->reader_offset, n = left < 50000 ? left : 50000;

    if (!f->reader || (n == 0 && f->output_open))
        return;
    response.data.data = (uint8_t *)f->output + f->reader_offset;
    response.data.len = n;
    response.eof = n == left && !f->output_open;
    ttrpc_call_reply(TAKE_PTR(f->reader), &response.base);
}

static void on_reader_gone(TtrpcCall *call, void *userdata)
{
    ((Fake *)userdata)->reader = NULL;
    ttrpc_call_fail(call, TTRPC_CANCELED, "gone");
}

static void handle_read(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Agent__V1__ReadStreamRequest *request = (const Cloudhv__Agent__V1__ReadStreamRequest *)message;
    Fake *f = userdata;

    assert_string_equal(request->id, "c");
    assert_int_equal(request->stream, CLOUDHV__AGENT__V1__STREAM__STREAM_STDOUT);
    assert_null(f->reader);
    assert_true(request->offset <= f->n_output);
    f->reader = call;
    f->reader_offset = f->acknowledged = request->offset;
    ttrpc_call_set_cancel(call, on_reader_gone, f);
    answer_reader(f);
}

static void handle_write(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Cloudhv__Agent__V1__WriteStreamRequest *request = (const Cloudhv__Agent__V1__WriteStreamRequest *)message;
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;
    Fake *f = userdata;

    assert_int_equal(request->offset, f->n_input);
    assert_true(f->n_input + request->data.len <= sizeof(f->input));
    memcpy(f->input + f->n_input, request->data.data, request->data.len);
    f->n_input += request->data.len;
    ttrpc_call_reply(call, &empty.base);
}

static void handle_close(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;

    ((Fake *)userdata)->input_closed = true;
    ttrpc_call_reply(call, &empty.base);
}

static size_t method_index(const char *name)
{
    const ProtobufCServiceDescriptor *d = &cloudhv__agent__v1__task__descriptor;

    for (unsigned i = 0; i < d->n_methods; i++)
        if (strcmp(d->methods[i].name, name) == 0)
            return i;
    fail();
    return 0;
}

static int setup(void **state)
{
    static TtrpcHandler handlers[64];
    Fake *f = calloc(1, sizeof(*f));
    int fds[2];

    strcpy(f->directory, "/tmp/test-shim-io.XXXXXX");
    if (!mkdtemp(f->directory) || loop_new(&f->loop) < 0)
        return -1;
    snprintf(f->out, sizeof(f->out), "%s/out", f->directory);
    snprintf(f->in, sizeof(f->in), "%s/in", f->directory);
    assert_int_equal(mkfifo(f->out, 0600), 0);
    assert_int_equal(mkfifo(f->in, 0600), 0);
    assert_true(cloudhv__agent__v1__task__descriptor.n_methods <= ELEMENTSOF(handlers));
    handlers[method_index("ReadStream")] = handle_read;
    handlers[method_index("WriteStream")] = handle_write;
    handlers[method_index("CloseStdin")] = handle_close;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(ttrpc_server_new(f->loop, &f->server), 0);
    assert_int_equal(ttrpc_server_add_service(f->server, NULL, &cloudhv__agent__v1__task__descriptor, handlers, f), 0);
    assert_int_equal(ttrpc_server_add_connection(f->server, fds[0]), 0);
    assert_int_equal(ttrpc_client_new(f->loop, fds[1], &f->client), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fake *f = *state;

    ttrpc_client_free(f->client);
    ttrpc_server_free(f->server);
    loop_free(f->loop);
    fs_remove_tree(f->directory);
    free(f);
    return 0;
}

static void on_drained(void *userdata)
{
    ((Fake *)userdata)->drained = true;
}

static Stdio *make(Fake *f, const char *in, const char *out)
{
    StdioSpec spec = {.id = "c", .exec_id = "", .stdin_path = in, .stdout_path = out, .stderr_path = ""};
    Stdio *io = NULL;

    assert_int_equal(stdio_new(f->loop, &spec, on_drained, f, &io, NULL), 0);
    assert_int_equal(stdio_start(io, f->client), 0);
    assert_int_equal(stdio_start_input(io, NULL), 0);
    return io;
}

static void run(Fake *f, int turns)
{
    for (int i = 0; i < turns; i++)
        assert_true(loop_run_once(f->loop, 20 * USEC_PER_MSEC) >= 0);
}

/* Far more than a FIFO holds: nothing is lost, and no more is asked for than the reader took. */
static void test_slow_reader(void **state)
{
    enum { SIZE = 1000000 };
    _cleanup_free_ uint8_t *data = malloc(SIZE), *got = malloc(SIZE);
    _cleanup_close_ int reader = -EBADF;
    Fake *f = *state;
    size_t n = 0;

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 7919 >> 8);
    f->output = data;
    f->n_output = SIZE;
    reader = open(f->out, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    _cleanup_(stdio_freep) Stdio *io = make(f, "", f->out);
    run(f, 20);
    assert_true(f->acknowledged <= 200000);
    stdio_process_ended(io);
    while (n < SIZE) {
        ssize_t k = read(reader, got + n, SIZE - n < 3000 ? SIZE - n : 3000);

        assert_true(k != 0);
        if (k < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_false(f->drained);
            run(f, 1);
        } else {
            n += (size_t)k;
        }
    }
    assert_memory_equal(data, got, SIZE);
    while (!f->drained)
        run(f, 1);
    /* And then the end of file. */
    assert_int_equal(read(reader, got, 1), 0);
}

/* Output that ended before its process counts as well. */
static void test_output_ends_first(void **state)
{
    _cleanup_close_ int reader = -EBADF;
    Fake *f = *state;
    char got[16];

    f->output = (const uint8_t *)"hello";
    f->n_output = 5;
    reader = open(f->out, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    _cleanup_(stdio_freep) Stdio *io = make(f, "", f->out);
    run(f, 5);
    assert_int_equal(read(reader, got, sizeof(got)), 5);
    run(f, 5);
    assert_false(f->drained);
    stdio_process_ended(io);
    run(f, 2);
    assert_true(f->drained);
}

/* What nobody has read yet holds the end back: containerd stops reading when it hears of the exit. */
static void test_waits_for_the_reader(void **state)
{
    _cleanup_close_ int reader = -EBADF;
    Fake *f = *state;
    char got[16];

    f->output = (const uint8_t *)"hello";
    f->n_output = 5;
    _cleanup_(stdio_freep) Stdio *io = make(f, "", f->out);
    stdio_process_ended(io);
    run(f, 10);
    assert_false(f->drained);
    /* containerd is back from a restart */
    reader = open(f->out, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(reader, got, sizeof(got)), 5);
    run(f, 5);
    assert_true(f->drained);
    assert_int_equal(read(reader, got, sizeof(got)), 0);
}

static void test_end_without_output(void **state)
{
    Fake *f = *state;
    _cleanup_(stdio_freep) Stdio *io = make(f, "", "");

    stdio_process_ended(io);
    assert_false(f->drained);
    run(f, 2);
    assert_true(f->drained);
}

static void test_lost_agent(void **state)
{
    Fake *f = *state;

    f->output_open = true;
    _cleanup_(stdio_freep) Stdio *io = make(f, f->in, f->out);
    run(f, 3);
    stdio_abandon(io);
    stdio_process_ended(io);
    run(f, 2);
    assert_true(f->drained);
}

static void test_input(void **state)
{
    _cleanup_close_ int writer = -EBADF;
    Fake *f = *state;

    f->output_open = true;
    _cleanup_(stdio_freep) Stdio *io = make(f, f->in, f->out);
    writer = open(f->in, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(writer >= 0);
    assert_int_equal(write(writer, "one", 3), 3);
    run(f, 5);
    assert_int_equal(f->n_input, 3);
    /* A client that goes away is not the end of the input … */
    writer = fd_close(writer);
    run(f, 5);
    assert_false(f->input_closed);
    writer = open(f->in, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_int_equal(write(writer, "two", 3), 3);
    /* … but CloseIO is, once what was written before has arrived. */
    stdio_close_stdin(io);
    writer = fd_close(writer);
    for (int i = 0; i < 100 && !f->input_closed; i++)
        run(f, 1);
    assert_true(f->input_closed);
    assert_int_equal(f->n_input, 6);
    assert_memory_equal(f->input, "onetwo", 6);
}

static void test_refused(void **state)
{
    StdioSpec spec = {.id = "c", .exec_id = "", .stdin_path = "", .stdout_path = "binary:///bin/log", .stderr_path = ""};
    _cleanup_error_ Error e = ERROR_INIT;
    Fake *f = *state;
    Stdio *io = NULL;

    assert_int_equal(stdio_new(f->loop, &spec, on_drained, f, &io, &e), -EOPNOTSUPP);
    assert_non_null(strstr(e.message, "binary:///bin/log"));
    spec.stdout_path = "/nonexistent/fifo";
    assert_int_equal(stdio_new(f->loop, &spec, on_drained, f, &io, &e), -ENOENT);
    assert_null(io);
}

static void test_file(void **state)
{
    _cleanup_free_ char *uri = NULL, *text = NULL, *path = NULL;
    Fake *f = *state;

    path = string_printf("%s/file", f->directory);
    uri = string_printf("file://%s", path);
    f->output = (const uint8_t *)"hello";
    f->n_output = 5;
    _cleanup_(stdio_freep) Stdio *io = make(f, "", uri);
    stdio_process_ended(io);
    for (int i = 0; i < 100 && !f->drained; i++)
        run(f, 1);
    assert_true(f->drained);
    assert_int_equal(fs_read_file(path, 100, &text, NULL), 0);
    assert_string_equal(text, "hello");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_ends_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waits_for_the_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_without_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_agent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
