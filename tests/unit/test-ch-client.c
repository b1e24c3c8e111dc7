/* SPDX-License-Identifier: MIT */

/* Requests and their answers, with a server that is slow, broken, half-closed or gone. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "vmm/ch-client.h"

typedef struct Test {
    Loop *loop;
    ChClient *client;
    int server;
    unsigned n_answers, n_closed;
    char order[16]; /* what was answered: the userdata's letters */
    int number, closed_number;
    char text[512]; /* the last answer's value, or error */
    bool free_in_answer;
} Test;

typedef struct Asked {
    Test *test;
    char letter;
} Asked;

static Asked asked[4];

static void on_closed(ChClient *client, const Error *e, void *userdata)
{
    Test *t = userdata;

    t->n_closed++;
    t->closed_number = e->number;
    snprintf(t->text, sizeof(t->text), "%s", error_message(e));
}

static void on_answer(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    Asked *a = userdata;
    Test *t = a->test;

    t->order[t->n_answers++] = a->letter;
    t->number = e ? e->number : 0;
    if (e) {
        snprintf(t->text, sizeof(t->text), "%s", error_message(e));
    } else {
        _cleanup_free_ char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

        snprintf(t->text, sizeof(t->text), "%s", text ?: "");
    }
    if (t->free_in_answer)
        t->client = ch_client_free(t->client);
}

