/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "ctl/command.h"

static void test_output(void **state)
{
    const char *argv[] = {"sh", "-c", "echo one; echo two >&2; echo three", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *text = NULL;

    assert_int_equal(command_output(argv, 100, 10 * USEC_PER_SEC, &text, &e), 0);
    assert_string_equal(text, "one\nthree\n");
}

static void test_failure_says_why(void **state)
{
    const char *argv[] = {"sh", "-c", "echo early >&2; echo 'no such thing' >&2; echo; exit 3", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    char *text = NULL;

    assert_int_equal(command_output(argv, 100, 10 * USEC_PER_SEC, &text, &e), -EIO);
    assert_string_equal(error_message(&e), "sh ended with exit status 3: no such thing");
    assert_null(text);
}

static void test_missing_program(void **state)
{
    const char *argv[] = {"/no/such/program", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    char *text = NULL;

    assert_true(command_output(argv, 100, USEC_PER_SEC, &text, &e) < 0);
    assert_non_null(strstr(error_message(&e), "/no/such/program"));
}

static void test_limits(void **state)
{
    const char *much[] = {"sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo 0123456789; i=$((i+1)); done",
                          NULL};
    const char *exactly[] = {"sh", "-c", "printf 12345", NULL};
    const char *slow[] = {"sleep", "60", NULL};
    const char *daemon[] = {"sh", "-c", "exec >/dev/null 2>&1; sleep 60", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    uint64_t start = loop_now();
    char *text = NULL;

    assert_int_equal(command_output(much, 1000, 10 * USEC_PER_SEC, &text, &e), -EFBIG);
    assert_int_equal(command_output(slow, 1000, USEC_PER_SEC / 5, &text, &e), -ETIMEDOUT);
    /* Output that ended is not the program's end. */
    assert_int_equal(command_output(daemon, 1000, USEC_PER_SEC / 5, &text, &e), -EIO);
    assert_true(loop_now() - start < 10 * USEC_PER_SEC);
    assert_int_equal(command_output(exactly, 5, 10 * USEC_PER_SEC, &text, &e), 0);
    assert_string_equal(text, "12345");
    free(text);
}

static void test_find(void **state)
{
    _cleanup_free_ char *found = command_find("sh", "/nowhere::/bin:/usr/bin");
    _cleanup_free_ char *absolute = command_find("/bin/sh", "");

    assert_string_equal(found, "/bin/sh");
    assert_string_equal(absolute, "/bin/sh");
    assert_null(command_find("sh", ""));
    assert_null(command_find("/etc/passwd", "/bin"));
    assert_null(command_find("no-such-program-at-all", "/bin:/usr/bin"));
}

static void test_versions(void **state)
{
    static const struct {
        const char *text;
        unsigned major, minor;
    } versions[] = {
        {"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", 7, 2},
        {"cloud-hypervisor v53.0\n", 53, 0},
        {"v52.0-dirty", 52, 0},
        {"mkfs.erofs (erofs-utils) 1.8.6\n", 1, 8},
        {"containerd github.com/containerd/containerd/v2 2.3.7+unknown \n", 2, 3},
        {"containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1", 1, 7},
        {"6.12.117-cloudhv", 6, 12},
        {"5.10.0-32-cloud-amd64", 5, 10},
    };
    unsigned major = 0, minor = 0;

    for (size_t i = 0; i < ELEMENTSOF(versions); i++) {
        assert_int_equal(version_parse(versions[i].text, &major, &minor), 0);
        assert_int_equal(major, versions[i].major);
        assert_int_equal(minor, versions[i].minor);
    }
    assert_int_equal(version_parse("", &major, &minor), -EINVAL);
    assert_int_equal(version_parse("qemu-system-x86_64: 12", &major, &minor), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_failure_says_why),
        cmocka_unit_test(test_missing_program),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_versions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
