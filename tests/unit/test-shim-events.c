/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/fs.h"
#include "containerd-events.pb-c.h"
#include "shim/events.h"
#include "ttrpc/ttrpc.h"

/* A containerd that takes events, and can be away. */
typedef struct Fake {
    Loop *loop;
    TtrpcServer *server;
    char directory[64], path[96];
    char seen[64][32]; /* container ids, in the order of arrival */
    size_t n_seen;
    TtrpcCode answer; /* for the next event; afterwards OK */
    bool flushed;
} Fake;

static void handle_forward(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__ForwardRequest *request = (const Containerd__ForwardRequest *)message;
    Containerd__Empty empty = CONTAINERD__EMPTY__INIT;
    Containerd__TaskStart *start;
    Fake *f = userdata;

    assert_string_equal(request->envelope->namespace_, "ns");
    assert_string_equal(request->envelope->topic, "/tasks/start");
    assert_string_equal(request->envelope->event->type_url, "containerd.events.TaskStart");
    assert_true(request->envelope->timestamp->seconds > 1600000000);
    start = containerd__task_start__unpack(NULL, request->envelope->event->value.len,
                                           request->envelope->event->value.data);
    assert_non_null(start);
    if (f->answer != TTRPC_OK) {
        ttrpc_call_fail(call, f->answer, "no");
        f->answer = TTRPC_OK;
    } else {
        snprintf(f->seen[f->n_seen++], sizeof(f->seen[0]), "%s", start->container_id);
        ttrpc_call_reply(call, &empty.base);
    }
    containerd__task_start__free_unpacked(start, NULL);
}

static void fake_start(Fake *f)
{
    static const TtrpcHandler handlers[] = {handle_forward};
    int fd = fd_listen_unix(f->path, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ttrpc_server_new(f->loop, &f->server), 0);
    assert_int_equal(ttrpc_server_add_service(f->server, "containerd.services.events.ttrpc.v1.Events",
                                              &containerd__events__descriptor, handlers, f),
                     0);
    assert_int_equal(ttrpc_server_listen(f->server, fd, (uid_t)-1), 0);
}

static void fake_stop(Fake *f)
{
    f->server = ttrpc_server_free(f->server);
    unlink(f->path);
}

static int setup(void **state)
{
    Fake *f = calloc(1, sizeof(*f));

    strcpy(f->directory, "/tmp/test-shim-events.XXXXXX");
    if (!mkdtemp(f->directory) || loop_new(&f->loop) < 0)
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/s", f->directory);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fake *f = *state;

    fake_stop(f);
    loop_free(f->loop);
    fs_remove_tree(f->directory);
    free(f);
    return 0;
}

static void publish(Events *v, const char *id)
{
    Containerd__TaskStart start = CONTAINERD__TASK_START__INIT;

    start.container_id = (char *)id;
    assert_int_equal(events_publish(v, "/tasks/start", "TaskStart", &start.base), 0);
}

static void run_until_empty(Fake *f, Events *v)
{
    uint64_t end = loop_now() + 20 * USEC_PER_SEC;

    while (events_count(v) > 0 && loop_now() < end)
        assert_true(loop_run_once(f->loop, USEC_PER_SEC) >= 0);
    assert_int_equal(events_count(v), 0);
}

static void assert_seen(const Fake *f, size_t n)
{
    assert_int_equal(f->n_seen, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(strtoul(f->seen[i], NULL, 10), i);
}

static Events *make(Fake *f)
{
    _cleanup_free_ char *address = string_printf("unix://%s", f->path);
    Events *v = NULL;

    assert_int_equal(events_new(f->loop, address, "ns", &v), 0);
    return v;
}

static void publish_numbers(Events *v, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char id[16];

        snprintf(id, sizeof(id), "%u", i);
        publish(v, id);
    }
}

static void test_order(void **state)
{
    _cleanup_(events_freep) Events *v = make(*state);

    fake_start(*state);
    publish_numbers(v, 0, 20);
    run_until_empty(*state, v);
    assert_seen(*state, 20);
}

static void test_sent_again_after_a_restart(void **state)
{
    _cleanup_(events_freep) Events *v = make(*state);
    Fake *f = *state;

    /* Before containerd listens at all. */
    publish_numbers(v, 0, 2);
    for (int i = 0; i < 3; i++)
        assert_true(loop_run_once(f->loop, 50 * USEC_PER_MSEC) >= 0);
    fake_start(f);
    run_until_empty(f, v);
    assert_seen(f, 2);
    /* While it is away. */
    fake_stop(f);
    publish_numbers(v, 2, 5);
    for (int i = 0; i < 3; i++)
        assert_true(loop_run_once(f->loop, 50 * USEC_PER_MSEC) >= 0);
    assert_int_equal(events_count(v), 3);
    fake_start(f);
    run_until_empty(f, v);
    assert_seen(f, 5);
}

static void test_transient_and_lasting_refusals(void **state)
{
    _cleanup_(events_freep) Events *v = make(*state);
    Fake *f = *state;

    fake_start(f);
    f->answer = TTRPC_UNAVAILABLE;
    publish_numbers(v, 0, 2);
    run_until_empty(f, v);
    assert_seen(f, 2);
    /* One that containerd never will take is dropped, and the next one comes. */
    f->answer = TTRPC_INVALID_ARGUMENT;
    publish(v, "refused");
    publish(v, "2");
    run_until_empty(f, v);
    assert_seen(f, 3);
}

static void on_flushed(Events *v, void *userdata)
{
    ((Fake *)userdata)->flushed = true;
}

static void test_flush(void **state)
{
    _cleanup_(events_freep) Events *v = make(*state);
    Fake *f = *state;
    uint64_t begin;

    assert_int_equal(events_flush(v, USEC_PER_SEC, on_flushed, f), 0);
    assert_false(f->flushed);
    while (!f->flushed)
        assert_true(loop_run_once(f->loop, USEC_PER_SEC) >= 0);
    /* Nobody takes the event: the deadline ends it. */
    f->flushed = false;
    publish(v, "0");
    begin = loop_now();
    assert_int_equal(events_flush(v, 200 * USEC_PER_MSEC, on_flushed, f), 0);
    while (!f->flushed)
        assert_true(loop_run_once(f->loop, USEC_PER_SEC) >= 0);
    assert_true(loop_now() - begin >= 200 * USEC_PER_MSEC);
    /* And with somebody who does. */
    f->flushed = false;
    fake_start(f);
    assert_int_equal(events_flush(v, 20 * USEC_PER_SEC, on_flushed, f), 0);
    while (!f->flushed)
        assert_true(loop_run_once(f->loop, USEC_PER_SEC) >= 0);
    assert_seen(f, 1);
}

static void test_bounded(void **state)
{
    _cleanup_(events_freep) Events *v = make(*state);

    publish_numbers(v, 0, EVENTS_QUEUE_MAX + 100);
    assert_int_equal(events_count(v), EVENTS_QUEUE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sent_again_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transient_and_lasting_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
