/* SPDX-License-Identifier: MIT */

/* The whole way from mounts to an image, in the job's child. tests/unit/fake-mkfs.c is the converter. */

#include "test-image.h"

#include <signal.h>

#include "image/scratch.h"

typedef struct Job {
    Loop *loop;
    ImageJob *job;
    bool done;
    ImageResult result;
    Error error;
} Job;

static void on_done(ImageJob *job, ImageResult *result, const Error *e, void *userdata)
{
    Job *j = userdata;

    assert_false(j->done);
    assert_ptr_equal(job, j->job);
    j->done = true;
    if (e) {
        assert_null(result);
        error_set(&j->error, e->number, "%s", error_message(e));
    } else {
        j->result = *result;
        *result = IMAGE_RESULT_INIT;
    }
    j->job = image_job_free(job);
}

static void job_clear(Job *j)
{
    image_job_free(j->job);
    image_result_clear(&j->result);
    error_clear(&j->error);
    loop_free(j->loop);
}

/* Prepares the image of one overlay mount and waits for it. */
static void prepare(const Fixture *f, const char *lower, const char *upper, uint64_t scratch_size, Job *j)
{
    _cleanup_free_ char *lowerdir = string_printf("lowerdir=%s", lower),
                        *upperdir = string_printf("upperdir=%s", upper);
    const char *options[] = {lowerdir, upperdir};
    ImageMount mount = {
        .type = "overlay", .source = "overlay", .options = options, .n_options = *upper ? 2 : 1};
    ImageScratch scratch = {.size = scratch_size};
    uint64_t end = loop_now() + 30 * USEC_PER_SEC;

    *j = (Job){.result = IMAGE_RESULT_INIT};
    assert_int_equal(loop_new(&j->loop), 0);
    if (image_prepare(j->loop, &f->config, &mount, 1, scratch_size > 0 ? &scratch : NULL, on_done, j, &j->job,
                      &j->error) < 0)
        fail_msg("%s", error_message(&j->error));
    while (!j->done) {
        assert_true(loop_now() < end);
        assert_true(loop_run_once(j->loop, 100000) >= 0);
    }
}

static Fixture *image_setup(void **state)
{
    Fixture *f = *state;

    need_overlay();
    make_directory(f, "lower");
    make_directory(f, "upper");
    put_text(below(f, "lower/file"), "x");
    return f;
}

static void assert_done(const Job *j)
{
    if (j->error.number < 0)
        fail_msg("%s", error_message(&j->error));
}

static void test_converts_once(void **state)
{
    Fixture *f = image_setup(state);
    Job first, second;

    prepare(f, below(f, "lower"), below(f, "upper"), 0, &first);
    assert_done(&first);
    assert_false(first.result.cached);
    assert_true(first.result.image_fd >= 0);
    assert_int_equal(first.result.scratch_fd, -EBADF);
    assert_null(first.result.scratch_path);
    assert_string_equal(first.result.upper_dir, below(f, "upper"));
    assert_int_equal(strlen(first.result.digest), 64);
    assert_non_null(strstr(first.result.image_path, first.result.digest));
    /* From now on no converter is needed. */
    f->config.mkfs_erofs = "/nowhere/mkfs.erofs";
    prepare(f, below(f, "lower"), "", 0, &second);
    assert_done(&second);
    assert_true(second.result.cached);
    assert_string_equal(second.result.image_path, first.result.image_path);
    assert_int_equal(second.result.size, first.result.size);
    assert_null(second.result.upper_dir);
    job_clear(&first);
    job_clear(&second);
}

static void test_used_upper(void **state)
{
    Fixture *f = image_setup(state);
    char text[4096] = "";
    Job j;

    put_text(below(f, "upper/own"), "x");
    prepare(f, below(f, "lower"), below(f, "upper"), 0, &j);
    assert_done(&j);
    assert_null(j.result.image_path);
    assert_false(j.result.cached);
    assert_true(pread(j.result.image_fd, text, sizeof(text) - 1, 0) > 0);
    assert_non_null(strstr(text, "/view: file own\n"));
    assert_int_equal(count_entries(below(f, "some/cache/images")), 0);
    job_clear(&j);
}

