/* SPDX-License-Identifier: MIT */

/* Requests, dumps and their errors, with the kernel's answers. */

#include "net/rtnl.h"

#include <linux/filter.h>
#include <linux/if.h>

#include "net/link.h"
#include "net/tc.h"
#include "test-net.h"

static Rtnl *new_rtnl(void)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Rtnl *rtnl = NULL;

    if (rtnl_new(&rtnl, &e) < 0)
        fail_msg("%s", error_message(&e));
    return rtnl;
}

static void test_error_has_the_kernels_words(void **state)
{
    struct ifinfomsg ifi = {.ifi_index = 1};
    _cleanup_rtnl_ Rtnl *rtnl = new_rtnl();
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), 0);
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(nla_put_u32(message, IFLA_MTU, UINT32_MAX), 0);
    assert_int_equal(rtnl_call(rtnl, message, &e, "set the MTU of %s", "lo"), -EINVAL);
    assert_non_null(strstr(error_message(&e), "cannot set the MTU of lo: Invalid argument (kernel: "));
    /* The message may be sent again, and the socket goes on. */
    assert_int_equal(rtnl_call(rtnl, message, NULL, "%s", ""), -EINVAL);
    assert_int_equal(link_set_up(rtnl, 1, "lo", true, &e), 0);
}

static void test_error_without_words(void **state)
{
    _cleanup_rtnl_ Rtnl *rtnl = new_rtnl();
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(link_set_up(rtnl, 4711, "eth7", true, &e), -ENODEV);
    assert_non_null(strstr(error_message(&e), "cannot raise interface eth7: No such device"));
}

static void test_message_that_does_not_fit(void **state)
{
    struct ifinfomsg ifi = {.ifi_index = 1};
    const uint8_t big[2048] = {0};
    _cleanup_rtnl_ Rtnl *rtnl = new_rtnl();
    _cleanup_nlmsg_ struct nl_msg *small = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), 0);
    _cleanup_nlmsg_ struct nl_msg *roomy = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), sizeof(big));
    _cleanup_error_ Error e = ERROR_INIT;

    assert_true(nla_put(small, IFLA_IFALIAS, sizeof(big), big) < 0);
    assert_int_equal(nla_put(roomy, IFLA_IFALIAS, sizeof(big), big), 0);
    assert_int_equal(rtnl_call(rtnl, NULL, &e, "do %s", "nothing"), -ENOMEM);
    assert_non_null(strstr(error_message(&e), "cannot do nothing"));
    assert_int_equal(rtnl_dump(rtnl, NULL, RTM_NEWLINK, NULL, NULL, NULL, &e), -ENOMEM);
}

/* The longest program that the kernel takes. */
static void test_long_program(void **state)
{
    static struct sock_filter program[BPF_MAXINSNS];
    _cleanup_rtnl_ Rtnl *rtnl = new_rtnl();
    _cleanup_error_ Error e = ERROR_INIT;

    for (size_t i = 0; i < BPF_MAXINSNS; i++)
        program[i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
    run("ip link add eth0 type veth peer name x0");
    assert_int_equal(tc_ensure_ingress(rtnl, 2, "eth0", &e), 0);
    if (tc_redirect(rtnl, 2, "eth0", 1, program, BPF_MAXINSNS, 3, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_int_equal(tc_remove(rtnl, 2, "eth0", 1, &e), 1);
    assert_int_equal(tc_remove(rtnl, 2, "eth0", 1, &e), 0);
}

typedef struct Count {
    size_t n, fail_at;
} Count;

static int count(struct nlmsghdr *nlh, void *userdata)
{
    Count *c = userdata;

    return ++c->n == c->fail_at ? -E2BIG : 0;
}

/* A dump of many parts is read to its end though the callback has given up, and the next request works. */
static void test_dump(void **state)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    _cleanup_rtnl_ Rtnl *rtnl = new_rtnl();
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_GETLINK, 0, &ifi, sizeof(ifi), 0);
    _cleanup_error_ Error e = ERROR_INIT;
    Count all = {0}, some = {.fail_at = 3};

    run("for i in $(seq 40); do ip link add name p$i type veth peer name q$i; done");
    assert_int_equal(rtnl_dump(rtnl, message, RTM_NEWLINK, count, NULL, &some, &e), -E2BIG);
    assert_int_equal(some.n, 3);
    assert_int_equal(rtnl_dump(rtnl, message, RTM_NEWLINK, count, NULL, &all, &e), 0);
    assert_int_equal(all.n, 81);
    assert_int_equal(link_set_up(rtnl, 1, "lo", true, &e), 0);
}

static void test_descriptor_is_closed_on_exec(void **state)
{
    const char *command = "ls -l /proc/self/fd </dev/null 2>/dev/null | grep -q socket:";
    _cleanup_rtnl_ Rtnl *rtnl = NULL;

    if (succeeds(command))
        skip(); /* the test has got a socket from who started it */
    rtnl = new_rtnl();
    assert_false(succeeds(command));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_error_has_the_kernels_words, new_namespace),
        cmocka_unit_test_setup(test_error_without_words, new_namespace),
        cmocka_unit_test_setup(test_message_that_does_not_fit, new_namespace),
        cmocka_unit_test_setup(test_long_program, new_namespace),
        cmocka_unit_test_setup(test_dump, new_namespace),
        cmocka_unit_test_setup(test_descriptor_is_closed_on_exec, new_namespace),
    };

    if (geteuid() != 0)
        return TEST_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
