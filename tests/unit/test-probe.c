/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "vmm/probe.h"

static void test_missing_device(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(probe_kvm("/dev/no-such-kvm", USEC_PER_SEC, &e), 0);
    assert_int_equal(e.number, -ENOENT);
    assert_non_null(strstr(error_message(&e), "/dev/no-such-kvm"));
}

static void test_not_kvm(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(probe_kvm("/dev/null", USEC_PER_SEC, &e), 0);
    assert_true(e.number < 0);
    assert_non_null(strstr(error_message(&e), "KVM's API"));
    assert_int_equal(probe_kvm("/", USEC_PER_SEC, NULL), 0);
}

/* What the answer is depends on the machine; that there is one in time, with a reason, does not. */
static void test_this_machine(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    uint64_t start = loop_now();
    int r = probe_kvm("/dev/kvm", 3 * USEC_PER_SEC, &e);

    assert_true(loop_now() - start < 4 * USEC_PER_SEC);
    print_message("%i: %s (%llu us)\n", r, error_message(&e), (unsigned long long)(loop_now() - start));
    assert_true(r == 0 || r == 1);
    if (r == 1)
        assert_int_equal(e.number, 0);
    else
        assert_true(e.number < 0);
    if (r == 0 && access("/sys/module/kvm_pvm", F_OK) == 0)
        assert_non_null(strstr(error_message(&e), "kvm_pvm"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_device),
        cmocka_unit_test(test_not_kvm),
        cmocka_unit_test(test_this_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
