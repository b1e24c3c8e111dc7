/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"

static void test_files_and_trees(void **state)
{
    char top[] = "/tmp/test-fs.XXXXXX";
    _cleanup_free_ char *deep = NULL, *file = NULL, *text = NULL, *link = NULL;
    struct stat st;
    size_t n;

    assert_non_null(mkdtemp(top));
    deep = string_printf("%s/a/b/c", top);
    assert_int_equal(fs_mkdir_p(deep, 0700), 0);
    assert_int_equal(fs_mkdir_p(deep, 0700), 0);
    file = fs_join(deep, "/file");
    assert_int_equal(fs_write_file_atomic(file, "hello", 5, 0640), 0);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(fs_read_file(file, 5, &text, &n), 0);
    assert_int_equal(n, 5);
    assert_string_equal(text, "hello");
    text = (free(text), NULL);
    assert_int_equal(fs_read_file(file, 4, &text, &n), -EFBIG);
    assert_int_equal(fs_mkdir_p(file, 0755), -ENOTDIR);
    /* A link out of the tree is removed, not followed. */
    link = fs_join(deep, "link");
    assert_int_equal(symlink("/etc", link), 0);
    assert_int_equal(fs_remove_tree(top), 0);
    assert_int_equal(lstat(top, &st), -1);
    assert_int_equal(stat("/etc/passwd", &st), 0);
    assert_int_equal(fs_remove_tree(top), 0);
}

static void test_join(void **state)
{
    _cleanup_free_ char *a = fs_join("/x/", "/y"), *b = fs_join("", "y");

    assert_string_equal(a, "/x/y");
    assert_string_equal(b, "/y");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_and_trees),
        cmocka_unit_test(test_join),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
