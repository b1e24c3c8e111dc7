/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "oci/plan.h"

static const FileTreeLimits plenty = {.bytes = 1 << 20, .entries = 100};

/* A directory of its own for each test; `at` makes a path in it. */
static char top[64], path_buffer[4][256];

static const char *at(unsigned i, const char *name)
{
    snprintf(path_buffer[i], sizeof(path_buffer[i]), "%s/%s", top, name);
    return path_buffer[i];
}

static int setup(void **state)
{
    strcpy(top, "/tmp/test-filetree.XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    return fs_remove_tree(top);
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    assert_int_equal(fs_write_file_atomic(at(3, name), text, strlen(text), mode), 0);
    assert_int_equal(chmod(path_buffer[3], mode), 0);
}

/* As the kubelet's atomic writer leaves it. */
static void make_configmap(void)
{
    assert_int_equal(mkdir(at(0, "cm"), 0777), 0);
    assert_int_equal(mkdir(at(0, "cm/..2026_01_01"), 0755), 0);
    write_file("cm/..2026_01_01/key", "value", 0640);
    assert_int_equal(symlink("..2026_01_01", at(0, "cm/..data")), 0);
    assert_int_equal(symlink("..data/key", at(0, "cm/key")), 0);
    assert_int_equal(symlink("/etc/shadow", at(0, "cm/outside")), 0);
}

static void test_directory(void **state)
{
    static const struct {
        const char *path;
        FileTreeType type;
        const char *data;
    } expected[] = {
        {"", FILE_TREE_DIRECTORY, NULL},
        {"..2026_01_01", FILE_TREE_DIRECTORY, NULL},
        {"..2026_01_01/key", FILE_TREE_REGULAR, "value"},
        {"..data", FILE_TREE_SYMLINK, "..2026_01_01"},
        {"key", FILE_TREE_SYMLINK, "..data/key"},
        {"outside", FILE_TREE_SYMLINK, "/etc/shadow"},
    };
    _cleanup_file_tree_ FileTree *tree = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    make_configmap();
    assert_int_equal(chown(at(0, "cm/..2026_01_01/key"), 1000, 2000), 0);
    if (file_tree_read(at(0, "cm"), &plenty, &tree, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_int_equal(tree->n_entries, ELEMENTSOF(expected));
    for (size_t i = 0; i < tree->n_entries; i++) {
        assert_string_equal(tree->entries[i].path, expected[i].path);
        assert_int_equal(tree->entries[i].type, expected[i].type);
        assert_non_null(tree->entries[i].data);
        if (expected[i].data) {
            assert_int_equal(tree->entries[i].size, strlen(expected[i].data));
            assert_string_equal(tree->entries[i].data, expected[i].data);
        }
    }
    assert_int_equal(tree->entries[2].mode, 0640);
    assert_int_equal(tree->entries[2].uid, 1000);
    assert_int_equal(tree->entries[2].gid, 2000);
    assert_true(tree->entries[2].mtime_sec > 0);
}

static void test_limits(void **state)
{
    FileTreeLimits limits = {.bytes = 10, .entries = 100};
    _cleanup_file_tree_ FileTree *tree = NULL, *exact = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    make_configmap();
    assert_int_equal(file_tree_read(at(0, "cm"), &limits, &tree, &e), -EFBIG);
    assert_non_null(strstr(error_message(&e), at(0, "cm")));
    limits = (FileTreeLimits){.bytes = 1 << 20, .entries = 5};
    assert_int_equal(file_tree_read(at(0, "cm"), &limits, &tree, &e), -EFBIG);
    assert_null(tree);
    write_file("ten", "0123456789", 0644);
    limits = (FileTreeLimits){.bytes = 10, .entries = 1};
    assert_int_equal(file_tree_read(at(0, "ten"), &limits, &exact, &e), 0);
    limits.bytes = 9;
    assert_int_equal(file_tree_read(at(0, "ten"), &limits, &tree, &e), -EFBIG);
    /* A sparse file of 8 EiB is not read to its end. */
    assert_int_equal(truncate(at(0, "ten"), (off_t)1 << 42), 0);
    assert_int_equal(file_tree_read(at(0, "ten"), &plenty, &tree, &e), -EFBIG);
    assert_null(tree);
}

static void test_depth(void **state)
{
    _cleanup_file_tree_ FileTree *tree = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    char path[1024];

    strcpy(path, at(0, "deep"));
    for (int i = 0; i <= FILE_TREE_DEPTH_MAX; i++) {
        assert_int_equal(mkdir(path, 0755), 0);
        strcat(path, "/d");
    }
    assert_int_equal(file_tree_read(at(0, "deep"), &plenty, &tree, &e), -EFBIG);
    assert_null(tree);
}

static void test_special_files(void **state)
{
    _cleanup_file_tree_ FileTree *tree = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(mkdir(at(0, "d"), 0755), 0);
    assert_int_equal(mkfifo(at(0, "d/pipe"), 0644), 0);
    assert_int_equal(file_tree_read(at(0, "d"), &plenty, &tree, &e), -EMEDIUMTYPE);
    assert_non_null(strstr(error_message(&e), "d/pipe is a FIFO"));
    assert_int_equal(file_tree_read("/dev/null", &plenty, &tree, &e), -EMEDIUMTYPE);
    assert_int_equal(symlink("d", at(0, "link")), 0);
    assert_int_equal(file_tree_read(at(0, "link"), &plenty, &tree, &e), -EMEDIUMTYPE);
    assert_int_equal(file_tree_read(at(0, "none"), &plenty, &tree, &e), -ENOENT);
    assert_null(tree);
}

static void test_write_back(void **state)
{
    _cleanup_file_tree_ FileTree *tree = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *text = NULL;
    struct stat st;
    size_t n;

    write_file("log", "long text before", 0640);
    assert_int_equal(file_tree_read(at(0, "log"), &plenty, &tree, &e), 0);
    assert_int_equal(tree->n_entries, 1);
    assert_string_equal(tree->entries[0].path, "");
    assert_int_equal(file_tree_write_back(at(0, "log"), tree, "short", 5, &e), 0);
    assert_int_equal(fs_read_file(at(0, "log"), 100, &text, &n), 0);
    assert_string_equal(text, "short");
    assert_int_equal(stat(at(0, "log"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    /* Another file, and a link to one, in its place. */
    assert_int_equal(rename(at(0, "log"), at(1, "old")), 0);
    write_file("log", "another", 0640);
    assert_int_equal(file_tree_write_back(at(0, "log"), tree, "x", 1, &e), -ESTALE);
    assert_int_equal(unlink(at(0, "log")), 0);
    assert_int_equal(symlink("old", at(0, "log")), 0);
    assert_int_equal(file_tree_write_back(at(0, "log"), tree, "x", 1, &e), -ELOOP);
    assert_int_equal(unlink(at(0, "log")), 0);
    assert_int_equal(file_tree_write_back(at(0, "log"), tree, "x", 1, &e), -ENOENT);
    assert_int_equal(file_tree_write_back(at(1, "old"), tree, top, (2 << 20), &e), -EFBIG);
}

static void test_inspect(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    OciHostFile file;

    assert_int_equal(mkdir(at(0, "d"), 0), 0);
    assert_int_equal(chmod(at(0, "d"), 02775), 0);
    assert_int_equal(oci_host_inspect(at(0, "d"), &file, NULL, &e), 0);
    assert_int_equal(file.type, OCI_HOST_DIRECTORY);
    assert_int_equal(file.mode, 02775);
    assert_true(file.empty);
    write_file("d/f", "", 0644);
    assert_int_equal(oci_host_inspect(at(0, "d"), &file, NULL, &e), 0);
    assert_false(file.empty);
    assert_int_equal(oci_host_inspect(at(0, "d/f"), &file, NULL, &e), 0);
    assert_int_equal(file.type, OCI_HOST_REGULAR);
    assert_int_equal(oci_host_inspect(at(0, "d/f/g"), &file, NULL, &e), 0);
    assert_int_equal(file.type, OCI_HOST_MISSING);
    assert_int_equal(oci_host_inspect("/dev/null", &file, NULL, &e), 0);
    assert_int_equal(file.type, OCI_HOST_OTHER);
    assert_string_equal(file.type_name, "a character device");
    assert_int_equal(symlink("d", at(0, "l")), 0);
    assert_int_equal(oci_host_inspect(at(0, "l"), &file, NULL, &e), 0);
    assert_string_equal(file.type_name, "a symbolic link");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inspect, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
