/* SPDX-License-Identifier: MIT */

/* The mounts of a root file system: what they name, their identity and their sizes. */

#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "image/layers.h"
#include "image/scratch.h"

static char top[64];

static int setup(void **state)
{
    snprintf(top, sizeof(top), "/tmp/test-layers.XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    return fs_remove_tree(top);
}

static char *below(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
    return path;
}

static char *directory(const char *name)
{
    char *path = below(name);

    assert_int_equal(fs_mkdir_p(path, 0755), 0);
    return path;
}

static void put_file(const char *name, off_t size)
{
    int fd = open(below(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

static int parse(const char *type, const char *source, const char *const *options, size_t n, Layers *ret,
                 Error *e)
{
    return layers_parse(&(ImageMount){.type = type, .source = source, .options = options, .n_options = n}, 1,
                        ret, e);
}

/* ----------------------------------------------------------------------------------------------------
 * parsing */

static void test_overlay(void **state)
{
    static const char *const options[] = {"index=off", "workdir=/s/3/work", "upperdir=/s/3/fs",
                                          "lowerdir=/s/2/fs:/s/1/fs", "userxattr"};
    _cleanup_layers_ Layers l = {0};

    assert_int_equal(parse("overlay", "overlay", options, 5, &l, NULL), 0);
    assert_int_equal(l.n_lower, 2);
    assert_string_equal(l.lower[0], "/s/2/fs");
    assert_string_equal(l.lower[1], "/s/1/fs");
    assert_string_equal(l.upper, "/s/3/fs");
}

static void test_escapes(void **state)
{
    static const char *const options[] = {"lowerdir=/a\\:b:/c\\\\d:/e"};
    _cleanup_layers_ Layers l = {0};

    assert_int_equal(parse("overlay", "overlay", options, 1, &l, NULL), 0);
    assert_int_equal(l.n_lower, 3);
    assert_string_equal(l.lower[0], "/a:b");
    assert_string_equal(l.lower[1], "/c\\d");
    assert_string_equal(l.lower[2], "/e");
    assert_null(l.upper);
}

static void test_bind(void **state)
{
    static const char *const read_only[] = {"rbind", "ro"}, *const writable[] = {"rbind", "rw"};
    _cleanup_layers_ Layers a = {0}, b = {0};

    assert_int_equal(parse("bind", "/s/1/fs", read_only, 2, &a, NULL), 0);
    assert_int_equal(a.n_lower, 1);
    assert_string_equal(a.lower[0], "/s/1/fs");
    assert_null(a.upper);
    /* What is written there is the container's own. */
    assert_int_equal(parse("rbind", "/s/1/fs", writable, 2, &b, NULL), 0);
    assert_int_equal(b.n_lower, 0);
    assert_string_equal(b.upper, "/s/1/fs");
}

static void refuse(const char *type, const char *source, const char *option, int number, const char *words)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Layers l = {0};

    assert_int_equal(parse(type, source, &option, option ? 1 : 0, &l, &e), number);
    if (!strstr(error_message(&e), words))
        fail_msg("\"%s\" is not in \"%s\"", words, error_message(&e));
    assert_null(l.lower);
    assert_null(l.upper);
}

static void test_refusals(void **state)
{
    ImageMount two[2] = {{.type = "bind", .source = "/a"}, {.type = "bind", .source = "/b"}};
    _cleanup_error_ Error e = ERROR_INIT;
    char many[LAYERS_MAX * 4 + 64] = "lowerdir=";
    Layers l = {0};

    refuse("erofs", "/dev/loop0", NULL, -EOPNOTSUPP, "\"erofs\"");
    refuse("overlay", "overlay", "upperdir=/u", -EINVAL, "without lowerdir");
    refuse("overlay", "overlay", "lowerdir=a/b", -EINVAL, "\"a/b\" is no absolute path");
    refuse("overlay", "overlay", "lowerdir=/a::/b", -EINVAL, "\"\" is no absolute path");
    refuse("overlay", "overlay", "upperdir=u", -EINVAL, "\"u\" is no absolute path");
    refuse("bind", "", "ro", -EINVAL, "\"\" is no absolute path");
    refuse("bind", "fs", NULL, -EINVAL, "\"fs\" is no absolute path");
    for (int i = 0; i <= LAYERS_MAX; i++)
        strcat(many, "/l:");
    refuse("overlay", "overlay", many, -E2BIG, "more than 500 layers");
    assert_int_equal(layers_parse(two, 2, &l, &e), -EOPNOTSUPP);
    assert_non_null(strstr(e.message, "2 mounts"));
    assert_int_equal(layers_parse(two, 0, &l, NULL), -EOPNOTSUPP);
}

/* -------------------------------------------------------------------------------------------------------
 * upper */

static void test_upper(void **state)
{
    Layers none = {0}, l = {.upper = directory("upper")}, missing = {.upper = below("missing")};
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(layers_upper_is_used(&none, NULL), 0);
    assert_int_equal(layers_upper_is_used(&l, NULL), 0);
    put_file("upper/" SCRATCH_FILE_NAME, 10);
    assert_int_equal(layers_upper_is_used(&l, NULL), 0);
    put_file("upper/.hidden", 0);
    assert_int_equal(layers_upper_is_used(&l, NULL), 1);
    assert_int_equal(layers_upper_is_used(&missing, &e), -ENOENT);
    assert_non_null(strstr(e.message, "/missing"));
}

/* ----------------------------------------------------------------------------------------------------
 * identity */

static int identity(char *a, char *b, char ret[static SHA256_HEX_SIZE])
{
    char *lower[] = {a, b};

    return layers_identity(&(Layers){.lower = lower, .n_lower = b ? 2 : 1}, ret, NULL);
}

static void test_identity(void **state)
{
    char *a = directory("a"), *b = directory("b"), one[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE];

    if (identity(a, NULL, one) == 0) {
        print_message("%s: the file system knows no time of birth\n", top);
        skip();
    }
    assert_int_equal(identity(a, b, one), 1);
    assert_int_equal(strlen(one), 64);
    assert_int_equal(identity(a, b, other), 1);
    assert_string_equal(one, other);
    assert_int_equal(identity(b, a, other), 1);
    assert_string_not_equal(one, other);
    assert_int_equal(identity(a, NULL, other), 1);
    assert_string_not_equal(one, other);
    /* The content does not change it: layers don't change. */
    put_file("a/file", 5);
    assert_int_equal(identity(a, b, other), 1);
    assert_string_equal(one, other);
    /* A directory of the same name in a refilled store is another one. */
    assert_int_equal(fs_remove_tree(a), 0);
    directory("a");
    assert_int_equal(identity(a, b, other), 1);
    assert_string_not_equal(one, other);
}

static void test_identity_refusals(void **state)
{
    char *file = below("file"), *missing = below("missing"), hex[SHA256_HEX_SIZE] = "untouched";
    _cleanup_error_ Error e = ERROR_INIT;

    put_file("file", 1);
    assert_int_equal(layers_identity(&(Layers){.lower = &file, .n_lower = 1}, hex, &e), -ENOTDIR);
    assert_non_null(strstr(e.message, "/file of the image is no directory"));
    assert_int_equal(layers_identity(&(Layers){.lower = &missing, .n_lower = 1}, hex, &e), -ENOENT);
    assert_non_null(strstr(e.message, "/missing"));
    assert_string_equal(hex, "untouched");
}

/* -------------------------------------------------------------------------------------------------------
 * sizes */

static void test_sizes(void **state)
{
    char *lower = directory("lower/deep/deeper"), *upper = directory("upper");
    Layers l = {.lower = &lower, .n_lower = 1, .upper = upper};
    _cleanup_error_ Error e = ERROR_INIT;

    lower = below("lower");
    put_file("lower/deep/deeper/large", 3 << 20);
    put_file("upper/" SCRATCH_FILE_NAME, 100 << 20);
    assert_int_equal(symlink("/", below("lower/link")), 0);
    assert_int_equal(layers_check_sizes(&l, 3 << 20, &e), 0);
    assert_int_equal(layers_check_sizes(&l, 2 << 20, &e), -EFBIG);
    assert_non_null(
        strstr(e.message, "/lower/deep/deeper/large has 3 MiB, but an image may have 2 (image_max_mb)"));
    put_file("upper/written", 4 << 20);
    assert_int_equal(layers_check_sizes(&l, 3 << 20, &e), -EFBIG);
    assert_non_null(strstr(e.message, "/upper/written"));
    l.lower[0] = below("missing");
    assert_int_equal(layers_check_sizes(&l, 3 << 20, &e), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_bind),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test_setup_teardown(test_upper, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
