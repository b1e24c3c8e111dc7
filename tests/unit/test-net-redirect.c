/* SPDX-License-Identifier: MIT */

/* TAP and redirect with real devices: a veth pair stands for the CNI interface and the world outside. */

#include "net/redirect.h"

#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include "net/interfaces.h"
#include "net/netns.h"
#include "net/tap.h"
#include "test-net.h"

enum { VNET_HEADER = 10 };

typedef struct World {
    Rtnl *rtnl;
    NetConfig config;
    int tap_fd;
    unsigned tap_index;
    int outside_fd; /* packet socket on the veth's other end */
    char tap[NET_NAME_SIZE];
} World;

static int packet_socket(const char *interface)
{
    struct sockaddr_ll sa = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(interface)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static int setup(void **state)
{
    World *w = calloc(1, sizeof(*w));
    _cleanup_error_ Error e = ERROR_INIT;

    if (new_namespace(state) < 0)
        return -1;
    run("ip link set lo up");
    run("ip link add eth0 address 0a:58:0a:01:02:03 mtu 1400 type veth peer name outside mtu 1400");
    /* Outside is silent: what is seen there comes from the guest. */
    run("echo 1 >/proc/sys/net/ipv6/conf/outside/disable_ipv6");
    run("ip addr add 10.1.2.3/24 dev eth0; ip addr add fd00::3/64 dev eth0 nodad");
    run("ip link set eth0 up");
    assert_int_equal(rtnl_new(&w->rtnl, &e), 0);
    tap_name("pod-1", 0, w->tap);
    assert_int_equal(tap_new(w->rtnl, w->tap, 0, &w->tap_fd, &w->tap_index, &e), 0);
    assert_int_equal(interfaces_read(w->rtnl, &w->config, &e), 0);
    assert_int_equal(w->config.n_interfaces, 1);
    run("ip link set outside up");
    w->outside_fd = packet_socket("outside");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    World *w = *state;

    close(w->outside_fd);
    if (w->tap_fd >= 0)
        close(w->tap_fd);
    net_config_clear(&w->config);
    rtnl_free(w->rtnl);
    free(w);
    return 0;
}

static void install(World *w)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (redirect_install(w->rtnl, &w->config.interfaces[0], w->tap_index, &e) < 0)
        fail_msg("%s", error_message(&e));
}

static void guest_sends(World *w, const Frame *f)
{
    uint8_t buffer[VNET_HEADER + sizeof(f->bytes)] = {0};

    memcpy(buffer + VNET_HEADER, f->bytes, f->n);
    assert_int_equal(write(w->tap_fd, buffer, VNET_HEADER + f->n), VNET_HEADER + f->n);
}

/* Whether exactly this frame arrives; skips what the kernel itself sends. */
static bool arrives(int fd, const Frame *f, size_t header, int timeout_msec)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint8_t buffer[2048];
        ssize_t n;

        if (poll(&p, 1, timeout_msec) <= 0)
            return false;
        n = read(fd, buffer, sizeof(buffer));
        if (n == (ssize_t)(header + f->n) && memcmp(buffer + header, f->bytes, f->n) == 0)
            return true;
    }
}

static bool comes_out(World *w, Frame f, int timeout_msec)
{
    guest_sends(w, &f);
    return arrives(w->outside_fd, &f, 0, timeout_msec);
}

static void test_guest_to_outside(void **state)
{
    World *w = *state;
    uint64_t before, after;

    assert_false(comes_out(w, frame_ip4(pod_mac, "10.1.2.3"), 100)); /* not before install() */
    install(w);
    assert_int_equal(redirect_get_dropped(w->rtnl, w->tap_index, &before), 0);
    assert_true(comes_out(w, frame_ip4(pod_mac, "10.1.2.3"), 2000));
    assert_true(comes_out(w, frame_ip6(pod_mac, "fd00::3", 17), 2000));
    assert_true(comes_out(w, frame_arp(pod_mac, pod_mac, "10.1.2.3"), 2000));
    assert_false(comes_out(w, frame_ip4(pod_mac, "10.1.2.4"), 100));
    assert_false(comes_out(w, frame_ip4(other_mac, "10.1.2.3"), 100));
    assert_false(comes_out(w, frame_ip6(pod_mac, "fd00::4", 17), 100));
    assert_false(comes_out(w, frame_arp(pod_mac, pod_mac, "10.1.2.1"), 100));
    assert_int_equal(redirect_get_dropped(w->rtnl, w->tap_index, &after), 0);
    assert_int_equal(after - before, 4);
}