static int setup(void **state)
{
    static Test t;
    int fds[2];

    t = (Test){0};
    for (unsigned i = 0; i < ELEMENTSOF(asked); i++)
        asked[i] = (Asked){&t, (char)('a' + i)};
    assert_int_equal(loop_new(&t.loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    t.server = fds[1];
    assert_int_equal(ch_client_new(t.loop, fds[0], on_closed, &t, &t.client), 0);
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    Test *t = *state;

    ch_client_free(t->client);
    if (t->server >= 0)
        close(t->server);
    loop_free(t->loop);
    return 0;
}

static void settle(Test *t)
{
    while (loop_run_once(t->loop, 20 * USEC_PER_MSEC) > 0)
        ;
}

static void say(Test *t, const char *text)
{
    assert_int_equal(write(t->server, text, strlen(text)), (ssize_t)strlen(text));
    settle(t);
}

/* What the server has received since the last time. */
static void assert_received(Test *t, const char *begin)
{
    char buffer[4096] = "";
    ssize_t k;

    settle(t);
    k = read(t->server, buffer, sizeof(buffer) - 1);
    if (k < 0) {
        assert_int_equal(errno, EAGAIN);
        assert_null(begin);
        return;
    }
    if (!begin)
        fail_msg("received \"%s\"", buffer);
    assert_int_equal(strncmp(buffer, begin, strlen(begin)), 0);
    /* One request, and not the next one's begin. */
    assert_null(strstr(buffer + 4, "HTTP/1.1\r\n") ? strstr(strstr(buffer + 4, "HTTP/1.1\r\n") + 1, "HTTP/1.1") : NULL);
}

static void ask(Test *t, unsigned which, const char *name, uint64_t deadline)
{
    assert_int_equal(ch_client_get(t->client, name, deadline, on_answer, &asked[which]), 0);
}

#define EMPTY "HTTP/1.1 204 \r\n\r\n"

static void test_one_after_another(void **state)
{
    Test *t = *state;

    ask(t, 0, "vmm.ping", UINT64_MAX);
    ask(t, 1, "vm.info", UINT64_MAX);
    assert_int_equal(ch_client_put(t->client, "vm.resize", json_pack("{s:i}", "desired_vcpus", 2), -EBADF, UINT64_MAX,
                                   on_answer, &asked[2]),
                     0);
    assert_received(t, "GET /api/v1/vmm.ping HTTP/1.1\r\n");
    assert_received(t, NULL);
    say(t, "HTTP/1.1 200 \r\nContent-Length: 11\r\n\r\n{\"pid\": 7}\n");
    assert_string_equal(t->text, "{\"pid\":7}");
    assert_received(t, "GET /api/v1/vm.info HTTP/1.1\r\n");
    say(t, "HTTP/1.1 204");
    assert_int_equal(t->n_answers, 1);
    say(t, " \r\n\r\n");
    assert_int_equal(t->n_answers, 2);
    assert_string_equal(t->text, "");
    assert_received(t, "PUT /api/v1/vm.resize HTTP/1.1\r\n");
    say(t, "HTTP/1.1 500 \r\nContent-Length: 41\r\n\r\n[\"Error from API\",\"cannot\",7,\"x\\u001b[3\"]");
    assert_string_equal(t->text, "Cloud Hypervisor refused vm.resize (HTTP 500): Error from API: cannot: x");
    assert_int_equal(t->number, -EREMOTEIO);
    assert_string_equal(t->order, "abc");
}

static void test_descriptor(void **state)
{
    Test *t = *state;
    char buffer[1024];
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = buffer, .iov_len = sizeof(buffer)};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int pipe_fds[2], received;
    ssize_t k;

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(ch_client_put(t->client, "vm.add-net", json_pack("{s:s}", "id", "a"), pipe_fds[1], UINT64_MAX,
                                   on_answer, &asked[0]),
                     0);
    close(pipe_fds[1]);
    settle(t);
    /* It comes with the whole request. */
    k = recvmsg(t->server, &mh, 0);
    assert_true(k > 0);
    assert_int_equal(memcmp(buffer + k - 10, "{\"id\":\"a\"}", 10), 0);
    assert_non_null(CMSG_FIRSTHDR(&mh));
    assert_int_equal(CMSG_FIRSTHDR(&mh)->cmsg_len, CMSG_LEN(sizeof(int)));
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
    assert_int_equal(write(received, "x", 1), 1);
    close(received);
    /* And nobody keeps it. */
    assert_int_equal(read(pipe_fds[0], buffer, 2), 1);
    assert_int_equal(read(pipe_fds[0], buffer, 2), 0);
    close(pipe_fds[0]);
    say(t, EMPTY);
    assert_int_equal(t->n_answers, 1);
}

/* A late answer is told from the next one's, and a request that was not sent never is. */
static void test_deadlines(void **state)
{
    Test *t = *state;
    uint64_t now = loop_now();

    ask(t, 0, "vm.pause", now + 50 * USEC_PER_MSEC);
    ask(t, 1, "vm.resume", now + 300 * USEC_PER_MSEC);
    ask(t, 2, "vm.info", UINT64_MAX);
    assert_received(t, "GET /api/v1/vm.pause");
    while (t->n_answers < 2)
        assert_true(loop_run_once(t->loop, USEC_PER_SEC) >= 0);
    assert_int_equal(t->number, -ETIMEDOUT);
    assert_received(t, NULL);
    say(t, EMPTY);
    assert_int_equal(t->n_answers, 2);
    assert_received(t, "GET /api/v1/vm.info");
    say(t, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}");
    assert_int_equal(t->n_answers, 3);
    assert_string_equal(t->order, "abc");
    assert_string_equal(t->text, "{}");
}

static void assert_lost(Test *t, int number, const char *words)
{
    settle(t);
    assert_int_equal(t->n_answers, 2);
    assert_int_equal(t->number, -ECONNRESET);
    assert_int_equal(t->n_closed, 1);
    assert_int_equal(t->closed_number, number);
    if (!strstr(t->text, words))
        fail_msg("\"%s\" is not in \"%s\"", words, t->text);
    assert_int_equal(ch_client_get(t->client, "vm.info", UINT64_MAX, on_answer, &asked[2]), -ECONNRESET);
}

static void test_server_dies(void **state)
{
    Test *t = *state;

    ask(t, 0, "vm.info", UINT64_MAX);
    ask(t, 1, "vm.info", UINT64_MAX);
    close(t->server);
    t->server = -1;
    assert_lost(t, -ECONNRESET, "API socket");
}

/* In the middle of an answer, and its other direction still open. */
static void test_server_half_closed(void **state)
{
    Test *t = *state;

    ask(t, 0, "vm.info", UINT64_MAX);
    ask(t, 1, "vm.info", UINT64_MAX);
    say(t, "HTTP/1.1 200 \r\nContent-Length: 20\r\n\r\n{\"half\":");
    assert_int_equal(shutdown(t->server, SHUT_WR), 0);
    assert_lost(t, -ECONNRESET, "closed its API socket");
}

static void test_server_says_close(void **state)
{
    Test *t = *state;

    ask(t, 0, "vm.info", UINT64_MAX);
    ask(t, 1, "vm.info", UINT64_MAX);
    say(t, "HTTP/1.1 204 \r\nConnection: close\r\n\r\n");
    assert_lost(t, -ECONNRESET, "closes its API socket");
    assert_string_equal(t->order, "ab");
}

static void test_nonsense(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"SSH-2.0-OpenSSH\r\n\r\n", "no status line"},
        {"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n{", "is not JSON"},
        {EMPTY EMPTY, "answers what was not asked"},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Test *t = *state;

        ask(t, 0, "vm.info", UINT64_MAX);
        ask(t, 1, "vm.info", UINT64_MAX);
        say(t, cases[i].text);
        assert_lost(t, -EBADMSG, cases[i].words);
        teardown(state);
        setup(state);
    }
}

static void test_unasked(void **state)
{
    Test *t = *state;

    say(t, EMPTY);
    assert_int_equal(t->n_closed, 1);
    assert_int_equal(t->closed_number, -EBADMSG);
}

static void test_freed_in_answer(void **state)
{
    Test *t = *state;

    t->free_in_answer = true;
    ask(t, 0, "vm.info", UINT64_MAX);
    ask(t, 1, "vm.info", UINT64_MAX);
    settle(t);
    say(t, EMPTY);
    assert_int_equal(t->n_answers, 1);
    assert_null(t->client);
}

static void test_too_many(void **state)
{
    Test *t = *state;
    int r = 0;

    for (int i = 0; i < 1000 && r >= 0; i++)
        r = ch_client_get(t->client, "vm.info", UINT64_MAX, NULL, NULL);
    assert_int_equal(r, -ENOBUFS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_after_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_half_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_says_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unasked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_in_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