static void test_scratch(void **state)
{
    Fixture *f = image_setup(state);
    Job j;

    if (access(f->config.mke2fs, X_OK) < 0) {
        print_message("no mke2fs here\n");
        skip();
    }
    prepare(f, below(f, "lower"), below(f, "upper"), 16 << 20, &j);
    assert_done(&j);
    assert_string_equal(j.result.scratch_path, below(f, "upper/" SCRATCH_FILE_NAME));
    assert_true(j.result.scratch_fd >= 0);
    job_clear(&j);
    /* With a disk of ours in it the upper directory is still an unused one. */
    prepare(f, below(f, "lower"), below(f, "upper"), 16 << 20, &j);
    assert_done(&j);
    assert_true(j.result.cached);
    job_clear(&j);
    /* Nothing to write into: the cache has a place for it, which goes with the disk. */
    prepare(f, below(f, "lower"), "", 16 << 20, &j);
    assert_done(&j);
    assert_non_null(strstr(j.result.scratch_path, "/some/cache/scratch/of-"));
    assert_int_equal(scratch_remove(j.result.scratch_path), 0);
    assert_int_equal(count_entries(below(f, "some/cache/scratch")), 1); /* the template */
    job_clear(&j);
}

static void test_failures(void **state)
{
    Fixture *f = image_setup(state);
    Job j;

    put_text(below(f, "lower/do"), "fail");
    prepare(f, below(f, "lower"), below(f, "upper"), 0, &j);
    assert_int_equal(j.error.number, -EIO);
    assert_words(&j.error, "no luck with /view");
    assert_int_equal(count_entries(below(f, "some/cache/images")), 0);
    assert_int_equal(count_entries(below(f, "some/cache/index")), 0);
    job_clear(&j);
    prepare(f, below(f, "missing"), below(f, "upper"), 0, &j);
    assert_int_equal(j.error.number, -ENOENT);
    assert_words(&j.error, "/missing of the image");
    job_clear(&j);
    f->config.image_max = 1 << 20;
    assert_int_equal(truncate(below(f, "lower/file"), 2 << 20), 0);
    prepare(f, below(f, "lower"), below(f, "upper"), 0, &j);
    assert_int_equal(j.error.number, -EFBIG);
    assert_words(&j.error, "/lower/file has 2 MiB");
    job_clear(&j);
}

static void test_timeout(void **state)
{
    Fixture *f = image_setup(state);
    Job j;

    put_text(below(f, "lower/do"), "sleep");
    f->config.timeout_usec = USEC_PER_SEC;
    prepare(f, below(f, "lower"), below(f, "upper"), 0, &j);
    assert_int_equal(j.error.number, -ETIMEDOUT);
    job_clear(&j);
}

/* A job that is freed takes its child, and the converter below it, along. */
static void test_freed(void **state)
{
    Fixture *f = image_setup(state);
    _cleanup_free_ char *lowerdir = string_printf("lowerdir=%s", below(f, "lower"));
    const char *options[] = {lowerdir};
    ImageMount mount = {.type = "overlay", .source = "overlay", .options = options, .n_options = 1};
    Job j = {.result = IMAGE_RESULT_INIT};

    put_text(below(f, "lower/do"), "sleep");
    assert_int_equal(loop_new(&j.loop), 0);
    assert_int_equal(image_prepare(j.loop, &f->config, &mount, 1, NULL, on_done, &j, &j.job, NULL), 0);
    for (int i = 0; i < 20; i++)
        (void)loop_run_once(j.loop, 10000);
    assert_false(j.done);
    job_clear(&j);
    /* What it left is a file that nobody holds. */
    for (int i = 0; i < 100 && count_entries(below(f, "some/cache/images")) > 0; i++) {
        usleep(20000);
        assert_int_equal(image_gc(&f->config, NULL), 0);
    }
    assert_int_equal(count_entries(below(f, "some/cache/images")), 0);
}

static void test_refused_at_once(void **state)
{
    Fixture *f = *state;
    ImageMount mount = {.type = "ext4", .source = "/dev/sda1"};
    _cleanup_error_ Error e = ERROR_INIT;
    ImageJob *job = NULL;
    Loop *loop;

    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(image_prepare(loop, &f->config, &mount, 1, NULL, on_done, NULL, &job, &e), -EOPNOTSUPP);
    assert_words(&e, "\"ext4\"");
    assert_null(job);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_converts_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_used_upper, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_scratch, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_failures, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_timeout, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_freed, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_refused_at_once, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
