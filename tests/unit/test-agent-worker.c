/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "agent/worker.h"

typedef struct Fixture {
    Loop *loop;
    Reaper *reaper;
    bool done;
    int number;
    char message[4096];
    int open_fd;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(loop_new(&f->loop), 0);
    assert_int_equal(reaper_new(f->loop, &f->reaper), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    reaper_free(f->reaper);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void on_done(int number, const char *message, void *userdata)
{
    Fixture *f = userdata;

    f->done = true;
    f->number = number;
    snprintf(f->message, sizeof(f->message), "%s", message ?: "");
}

static void run(Fixture *f, WorkerFn job)
{
    assert_int_equal(worker_run(f->reaper, job, on_done, f, NULL), 0);
    while (!f->done)
        assert_int_equal(loop_run_once(f->loop, 10 * USEC_PER_SEC), 1);
}

static int job_succeeds(void *userdata, Error *e)
{
    return 0;
}

static int job_fails(void *userdata, Error *e)
{
    return error_set_errno(e, -ENOSPC, "cannot do \"%s\"", "it");
}

static int job_fails_silently(void *userdata, Error *e)
{
    return -EROFS;
}

static int job_talks_much(void *userdata, Error *e)
{
    char text[5000];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    return error_set(e, -EINVAL, "%s", text);
}

static int job_dies(void *userdata, Error *e)
{
    (void)raise(SIGKILL);
    return 0;
}

/* The agent's descriptors are not the job's. */
static int job_looks_at_descriptors(void *userdata, Error *e)
{
    const Fixture *f = userdata;

    return fcntl(f->open_fd, F_GETFD) < 0 ? 0 : error_set(e, -EEXIST, "%i is open", f->open_fd);
}

static void test_results(void **state)
{
    Fixture *f = *state;

    run(f, job_succeeds);
    assert_int_equal(f->number, 0);
}

static void test_error(void **state)
{
    Fixture *f = *state;

    run(f, job_fails);
    assert_int_equal(f->number, -ENOSPC);
    assert_non_null(strstr(f->message, "cannot do \"it\": "));
}

static void test_error_without_words(void **state)
{
    Fixture *f = *state;

    run(f, job_fails_silently);
    assert_int_equal(f->number, -EROFS);
    assert_int_not_equal(f->message[0], 0);
}

static void test_long_error(void **state)
{
    Fixture *f = *state;

    run(f, job_talks_much);
    assert_int_equal(f->number, -EINVAL);
    assert_int_equal(strlen(f->message), 2039);
}

static void test_death(void **state)
{
    Fixture *f = *state;

    run(f, job_dies);
    assert_int_equal(f->number, -EIO);
    assert_non_null(strstr(f->message, "signal 9"));
}

static void test_descriptors(void **state)
{
    Fixture *f = *state;

    f->open_fd = dup(0);
    run(f, job_looks_at_descriptors);
    close(f->open_fd);
    assert_int_equal(f->number, 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_results), TEST(test_error), TEST(test_error_without_words),
        TEST(test_long_error), TEST(test_death), TEST(test_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
