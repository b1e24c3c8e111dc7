/* SPDX-License-Identifier: MIT */

/* Names of the shim's socket, and the version of the containerd that started it. */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "shim/address.h"
#include "shim/containerd-version.h"

static char *path_of(const char *directory, const char *address, const char *namespace, const char *id)
{
    char *path = NULL;

    assert_int_equal(address_socket_path(directory, address, namespace, id, &path, NULL), 0);
    return path;
}

static void test_names(void **state)
{
    char *path = path_of(NULL, "/run/containerd/containerd.sock", "k8s.io", "pod"), *hex;
    const char *const others[][3] = {
        {"/run/containerd/containerd.sock", "k8s.io", "pod2"},
        {"/run/containerd/containerd.sock", "default", "pod"},
        {"/run/other/containerd.sock", "k8s.io", "pod"},
        {"", "k8s.io", "pod"},
        {"/run/containerd/containerd.sock", "k8s.iop", "od"}, /* no two strings run together */
    };
    char *again = path_of(NULL, "/run/containerd/containerd.sock", "k8s.io", "pod");

    assert_string_equal(path, again);
    hex = strrchr(path, '/') + 1;
    assert_int_equal(hex - path, strlen(ADDRESS_DEFAULT_DIR) + 1);
    assert_memory_equal(path, ADDRESS_DEFAULT_DIR, strlen(ADDRESS_DEFAULT_DIR));
    assert_int_equal(strlen(hex), 64);
    assert_int_equal(strspn(hex, "0123456789abcdef"), 64);
    for (size_t i = 0; i < ELEMENTSOF(others); i++) {
        char *other = path_of(NULL, others[i][0], others[i][1], others[i][2]);

        assert_string_not_equal(path, other);
        free(other);
    }
    free(again);
    again = path_of("/custom", "/run/containerd/containerd.sock", "k8s.io", "pod");
    assert_memory_equal(again, "/custom/", 8);
    assert_string_equal(again + 8, hex);
    free(again);
    /* `delete` may not know containerd's address. */
    again = path_of(NULL, NULL, "k8s.io", "pod");
    free(path);
    path = path_of(NULL, "", "k8s.io", "pod");
    assert_string_equal(path, again);
    free(again);
    free(path);
}

static void test_too_long(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char directory[60], *path = NULL;

    memset(directory, 'x', sizeof(directory));
    directory[0] = '/';
    directory[sizeof(directory) - 1] = 0;
    assert_int_equal(address_socket_path(directory, "", "n", "i", &path, &e), -ENAMETOOLONG);
    assert_non_null(strstr(e.message, directory));
    assert_non_null(strstr(e.message, "longer than 107 bytes"));
    assert_null(path);
}

/* ------------------------------------------------------------------------------------------------------
 * version */

typedef struct Fixture {
    char top[64], cache[96], program[96], marks[96];
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    *state = f;
    snprintf(f->top, sizeof(f->top), "/tmp/test-version.XXXXXX");
    if (!mkdtemp(f->top))
        return -1;
    snprintf(f->cache, sizeof(f->cache), "%s/cache", f->top);
    snprintf(f->program, sizeof(f->program), "%s/containerd", f->top);
    snprintf(f->marks, sizeof(f->marks), "%s/marks", f->top);
    return 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;
    int r = fs_remove_tree(f->top);

    free(f);
    return r;
}

/* A containerd that is a script, which leaves a mark each time it runs. */
static void install(const Fixture *f, const char *script)
{
    char *text = string_printf("#!/bin/sh\necho run >>%s\n%s\n", f->marks, script);

    assert_int_equal(fs_write_file_atomic(f->program, text, strlen(text), 0755), 0);
    free(text);
}

static size_t runs(const Fixture *f)
{
    struct stat st;

    return stat(f->marks, &st) < 0 ? 0 : (size_t)st.st_size / 4;
}

static void test_version_is_remembered(void **state)
{
    Fixture *f = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    install(f, "echo containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4");
    assert_int_equal(containerd_version_major(f->cache, f->program, &e), 2);
    assert_int_equal(runs(f), 1);
    assert_int_equal(containerd_version_major(f->cache, f->program, &e), 2);
    assert_int_equal(runs(f), 1);
    /* After an update it is another file. */
    install(f, "echo containerd containerd.io 1.7.28 b98a3aace656");
    assert_int_equal(containerd_version_major(f->cache, f->program, &e), 1);
    assert_int_equal(runs(f), 2);
}

static void test_without_cache(void **state)
{
    Fixture *f = *state;

    install(f, "echo containerd x v2.0.0 y");
    assert_int_equal(fs_write_file_atomic(f->cache, "", 0, 0600), 0);
    assert_int_equal(containerd_version_major(f->cache, f->program, NULL), 2);
    assert_int_equal(containerd_version_major(f->cache, f->program, NULL), 2);
    assert_int_equal(runs(f), 2);
}

static void fail_version(const Fixture *f, const char *program, const char *words)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(containerd_version_major(f->cache, program, &e), 0);
    if (!strstr(error_message(&e), words))
        fail_msg("\"%s\" is not in \"%s\"", words, error_message(&e));
}

static void test_failures(void **state)
{
    Fixture *f = *state;

    fail_version(f, NULL, "\"\" is not known by an absolute path");
    fail_version(f, "containerd", "\"containerd\" is not known by an absolute path");
    fail_version(f, "/nowhere/containerd", "\"/nowhere/containerd\"");
    install(f, "echo no words");
    fail_version(f, f->program, "--version names no version");
    install(f, "yes containerd | head -c 100000");
    fail_version(f, f->program, "--version names no version");
    install(f, "exit 1");
    fail_version(f, f->program, "--version names no version");
    /* What failed is not remembered. */
    assert_int_equal(access(f->cache, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test_setup_teardown(test_version_is_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
