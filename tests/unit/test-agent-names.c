/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <string.h>

#include "agent/names.h"

static void test_names(void **state)
{
    char name[AGENT_NAME_MAX + 2];

    assert_true(name_is_valid("a"));
    assert_true(name_is_valid("i0123456789abcdef01"));
    assert_true(name_is_valid("io.kubernetes_x-1@b:c+d"));
    assert_false(name_is_valid(""));
    assert_false(name_is_valid("."));
    assert_false(name_is_valid(".."));
    assert_false(name_is_valid("-option"));
    assert_false(name_is_valid("a/b"));
    assert_false(name_is_valid("a b"));
    assert_false(name_is_valid("a\n"));
    assert_false(name_is_valid("\xc3\xa4"));
    memset(name, 'x', sizeof(name));
    name[AGENT_NAME_MAX] = 0;
    assert_true(name_is_valid(name));
    name[AGENT_NAME_MAX] = 'x';
    name[AGENT_NAME_MAX + 1] = 0;
    assert_false(name_is_valid(name));
}

static void test_paths(void **state)
{
    assert_true(name_path_is_valid("a"));
    assert_true(name_path_is_valid("..data"));
    assert_true(name_path_is_valid("..2024_01/ca.crt"));
    assert_true(name_path_is_valid("a b/c\n"));
    assert_false(name_path_is_valid(""));
    assert_false(name_path_is_valid("/a"));
    assert_false(name_path_is_valid("a/"));
    assert_false(name_path_is_valid("a//b"));
    assert_false(name_path_is_valid("."));
    assert_false(name_path_is_valid("a/./b"));
    assert_false(name_path_is_valid(".."));
    assert_false(name_path_is_valid("a/../../b"));
    assert_false(name_path_is_valid("a/.."));
}

static void test_long_paths(void **state)
{
    char path[5000];

    memset(path, 'a', sizeof(path));
    path[255] = 0;
    assert_true(name_path_is_valid(path));
    path[255] = 'a';
    path[256] = 0;
    assert_false(name_path_is_valid(path));
    path[256] = 'a';
    for (size_t i = 100; i < sizeof(path); i += 100)
        path[i] = '/';
    path[4095] = 0;
    assert_true(name_path_is_valid(path));
    path[4095] = 'a';
    path[4096] = 0;
    assert_false(name_path_is_valid(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_long_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
