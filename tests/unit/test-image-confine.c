/* SPDX-License-Identifier: MIT */

/* What a converter sees and may do, and how its failures are told. tests/unit/fake-mkfs.c is the converter.
 */

#include "test-image.h"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "image/confine.h"

enum { UID = 123456 };

static Fixture *layers_setup(void **state, Layers *l, char **lower)
{
    Fixture *f = *state;

    need_overlay();
    *l = (Layers){.lower = lower, .n_lower = 2, .upper = make_directory(f, "upper")};
    lower[0] = make_directory(f, "top layer");
    lower[1] = make_directory(f, "bottom:layer");
    put_text(below(f, "top layer/both"), "top");
    put_text(below(f, "bottom:layer/both"), "bottom");
    put_text(below(f, "bottom:layer/removed"), "x");
    put_text(below(f, "bottom:layer/secret"), "read by its capability");
    put_text(below(f, "upper/written"), "x");
    assert_int_equal(chmod(below(f, "bottom:layer/secret"), 0), 0);
    assert_int_equal(mknod(below(f, "top layer/removed"), S_IFCHR, makedev(0, 0)), 0);
    put_text(below(f, "out"), "");
    assert_int_equal(chown(below(f, "out"), UID, UID), 0);
    make_directory(f, "place");
    return f;
}

static int run(const Fixture *f, const Layers *l, bool with_upper, uint64_t timeout_usec, Error *e)
{
    ConfinedLimits limits = {.file_size = 1 << 20, .timeout_usec = timeout_usec, .uid = UID};

    return confined_mkfs_erofs(FAKE_MKFS, l, with_upper, below(f, "out"), below(f, "place"), &limits, e);
}

static char *report_of(const Fixture *f)
{
    char *text;

    assert_int_equal(fs_read_file(below(f, "out"), 1 << 20, &text, NULL), 0);
    return text;
}

static void assert_line(const char *report, const char *line)
{
    char wanted[200];

    snprintf(wanted, sizeof(wanted), "%s\n", line);
    if (!strstr(report, wanted))
        fail_msg("\"%s\" is not in:\n%s", line, report);
}

static void test_view(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *report = NULL;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    if (run(f, &l, false, 20 * USEC_PER_SEC, &e) < 0)
        fail_msg("%s", error_message(&e));
    report = report_of(f);
    assert_line(report, "/: empty mkfs.erofs out tmp view");
    assert_line(report, "/view: both secret");
    /* Nothing of it is left on the host. */
    assert_int_equal(count_entries(below(f, "place")), 0);
}

static void test_upper(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *report = NULL;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    if (run(f, &l, true, 20 * USEC_PER_SEC, &e) < 0)
        fail_msg("%s", error_message(&e));
    report = report_of(f);
    assert_line(report, "/view: both secret written");
}

static void test_confinement(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *report = NULL;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    if (run(f, &l, false, 20 * USEC_PER_SEC, &e) < 0)
        fail_msg("%s", error_message(&e));
    report = report_of(f);
    assert_line(report, "uid 123456 gid 123456 groups 0");
    assert_line(report, "capabilities 4"); /* CAP_DAC_READ_SEARCH */
    assert_line(report, "no-new-privileges 1");
    assert_line(report, "loopback down");
    assert_line(report, "file-size 1048576");
    assert_line(report, "core 0");
    assert_line(report, "write to view EROFS");
    assert_line(report, "write to root EACCES");
    assert_line(report, "write to program EACCES");
    assert_line(report, "mount EPERM");
    assert_line(report, "secret read by its capability");
}

static void test_single_layer(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *report = NULL;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    l.lower = lower + 1;
    l.n_lower = 1;
    if (run(f, &l, false, 20 * USEC_PER_SEC, &e) < 0)
        fail_msg("%s", error_message(&e));
    report = report_of(f);
    assert_line(report, "/view: both removed secret");
}

static void test_failure(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    put_text(below(f, "top layer/do"), "fail");
    assert_int_equal(run(f, &l, false, 20 * USEC_PER_SEC, &e), -EIO);
    /* The last words of the program. */
    assert_words(&e, "mkfs.erofs failed with ");
    assert_words(&e, ": no luck with /view");
    assert_null(strstr(e.message, "first words"));
}

static void test_too_large(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char *lower[2];
    struct stat st;
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    put_text(below(f, "top layer/do"), "grow");
    assert_int_equal(run(f, &l, false, 20 * USEC_PER_SEC, &e), -EFBIG);
    assert_words(&e, "mkfs.erofs: the result would be larger than 1 MiB");
    assert_int_equal(stat(below(f, "out"), &st), 0);
    assert_in_range(st.st_size, 0, 1 << 20);
}

static void test_deadline(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    put_text(below(f, "top layer/do"), "sleep");
    assert_int_equal(run(f, &l, false, USEC_PER_SEC, &e), -ETIMEDOUT);
    assert_words(&e, "mkfs.erofs did not end within 1 seconds");
}

static void test_missing(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ConfinedLimits limits = {.file_size = 1 << 20, .timeout_usec = USEC_PER_SEC, .uid = UID};
    char *lower[2];
    Layers l;
    Fixture *f = layers_setup(state, &l, lower);

    assert_int_equal(confined_mkfs_erofs("/nowhere/mkfs.erofs", &l, false, below(f, "out"), below(f, "place"),
                                         &limits, &e),
                     -ENOENT);
    assert_words(&e, "cannot execute /nowhere/mkfs.erofs (mkfs_erofs_binary)");
    lower[1] = below(f, "no such layer");
    assert_true(run(f, &l, false, USEC_PER_SEC, &e) < 0);
    assert_words(&e, "mkfs.erofs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_view, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_upper, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_confinement, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_single_layer, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_failure, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_too_large, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deadline, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_missing, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
