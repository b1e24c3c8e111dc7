/* SPDX-License-Identifier: MIT */

/* Scratch disks, by the real mke2fs. */

#include "test-image.h"

#include "image/scratch.h"

#define SIZE (16ULL << 20)

static Fixture *scratch_setup(void **state)
{
    Fixture *f = *state;

    need_root();
    if (access(f->config.mke2fs, X_OK) < 0) {
        print_message("no mke2fs here\n");
        skip();
    }
    make_directory(f, "upper");
    return f;
}

static void test_create(void **state)
{
    Fixture *f = scratch_setup(state);
    ImageScratch scratch = {.directory = below(f, "upper"), .size = SIZE, .uid = 1234, .gid = 5678};
    _cleanup_free_ char *path = NULL, *command = NULL;
    _cleanup_close_ int fd = -EBADF;
    _cleanup_error_ Error e = ERROR_INIT;
    uint16_t magic = 0;
    struct stat st;

    if (scratch_create(&f->config, &scratch, &fd, &path, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_string_equal(path, below(f, "upper/" SCRATCH_FILE_NAME));
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_int_equal(st.st_uid, 1234);
    assert_int_equal(st.st_gid, 5678);
    assert_int_equal(st.st_mode & 07777, 0600);
    /* Sparse: it takes far less than it can grow to. */
    assert_in_range(st.st_blocks * 512, 4096, SIZE / 4);
    /* The superblock's magic number, at 1024 + 0x38. */
    assert_int_equal(pread(fd, &magic, sizeof(magic), 1024 + 0x38), sizeof(magic));
    assert_int_equal(magic, 0xef53);
    command = string_printf("e2fsck -fn %s >/dev/null 2>&1", path);
    assert_int_equal(system(command), 0);
}

/* The file system is made once for each size and copied then. */
static void test_template(void **state)
{
    Fixture *f = scratch_setup(state);
    ImageScratch scratch = {.directory = below(f, "upper"), .size = SIZE};
    _cleanup_free_ char *first = NULL, *second = NULL;
    _cleanup_close_ int a = -EBADF, b = -EBADF;
    struct stat x, y;
    char text[5];

    assert_int_equal(scratch_create(&f->config, &scratch, &a, &first, NULL), 0);
    assert_true(exists(in_cache(f, "scratch", "16777216.ext4")));
    /* What a guest wrote stays in its own copy, and the old disk gives way to an empty one. */
    assert_int_equal(pwrite(a, "guest", 5, 8 << 20), 5);
    f->config.mke2fs = "/nowhere/mke2fs";
    assert_int_equal(scratch_create(&f->config, &scratch, &b, &second, NULL), 0);
    assert_string_equal(first, second);
    assert_int_equal(fstat(a, &x), 0);
    assert_int_equal(fstat(b, &y), 0);
    assert_int_equal(x.st_nlink, 0);
    assert_int_not_equal(x.st_ino, y.st_ino);
    assert_int_equal(pread(b, text, sizeof(text), 8 << 20), sizeof(text));
    assert_memory_equal(text, "\0\0\0\0\0", sizeof(text));
    assert_int_equal(stat(in_cache(f, "scratch", "16777216.ext4"), &x), 0);
    assert_int_equal(x.st_mode & 07777, 0400);
    assert_int_equal(x.st_uid, 0);
}

/* A template that was cut off is made anew. */
static void test_damaged_template(void **state)
{
    Fixture *f = scratch_setup(state);
    ImageScratch scratch = {.directory = below(f, "upper"), .size = SIZE};
    _cleanup_free_ char *path = NULL;
    _cleanup_close_ int fd = -EBADF;
    uint16_t magic = 0;

    put_text(in_cache(f, "scratch", "16777216.ext4"), "half of it");
    put_text(in_cache(f, "scratch", ".new"), "of a process that died");
    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, NULL), 0);
    assert_int_equal(pread(fd, &magic, sizeof(magic), 1024 + 0x38), sizeof(magic));
    assert_int_equal(magic, 0xef53);
}

static void test_refusals(void **state)
{
    Fixture *f = scratch_setup(state);
    ImageScratch scratch = {.directory = below(f, "upper"), .size = (8ULL << 20) - 1};
    _cleanup_error_ Error e = ERROR_INIT;
    char *path = NULL;
    int fd = -77;

    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, &e), -ERANGE);
    assert_words(&e, "(scratch_size_mb): 8 to ");
    scratch.size = (16ULL << 40) + 1;
    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, &e), -ERANGE);
    scratch.size = SIZE;
    f->config.mke2fs = "/nowhere/mke2fs";
    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, &e), -ENOENT);
    assert_words(&e, "/nowhere/mke2fs");
    f->config.mke2fs = "/bin/false";
    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, &e), -EIO);
    assert_words(&e, "mke2fs failed with ");
    /* Nothing is left that would be taken for a template. */
    assert_int_equal(count_entries(below(f, "some/cache/scratch")), 0);
    f->config.mke2fs = "/sbin/mke2fs";
    scratch.directory = below(f, "missing");
    assert_int_equal(scratch_create(&f->config, &scratch, &fd, &path, &e), -ENOENT);
    assert_words(&e, "/missing/" SCRATCH_FILE_NAME);
    assert_null(path);
    assert_int_equal(fd, -77);
}

static void test_remove(void **state)
{
    Fixture *f = *state;

    make_directory(f, "some/cache/scratch/of-abc");
    put_text(in_cache(f, "scratch", "of-abc/" SCRATCH_FILE_NAME), "x");
    assert_int_equal(scratch_remove(in_cache(f, "scratch", "of-abc/" SCRATCH_FILE_NAME)), 0);
    assert_false(exists(in_cache(f, "scratch", "of-abc")));
    /* Twice is fine; a snapshot's directory stays. */
    assert_int_equal(scratch_remove(in_cache(f, "scratch", "of-abc/" SCRATCH_FILE_NAME)), 0);
    make_directory(f, "upper");
    put_text(below(f, "upper/" SCRATCH_FILE_NAME), "x");
    assert_int_equal(scratch_remove(below(f, "upper/" SCRATCH_FILE_NAME)), 0);
    assert_false(exists(below(f, "upper/" SCRATCH_FILE_NAME)));
    assert_true(exists(below(f, "upper")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_create, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_template, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_template, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_remove, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
