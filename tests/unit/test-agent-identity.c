/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "agent/identity.h"

static uint8_t entropy[600];

/* A request that is fine, for tests to spoil. */
static Cloudhv__Agent__V1__IdentityRequest request(void)
{
    Cloudhv__Agent__V1__IdentityRequest q = CLOUDHV__AGENT__V1__IDENTITY_REQUEST__INIT;

    q.sandbox_id = (char *)"pod1";
    q.machine_id = (char *)"0123456789abcdef0123456789abcdef";
    q.entropy.data = entropy;
    q.entropy.len = 32;
    q.realtime_nsec = 1;
    return q;
}

static void assert_refused(const Cloudhv__Agent__V1__IdentityRequest *q)
{
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(identity_check(q, &e), -EINVAL);
    assert_non_null(e.message);
}

static void test_check(void **state)
{
    char long_name[70];
    Cloudhv__Agent__V1__IdentityRequest q = request();

    assert_int_equal(identity_check(&q, NULL), 0);
    q.hostname = (char *)"web-0.example_x";
    assert_int_equal(identity_check(&q, NULL), 0);
    q.hostname = (char *)"a b";
    assert_refused(&q);
    memset(long_name, 'x', sizeof(long_name));
    long_name[65] = 0;
    q.hostname = long_name;
    assert_refused(&q);
    long_name[64] = 0;
    assert_int_equal(identity_check(&q, NULL), 0);
    q = request();
    q.domainname = (char *)"x/y";
    assert_refused(&q);
    q = request();
    q.sandbox_id = (char *)"";
    assert_refused(&q);
    q = request();
    q.machine_id = (char *)"0123456789ABCDEF0123456789abcdef";
    assert_refused(&q);
    q.machine_id = (char *)"0123";
    assert_refused(&q);
    q = request();
    q.entropy.len = 31;
    assert_refused(&q);
    q.entropy.len = 513;
    assert_refused(&q);
    q.entropy.len = 512;
    assert_int_equal(identity_check(&q, NULL), 0);
}

static void test_sysctls_of_a_request(void **state)
{
    Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry entry =
        CLOUDHV__AGENT__V1__IDENTITY_REQUEST__SYSCTLS_ENTRY__INIT;
    Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry *entries[] = {&entry};
    Cloudhv__Agent__V1__IdentityRequest q = request();

    q.sysctls = entries;
    q.n_sysctls = 1;
    entry.key = (char *)"net.core.somaxconn";
    entry.value = (char *)"1024";
    assert_int_equal(identity_check(&q, NULL), 0);
    entry.key = (char *)"kernel.panic";
    assert_refused(&q);
}

static void test_allowed_sysctls(void **state)
{
    assert_true(identity_sysctl_is_allowed("net.ipv4.ip_forward"));
    assert_true(identity_sysctl_is_allowed("net/ipv4/conf/eth0.5/forwarding"));
    assert_true(identity_sysctl_is_allowed("kernel.shmmax"));
    assert_true(identity_sysctl_is_allowed("kernel.msgmax"));
    assert_true(identity_sysctl_is_allowed("kernel.sem"));
    assert_true(identity_sysctl_is_allowed("fs.mqueue.msg_max"));
    assert_false(identity_sysctl_is_allowed("kernel.semx"));
    assert_false(identity_sysctl_is_allowed("kernel.core_pattern"));
    assert_false(identity_sysctl_is_allowed("vm.overcommit_memory"));
    assert_false(identity_sysctl_is_allowed("fs.file-max"));
    assert_false(identity_sysctl_is_allowed("net"));
    assert_false(identity_sysctl_is_allowed("net..kernel.panic"));
    assert_false(identity_sysctl_is_allowed("net/../kernel/panic"));
    assert_false(identity_sysctl_is_allowed("network.x"));
    assert_false(identity_sysctl_is_allowed(""));
}

static void test_sysctl_paths(void **state)
{
    static const char *const cases[][2] = {
        {"net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"},
        {"net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"},
        {"net.ipv4.conf.eth0/5.forwarding", "/proc/sys/net/ipv4/conf/eth0.5/forwarding"},
        {"net/ipv4/conf/eth0.5/forwarding", "/proc/sys/net/ipv4/conf/eth0.5/forwarding"},
    };
    char *path;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        assert_int_equal(identity_sysctl_path(cases[i][0], &path), 0);
        assert_string_equal(path, cases[i][1]);
        free(path);
    }
    assert_int_equal(identity_sysctl_path("a..b", &path), -EINVAL);
    assert_int_equal(identity_sysctl_path("/a", &path), -EINVAL);
}

static void test_nothing_is_set_by_a_bad_request(void **state)
{
    Cloudhv__Agent__V1__IdentityRequest q = request();
    IdentityFacts facts;
    Identity *identity;

    q.entropy.len = 1;
    assert_int_equal(identity_new(&identity), 0);
    assert_int_equal(identity_take(identity, &q, &facts, NULL), -EINVAL);
    assert_false(identity_is_set(identity));
    identity_free(identity);
    assert_int_equal(identity_set_clock(0, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),           cmocka_unit_test(test_sysctls_of_a_request),
        cmocka_unit_test(test_allowed_sysctls), cmocka_unit_test(test_sysctl_paths),
        cmocka_unit_test(test_nothing_is_set_by_a_bad_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
