/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/trees.h"
#include "base/fs.h"

typedef Cloudhv__Agent__V1__FileEntry FileEntry;

enum {
    REGULAR = CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__REGULAR,
    DIRECTORY = CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__DIRECTORY,
    SYMLINK = CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__SYMLINK,
};

typedef struct Fixture {
    char top[64];
    Trees *trees;
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    snprintf(f->top, sizeof(f->top), "/tmp/test-trees.XXXXXX");
    assert_non_null(mkdtemp(f->top));
    assert_int_equal(trees_new(f->top, &f->trees, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    trees_free(f->trees);
    assert_int_equal(fs_remove_tree(f->top), 0);
    free(f);
    return 0;
}

static int add(Fixture *f, const char *tree, const char *container, const char *path, int type, const char *data,
               uint64_t offset)
{
    Cloudhv__Agent__V1__AddFilesRequest q = CLOUDHV__AGENT__V1__ADD_FILES_REQUEST__INIT;
    FileEntry entry = CLOUDHV__AGENT__V1__FILE_ENTRY__INIT, *entries[] = {&entry};

    q.tree = (char *)tree;
    q.container_id = (char *)container;
    q.entries = entries;
    q.n_entries = 1;
    entry.path = (char *)path;
    entry.type = (Cloudhv__Agent__V1__FileEntry__Type)type;
    entry.mode = type == DIRECTORY ? 0750 : 0640;
    entry.uid = getuid();
    entry.gid = getgid();
    entry.data.data = (uint8_t *)data;
    entry.data.len = data ? strlen(data) : 0;
    entry.offset = offset;
    entry.mtime_sec = 1000000;
    return trees_add(f->trees, &q, NULL);
}

static void assert_file(Fixture *f, const char *tree, const char *path, const char *text)
{
    _cleanup_free_ void *data = NULL;
    bool truncated;
    size_t n;

    assert_int_equal(trees_read(f->trees, tree, path, 0, &data, &n, &truncated, NULL), 0);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(data, text, n);
    assert_false(truncated);
}

static int read_error(Fixture *f, const char *tree, const char *path)
{
    void *data;
    bool truncated;
    size_t n;

    return trees_read(f->trees, tree, path, 0, &data, &n, &truncated, NULL);
}

static char *path_of(Fixture *f, const char *rest)
{
    char *path = fs_join(f->top, rest);

    assert_non_null(path);
    return path;
}

static void test_files(void **state)
{
    _cleanup_free_ char *file = NULL, *directory = NULL;
    Fixture *f = *state;
    struct stat st;

    assert_int_equal(add(f, "conf", "c1", "sub", DIRECTORY, NULL, 0), 0);
    assert_int_equal(add(f, "conf", "c1", "sub/key", REGULAR, "one", 0), 0);
    assert_int_equal(add(f, "conf", "c1", "sub/key", REGULAR, "two", 3), 0);
    assert_file(f, "conf", "sub/key", "onetwo");
    /* A file that is replaced keeps nothing, and is the same file. */
    assert_int_equal(add(f, "conf", "c1", "sub/key", REGULAR, "x", 0), 0);
    assert_file(f, "conf", "sub/key", "x");
    assert_int_equal(add(f, "conf", "c1", "sub/key", REGULAR, "x", 5), -EINVAL);
    assert_int_equal(add(f, "conf", "c1", "deep/er/file", REGULAR, "", 0), 0);
    assert_file(f, "conf", "deep/er/file", "");
    file = path_of(f, "conf/sub/key");
    directory = path_of(f, "conf/sub");
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_mtim.tv_sec, 1000000);
    assert_int_equal(stat(directory, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0750);
}

static void test_single_file(void **state)
{
    Fixture *f = *state;

    assert_int_equal(add(f, "hosts", "c1", "", REGULAR, "127.0.0.1\n", 0), 0);
    assert_file(f, "hosts", "", "127.0.0.1\n");
    assert_int_equal(add(f, "hosts", "c1", "x", REGULAR, "", 0), -ENOTDIR);
    assert_int_equal(add(f, "link", "c1", "", SYMLINK, "/etc/passwd", 0), -EINVAL);
}

static void test_links(void **state)
{
    _cleanup_free_ char *link = NULL;
    char target[32] = "";
    Fixture *f = *state;

    assert_int_equal(add(f, "conf", "c1", "..v1/key", REGULAR, "1", 0), 0);
    assert_int_equal(add(f, "conf", "c1", "..v2/key", REGULAR, "2", 0), 0);
    assert_int_equal(add(f, "conf", "c1", "..data", SYMLINK, "..v1", 0), 0);
    assert_int_equal(add(f, "conf", "c1", "..data", SYMLINK, "..v2", 0), 0);
    assert_int_equal(add(f, "conf", "c1", "key", SYMLINK, "..data/key", 0), 0);
    link = path_of(f, "conf/..data");
    assert_int_equal(readlink(link, target, sizeof(target) - 1), 4);
    assert_string_equal(target, "..v2");
    assert_int_equal(add(f, "conf", "c1", "empty", SYMLINK, "", 0), -EINVAL);
    /* Reading and writing never follow one. */
    assert_int_equal(read_error(f, "conf", "key"), -ELOOP);
    assert_int_equal(read_error(f, "conf", "..data/key"), -ELOOP);
    assert_int_equal(add(f, "conf", "c1", "..data/new", REGULAR, "x", 0), -ENOTDIR);
    assert_int_equal(add(f, "conf", "c1", "key", REGULAR, "x", 0), -ELOOP);
}

static void test_names_are_checked(void **state)
{
    static const char *const paths[] = {"../x", "/etc/x", "a/../../x", "a//b", ".", "a/"};
    Fixture *f = *state;

    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        assert_int_equal(add(f, "conf", "c1", paths[i], REGULAR, "x", 0), -EINVAL);
        assert_int_equal(read_error(f, "conf", paths[i]), -EINVAL);
    }
    assert_int_equal(add(f, "../conf", "c1", "x", REGULAR, "x", 0), -EINVAL);
    assert_int_equal(add(f, "", "c1", "x", REGULAR, "x", 0), -EINVAL);
    assert_int_equal(add(f, "conf", "../c", "x", REGULAR, "x", 0), -EINVAL);
    assert_int_equal(add(f, "conf", "c1", "x", 7, "x", 0), -EINVAL);
    assert_int_equal(read_error(f, "..", "x"), -EINVAL);
    assert_int_equal(read_error(f, "none", "x"), -ENOENT);
    assert_int_equal(read_error(f, "none", ""), -ENOENT);
}

/* What a container could put into a tree that it has mounted writable. */
static void test_hostile_tree(void **state)
{
    _cleanup_free_ char *fifo = NULL, *out = NULL, *parent = NULL;
    Fixture *f = *state;

    assert_int_equal(add(f, "conf", "c1", "x", REGULAR, "x", 0), 0);
    fifo = path_of(f, "conf/fifo");
    out = path_of(f, "conf/out");
    parent = path_of(f, "conf/parent");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(symlink("/etc", out), 0);
    assert_int_equal(symlink("..", parent), 0);
    /* None of them blocks, none leads out. */
    assert_int_equal(read_error(f, "conf", "fifo"), -EINVAL);
    assert_int_equal(add(f, "conf", "c1", "fifo", REGULAR, "x", 0), -ENXIO);
    assert_int_equal(read_error(f, "conf", "out/passwd"), -ELOOP);
    assert_int_equal(read_error(f, "conf", "parent/conf/x"), -ELOOP);
    assert_int_equal(add(f, "conf", "c1", "out/new", REGULAR, "x", 0), -ENOTDIR);
    assert_int_equal(access("/etc/new", F_OK), -1);
}

static void test_reading_is_limited(void **state)
{
    _cleanup_free_ void *data = NULL;
    Fixture *f = *state;
    bool truncated;
    size_t n;

    assert_int_equal(add(f, "log", "c1", "", REGULAR, "0123456789", 0), 0);
    assert_int_equal(trees_read(f->trees, "log", "", 4, &data, &n, &truncated, NULL), 0);
    assert_int_equal(n, 4);
    assert_true(truncated);
    free(TAKE_PTR(data));
    assert_int_equal(trees_read(f->trees, "log", "", 10, &data, &n, &truncated, NULL), 0);
    assert_int_equal(n, 10);
    assert_false(truncated);
}

static void test_removed_with_the_container(void **state)
{
    Fixture *f = *state;

    assert_int_equal(add(f, "one", "c1", "a/b", REGULAR, "x", 0), 0);
    assert_int_equal(add(f, "two", "c1", "", REGULAR, "x", 0), 0);
    assert_int_equal(add(f, "three", "c2", "", REGULAR, "x", 0), 0);
    assert_int_equal(add(f, "pod", "", "", REGULAR, "x", 0), 0);
    trees_remove_container(f->trees, "c1");
    assert_int_equal(read_error(f, "one", "a/b"), -ENOENT);
    assert_int_equal(read_error(f, "two", ""), -ENOENT);
    assert_file(f, "three", "", "x");
    assert_file(f, "pod", "", "x");
}

static void test_number_is_limited(void **state)
{
    Fixture *f = *state;
    char name[16];

    for (int i = 0; i < AGENT_TREES_MAX; i++) {
        snprintf(name, sizeof(name), "t%i", i);
        assert_int_equal(add(f, name, "c1", "", REGULAR, "", 0), 0);
    }
    assert_int_equal(add(f, "more", "c1", "", REGULAR, "", 0), -ENOSPC);
    assert_int_equal(add(f, "t7", "c1", "", REGULAR, "x", 0), 0);
    trees_remove_container(f->trees, "c1");
    assert_int_equal(add(f, "more", "c1", "", REGULAR, "", 0), 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_files),
        TEST(test_single_file),
        TEST(test_links),
        TEST(test_names_are_checked),
        TEST(test_hostile_tree),
        TEST(test_reading_is_limited),
        TEST(test_removed_with_the_container),
        TEST(test_number_is_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
