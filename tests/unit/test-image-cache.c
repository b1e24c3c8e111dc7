/* SPDX-License-Identifier: MIT */

/* The cache of images: what is found, what is noticed as damaged, and what is cleaned up. */

#include "test-image.h"

#include <sys/file.h>
#include <time.h>

#define A "aa00000000000000000000000000000000000000000000000000000000000000"
#define B "bb00000000000000000000000000000000000000000000000000000000000000"
#define C "cc00000000000000000000000000000000000000000000000000000000000000"

/* Adds an image of that content. */
static void add(const Fixture *f, const char *identity, const char *text, CachedImage *ret)
{
    _cleanup_free_ char *path = NULL;
    _cleanup_close_ int fd = -EBADF;

    need_root(); /* its owner is set */
    assert_int_equal(cache_new_file(&f->config, &fd, &path, NULL), 0);
    assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
    assert_int_equal(cache_add(&f->config, identity, fd, path, ret, NULL), 0);
}

static void add_and_close(const Fixture *f, const char *identity, const char *text)
{
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;

    add(f, identity, text, &image);
}

static void assert_text(const CachedImage *image, const char *text)
{
    char buffer[100] = "";

    assert_int_equal(image->size, strlen(text));
    assert_int_equal(pread(image->fd, buffer, sizeof(buffer) - 1, 0), strlen(text));
    assert_string_equal(buffer, text);
}

/* Whether the identity has an image, of that content. */
static bool has(const Fixture *f, const char *identity, const char *text)
{
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;
    int r = cache_find(&f->config, identity, &image, NULL);

    assert_in_range(r, 0, 1);
    if (r == 1)
        assert_text(&image, text);
    return r == 1;
}