static void outside_sends(World *w, const Frame *f)
{
    assert_int_equal(send(w->outside_fd, f->bytes, f->n, 0), f->n);
}

static void test_outside_to_guest(void **state)
{
    World *w = *state;
    Frame question = frame_arp(other_mac, other_mac, "10.1.2.99");

    /* Who has the pod's address? The host's stack would answer, if it were asked. */
    memcpy(question.bytes + 38, ip_of("10.1.2.3").bytes, 4);
    install(w);
    outside_sends(w, &question);
    assert_true(arrives(w->tap_fd, &question, VNET_HEADER, 2000));
    assert_false(succeeds("ip neigh show dev eth0 | grep -q 10.1.2.99"));
    assert_true(succeeds("ip link show eth0 | grep -q 'mtu 1400'"));
    {
        char command[128];

        snprintf(command, sizeof(command), "ip link show %s | grep -q 'mtu 1400'", w->tap);
        assert_true(succeeds(command));
    }
}

/* What the guest sends to an address of the namespace must not reach the host's stack there either. */
static void test_namespace_is_closed(void **state)
{
    World *w = *state;
    _cleanup_close_ int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(0x0102)};
    Frame f = frame_ip4(pod_mac, "10.1.2.77");
    struct pollfd p = {.fd = receiver, .events = POLLIN};
    uint8_t *ip = f.bytes + 14;
    uint32_t sum = 0;

    assert_int_equal(bind(receiver, (struct sockaddr *)&sa, sizeof(sa)), 0);
    run("for i in all default eth0; do echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done");
    memcpy(ip + 16, ip_of("10.1.2.3").bytes, 4);
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    sum = ~((sum & 0xffff) + (sum >> 16));
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
    ip[22] = 1, ip[23] = 2, ip[25] = 8; /* destination port, size */
    /* The TAP's own MAC, so that the stack would take the frame for itself. */
    {
        char path[64];
        unsigned m[6];
        FILE *file;

        snprintf(path, sizeof(path), "ip -o link show %s | sed 's/.*ether //'", w->tap);
        file = popen(path, "r");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]), 6);
        pclose(file);
        for (int i = 0; i < 6; i++)
            f.bytes[i] = (uint8_t)m[i];
    }
    guest_sends(w, &f);
    assert_int_equal(poll(&p, 1, 200), 0);
    install(w);
    guest_sends(w, &f);
    assert_int_equal(poll(&p, 1, 200), 0);
    /* Proof that the frame is a good one: without filters it gets through. */
    {
        char command[64];

        snprintf(command, sizeof(command), "tc qdisc del dev %s clsact", w->tap);
        run(command);
    }
    guest_sends(w, &f);
    assert_int_equal(poll(&p, 1, 2000), 1);
}

static void test_repeat_and_remove(void **state)
{
    World *w = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    install(w);
    install(w);
    assert_true(comes_out(w, frame_ip4(pod_mac, "10.1.2.3"), 2000));
    /* A changed address replaces the filter. */
    w->config.interfaces[0].addresses[0].address = ip_of("10.1.2.30");
    install(w);
    assert_false(comes_out(w, frame_ip4(pod_mac, "10.1.2.3"), 100));
    assert_true(comes_out(w, frame_ip4(pod_mac, "10.1.2.30"), 2000));

    assert_int_equal(redirect_remove_all(w->rtnl, &e), 0);
    assert_false(comes_out(w, frame_ip4(pod_mac, "10.1.2.30"), 100));
    assert_true(succeeds("test -z \"$(tc filter show dev eth0 ingress)\""));
    assert_true(succeeds("test -z \"$(tc qdisc show dev eth0 ingress | grep clsact)\""));
    assert_int_equal(redirect_remove_all(w->rtnl, &e), 0);
    assert_null(e.message);
}

