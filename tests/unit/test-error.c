/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>

#include "base/error.h"

static void test_set_and_prefix(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_string_equal(error_message(&e), "no error");
    assert_int_equal(error_set_errno(&e, -ENOENT, "cannot open %s", "x"), -ENOENT);
    assert_string_equal(error_message(&e), "cannot open x: No such file or directory");
    assert_int_equal(error_prefix(&e, "pod %i", 3), -ENOENT);
    assert_string_equal(error_message(&e), "pod 3: cannot open x: No such file or directory");
    /* The new message may be made from the old one. */
    assert_int_equal(error_set(&e, -EIO, "%s!", e.message), -EIO);
    assert_string_equal(error_message(&e), "pod 3: cannot open x: No such file or directory!");
}

static void test_null_and_move(void **state)
{
    _cleanup_error_ Error a = ERROR_INIT, b = ERROR_INIT;

    assert_int_equal(error_set(NULL, -EPERM, "unheard"), -EPERM);
    assert_int_equal(error_prefix(&a, "nothing set"), 0);
    error_set(&a, -EBUSY, "first");
    error_set(&b, -EIO, "second");
    assert_int_equal(error_move(&a, &b), -EIO);
    assert_string_equal(error_message(&a), "second");
    assert_int_equal(b.number, 0);
    assert_null(b.message);
    assert_int_equal(error_move(NULL, &a), -EIO);
    assert_null(a.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_prefix),
        cmocka_unit_test(test_null_and_move),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
