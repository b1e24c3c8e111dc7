/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "agent/copy.h"
#include "base/fs.h"

typedef struct Fixture {
    char top[64];
    char *from, *to;
    int from_fd, to_fd;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    snprintf(f->top, sizeof(f->top), "/tmp/test-copy.XXXXXX");
    assert_non_null(mkdtemp(f->top));
    f->from = fs_join(f->top, "from");
    f->to = fs_join(f->top, "to");
    assert_int_equal(mkdir(f->from, 0751), 0);
    assert_int_equal(mkdir(f->to, 0700), 0);
    f->from_fd = open(f->from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->to_fd = open(f->to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->from_fd >= 0 && f->to_fd >= 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    close(f->from_fd);
    close(f->to_fd);
    assert_int_equal(fs_remove_tree(f->top), 0);
    free(f->from);
    free(f->to);
    free(f);
    return 0;
}

static void write_file(int dir_fd, const char *name, const char *text, mode_t mode)
{
    _cleanup_close_ int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
}

static void test_everything_of_a_tree(void **state)
{
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 2000, .tv_nsec = 5}};
    _cleanup_free_ char *file = NULL, *text = NULL;
    Fixture *f = *state;
    char target[32] = "";
    struct stat st;

    assert_int_equal(mkdirat(f->from_fd, "sub", 0705), 0);
    write_file(f->from_fd, "sub/file", "contents", 04751);
    write_file(f->from_fd, "empty", "", 0600);
    assert_int_equal(symlinkat("/no/where", f->from_fd, "link"), 0);
    assert_int_equal(mkfifoat(f->from_fd, "fifo", 0620), 0);
    assert_int_equal(utimensat(f->from_fd, "sub/file", times, 0), 0);

    assert_int_equal(copy_directory(f->from_fd, f->to_fd, NULL), 0);
    assert_int_equal(fstat(f->to_fd, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0751);
    assert_int_equal(fstatat(f->to_fd, "sub", &st, 0), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0705);
    assert_int_equal(fstatat(f->to_fd, "sub/file", &st, 0), 0);
    assert_int_equal(st.st_mode, S_IFREG | 04751);
    assert_int_equal(st.st_mtim.tv_sec, 2000);
    assert_int_equal(st.st_mtim.tv_nsec, 5);
    assert_int_equal(fstatat(f->to_fd, "fifo", &st, 0), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(readlinkat(f->to_fd, "link", target, sizeof(target) - 1), 9);
    assert_string_equal(target, "/no/where");
    file = fs_join(f->to, "sub/file");
    assert_int_equal(fs_read_file(file, 100, &text, NULL), 0);
    assert_string_equal(text, "contents");
}

static void test_owners_and_attributes(void **state)
{
    Fixture *f = *state;
    _cleanup_free_ char *from = fs_join(f->from, "file"), *to = fs_join(f->to, "file");
    struct stat st;
    char value[8] = "";

    if (getuid() != 0)
        skip();
    write_file(f->from_fd, "file", "x", 0600);
    assert_int_equal(fchownat(f->from_fd, "file", 70, 71, 0), 0);
    assert_int_equal(chmod(from, 06755), 0);
    if (setxattr(from, "trusted.test", "v", 1, 0) < 0)
        skip();
    assert_int_equal(setxattr(from, "trusted.overlay.origin", "v", 1, 0), 0);
    assert_int_equal(symlinkat("t", f->from_fd, "link"), 0);
    assert_int_equal(fchownat(f->from_fd, "link", 5, 6, AT_SYMLINK_NOFOLLOW), 0);

    assert_int_equal(copy_directory(f->from_fd, f->to_fd, NULL), 0);
    assert_int_equal(stat(to, &st), 0);
    assert_int_equal(st.st_uid, 70);
    assert_int_equal(st.st_gid, 71);
    assert_int_equal(st.st_mode, S_IFREG | 06755);
    assert_int_equal(getxattr(to, "trusted.test", value, sizeof(value)), 1);
    assert_int_equal(getxattr(to, "trusted.overlay.origin", value, sizeof(value)), -1);
    assert_int_equal(fstatat(f->to_fd, "link", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_uid, 5);
}

static void test_error_names_the_file(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;

    assert_int_equal(mkdirat(f->from_fd, "sub", 0755), 0);
    write_file(f->from_fd, "sub/file", "x", 0600);
    assert_int_equal(mkdirat(f->to_fd, "sub", 0755), 0);
    assert_int_equal(copy_directory(f->from_fd, f->to_fd, &e), -EEXIST);
    assert_non_null(strstr(e.message, "\"sub\""));
}

static void test_depth_is_limited(void **state)
{
    _cleanup_close_ int fd = -1;
    Fixture *f = *state;

    fd = dup(f->from_fd);
    for (int i = 0; i < 250; i++) {
        int next;

        assert_int_equal(mkdirat(fd, "d", 0755), 0);
        next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    assert_int_equal(copy_directory(f->from_fd, f->to_fd, NULL), -ELOOP);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_everything_of_a_tree),
        TEST(test_owners_and_attributes),
        TEST(test_error_names_the_file),
        TEST(test_depth_is_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