/* Filters of others on the CNI interface survive ours. */
static void test_foreign_filter(void **state)
{
    World *w = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    run("tc qdisc add dev eth0 ingress");
    run("tc filter add dev eth0 ingress protocol ip prio 5 u32 match ip src 9.9.9.9 action mirred egress "
        "redirect dev lo");
    install(w);
    assert_true(comes_out(w, frame_ip4(pod_mac, "10.1.2.3"), 2000));
    assert_int_equal(redirect_remove_all(w->rtnl, &e), 0);
    assert_true(succeeds("tc filter show dev eth0 ingress | grep -q 'pref 5 u32'"));
    assert_false(succeeds("tc filter show dev eth0 ingress | grep -q bpf"));
}

static void test_tap_lifetime(void **state)
{
    World *w = *state;
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned index;
    int fd;

    assert_int_equal(tap_new(w->rtnl, w->tap, 0, &fd, &index, &e), -EBUSY);
    assert_non_null(strstr(error_message(&e), "VMM still holds it"));
    assert_int_equal(fcntl(w->tap_fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    install(w);
    close(w->tap_fd);
    w->tap_fd = -EBADF;
    assert_int_equal(if_nametoindex(w->tap), 0);
    /* The redirect's target is gone: frames are lost, not given to the host's stack. */
    assert_int_equal(redirect_remove_all(w->rtnl, &e), 0);
    assert_int_equal(tap_new(w->rtnl, w->tap, 9000, &w->tap_fd, &w->tap_index, &e), 0);
}

static void test_wrong_target(void **state)
{
    World *w = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(redirect_install(w->rtnl, &w->config.interfaces[0], if_nametoindex("outside"), &e),
                     -ENODEV);
    assert_int_equal(redirect_install(w->rtnl, &w->config.interfaces[0], 9999, &e), -ENODEV);
    w->config.interfaces[0].index = 9999;
    assert_true(redirect_install(w->rtnl, &w->config.interfaces[0], w->tap_index, &e) < 0);
    assert_non_null(strstr(error_message(&e), "eth0"));
}

static void test_names(void **state)
{
    char a[NET_NAME_SIZE], b[NET_NAME_SIZE];
    uint8_t m[6], n[6];

    tap_name("0123456789abcdef", 7, a);
    tap_name("0123456789abcdef", 7, b);
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), 14);
    assert_true(tap_name_is_ours(a));
    tap_name("0123456789abcdeg", 7, b);
    assert_string_not_equal(a, b);
    assert_false(tap_name_is_ours("eth0"));
    assert_false(tap_name_is_ours("chtap0123456"));
    assert_false(tap_name_is_ours("chtap012345678x"));
    tap_device_mac("pod", 0, m);
    tap_device_mac("pod", 1, n);
    assert_int_equal(m[0] & 3, 2);
    assert_true(memcmp(m, n, 6) != 0);
}

static void test_netns(void **state)
{
    _cleanup_close_ int first = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    _cleanup_error_ Error e = ERROR_INIT;
    char path[32];

    run("ip link add marker type veth peer name marker2");
    assert_int_equal(netns_new(&e), 0);
    assert_true(succeeds("ip link show lo | grep -q LOOPBACK,UP"));
    assert_int_equal(if_nametoindex("marker"), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%i", first);
    assert_int_equal(netns_enter(path, &e), 0);
    assert_int_not_equal(if_nametoindex("marker"), 0);
    assert_int_equal(netns_enter("/proc/self/ns/mnt", &e), -EINVAL);
    assert_non_null(strstr(error_message(&e), "/proc/self/ns/mnt"));
    assert_int_equal(netns_enter("/etc/passwd", &e), -EINVAL);
    assert_int_equal(netns_enter("/run/netns/no-such", &e), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup(test_netns, new_namespace),
        cmocka_unit_test_setup_teardown(test_guest_to_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outside_to_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_namespace_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeat_and_remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_filter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tap_lifetime, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_target, setup, teardown),
    };

    if (geteuid() != 0)
        return TEST_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