static void test_prepare(void **state)
{
    Fixture *f = *state;
    _cleanup_error_ Error e = ERROR_INIT;
    ImageConfig wrong = f->config;
    struct stat st;

    assert_int_equal(stat(f->cache_dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(cache_prepare(&f->config, NULL), 0);
    put_text(below(f, "file"), "x");
    wrong.cache_dir = below(f, "file/cache");
    assert_int_equal(cache_prepare(&wrong, &e), -ENOTDIR);
    assert_words(&e, "/file/cache");
}

static void test_add_and_find(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT, again = CACHED_IMAGE_INIT;
    struct stat st;

    assert_false(has(f, A, ""));
    add(f, A, "content", &image);
    assert_text(&image, "content");
    assert_non_null(strstr(image.path, image.digest));
    assert_int_equal(fcntl(image.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(fstat(image.fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(cache_find(&f->config, A, &again, NULL), 1);
    assert_string_equal(again.digest, image.digest);
    assert_string_equal(again.path, image.path);
    assert_text(&again, "content");
    assert_false(has(f, B, ""));
}

/* Two identities with the same content share the file. */
static void test_same_content(void **state)
{
    Fixture *f = *state;

    add_and_close(f, A, "same");
    add_and_close(f, B, "same");
    assert_int_equal(count_entries(below(f, "some/cache/images")), 1);
    assert_true(has(f, A, "same"));
    assert_true(has(f, B, "same"));
}

static void test_private(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;

    add(f, NULL, "mine", &image);
    assert_null(image.path);
    assert_text(&image, "mine");
    assert_int_equal(count_entries(below(f, "some/cache/images")), 0);
    assert_int_equal(count_entries(below(f, "some/cache/index")), 0);
}

/* -----------------------------------------------------------------------------------------------------
 * damage */

static void test_changed_content(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;

    add(f, A, "right", &image);
    assert_int_equal(chmod(image.path, 0600), 0);
    put_text(image.path, "wrong");
    assert_false(has(f, A, ""));
    assert_false(exists(image.path));
    assert_false(exists(in_cache(f, "index", A)));
    add_and_close(f, A, "right");
    assert_true(has(f, A, "right"));
}

/* Touched, or copied back by an administrator: the content decides, and is not read again the next time. */
static void test_changed_time(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;
    _cleanup_free_ char *before = NULL, *after = NULL;

    add(f, A, "right", &image);
    assert_int_equal(fs_read_file(in_cache(f, "index", A), 4096, &before, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, image.path, (struct timespec[2]){{.tv_sec = 5}, {.tv_sec = 5}}, 0),
                     0);
    assert_true(has(f, A, "right"));
    assert_int_equal(fs_read_file(in_cache(f, "index", A), 4096, &after, NULL), 0);
    assert_string_not_equal(before, after);
    assert_non_null(strstr(after, "\"mtime_nsec\": 5000000000}"));
}

static void test_damaged_index(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"digest\": \"" A "\"}",
        "{\"digest\": \"../../etc/passwd\", \"size\": 1, \"inode\": 1, \"mtime_nsec\": 1}",
        "{\"digest\": \"" A "\", \"size\": -1, \"inode\": 1, \"mtime_nsec\": 1}",
        "{\"digest\": \"" A "\", \"size\": \"1\", \"inode\": 1, \"mtime_nsec\": 1}",
    };
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        put_text(in_cache(f, "index", A), texts[i]);
        assert_false(has(f, A, ""));
    }
    add_and_close(f, A, "anew");
    assert_true(has(f, A, "anew"));
}

static void test_image_is_gone(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;

    add(f, A, "right", &image);
    assert_int_equal(unlink(image.path), 0);
    assert_false(has(f, A, ""));
    /* A link is no image. */
    assert_int_equal(symlink("/etc/passwd", image.path), 0);
    assert_true(cache_find(&f->config, A, &image, NULL) < 0);
}

/* A damaged file of that name gives way to the one just made. */
static void test_replaces_damaged(void **state)
{
    Fixture *f = *state;
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;

    add(f, A, "right", &image);
    assert_int_equal(chmod(image.path, 0600), 0);
    put_text(image.path, "wrong");
    add_and_close(f, B, "right");
    assert_true(has(f, B, "right"));
    assert_true(has(f, A, "right"));
}

/* ----------------------------------------------------------------------------------------------------
 * clean-up */

/* The last use of an identity, some seconds ago. */
static void used(const Fixture *f, const char *identity, time_t seconds)
{
    struct timespec when = {.tv_sec = time(NULL) - seconds};

    assert_int_equal(utimensat(AT_FDCWD, in_cache(f, "index", identity), (struct timespec[2]){when, when}, 0),
                     0);
}

static void test_least_recently_used(void **state)
{
    Fixture *f = *state;

    add_and_close(f, A, "0123456789");
    add_and_close(f, B, "abcdefghij");
    add_and_close(f, C, "ABCDEFGHIJ");
    used(f, A, 10);
    used(f, B, 30);
    used(f, C, 20);
    f->config.cache_max = 20;
    assert_int_equal(image_gc(&f->config, NULL), 0);
    assert_true(has(f, A, "0123456789"));
    assert_false(has(f, B, ""));
    assert_true(has(f, C, "ABCDEFGHIJ"));
    assert_int_equal(count_entries(below(f, "some/cache/images")), 2);
    /* Being found is being used. */
    used(f, A, 10);
    used(f, C, 20);
    assert_true(has(f, C, "ABCDEFGHIJ"));
    f->config.cache_max = 10;
    assert_int_equal(image_gc(&f->config, NULL), 0);
    assert_false(has(f, A, ""));
    assert_true(has(f, C, "ABCDEFGHIJ"));
    /* The last one stays, however large it is. */
    f->config.cache_max = 1;
    assert_int_equal(image_gc(&f->config, NULL), 0);
    assert_true(has(f, C, "ABCDEFGHIJ"));
}

static void test_shared_counts_once(void **state)
{
    Fixture *f = *state;

    add_and_close(f, A, "0123456789");
    add_and_close(f, B, "0123456789");
    add_and_close(f, C, "abcdefghij");
    used(f, A, 10);
    used(f, B, 20);
    used(f, C, 30);
    f->config.cache_max = 20;
    assert_int_equal(image_gc(&f->config, NULL), 0);
    assert_true(has(f, A, "0123456789") && has(f, B, "0123456789") && has(f, C, "abcdefghij"));
}

static void test_orphans(void **state)
{
    Fixture *f = *state;
    _cleanup_free_ char *path = NULL;
    _cleanup_close_ int fd = -EBADF;

    need_root();
    add_and_close(f, A, "kept");
    put_text(in_cache(f, "images", B ".erofs"), "no entry names it");
    put_text(in_cache(f, "images", ".tmp-dead"), "its maker died");
    put_text(in_cache(f, "images", "README"), "not ours");
    put_text(in_cache(f, "index", C), "damaged");
    assert_int_equal(cache_new_file(&f->config, &fd, &path, NULL), 0);
    assert_int_equal(image_gc(&f->config, NULL), 0);
    assert_true(has(f, A, "kept"));
    assert_false(exists(in_cache(f, "images", B ".erofs")));
    assert_false(exists(in_cache(f, "images", ".tmp-dead")));
    assert_false(exists(in_cache(f, "index", C)));
    assert_true(exists(in_cache(f, "images", "README")));
    assert_true(exists(path)); /* its maker lives */
}

static void test_gc_without_cache(void **state)
{
    Fixture *f = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    f->config.cache_dir = below(f, "missing");
    assert_int_equal(image_gc(&f->config, &e), -ENOENT);
    assert_words(&e, "/missing/locks/gc");
}

static void test_lock(void **state)
{
    Fixture *f = *state;
    _cleanup_close_ int lock = cache_lock(&f->config, A, NULL), other = -EBADF, file = -EBADF;

    assert_true(lock >= 0);
    other = cache_lock(&f->config, B, NULL); /* another one's: no wait */
    assert_true(other >= 0);
    file = open(in_cache(f, "locks", "aa"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), -1);
    lock = fd_close(lock);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prepare, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_add_and_find, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_same_content, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_private, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_changed_content, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_changed_time, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_index, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_image_is_gone, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_replaces_damaged, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_least_recently_used, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_shared_counts_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_orphans, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_gc_without_cache, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_lock, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
