/* SPDX-License-Identifier: MIT */

/* The source filter, run by the kernel's own interpreter: as the filter of a pair of datagram sockets, which
 * sees a datagram as the classifier sees a frame. */

#include "net/source-filter.h"

#include <sys/socket.h>

#include "test-net.h"

enum { NS = 135, NA = 136, RA = 134, REDIRECT = 137, HOPOPTS = 0, DSTOPTS = 60, ICMPV6 = 58, UDP = 17 };

#define LINK_LOCAL "fe80::858:aff:fe01:203" /* of pod_mac */

static void add_address(NetInterface *interface, const char *text)
{
    NetAddress *a = net_interface_add_address(interface);

    assert_non_null(a);
    a->address = ip_of(text);
}

static bool passes(const NetInterface *interface, const Frame *frame)
{
    _cleanup_free_ struct sock_filter *code = NULL;
    struct sock_fprog program;
    uint8_t buffer[512];
    int fds[2];
    size_t n;
    ssize_t k;

    assert_int_equal(source_filter_build(interface, &code, &n), 0);
    program = (struct sock_fprog){.len = (unsigned short)n, .filter = code};
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
    k = send(fds[0], frame->bytes, frame->n, 0);
    /* A filter that drops makes send() fail with EPERM, or swallow it, depending on the kernel. */
    k = recv(fds[1], buffer, sizeof(buffer), 0);
    assert_true(k < 0 || (size_t)k == frame->n); /* it never cuts */
    close(fds[0]);
    close(fds[1]);
    return k > 0;
}

#define assert_passes(interface, frame)                                                                      \
    do {                                                                                                     \
        Frame _f = (frame);                                                                                  \
        assert_true(passes(interface, &_f));                                                                 \
    } while (0)
#define assert_drops(interface, frame)                                                                       \
    do {                                                                                                     \
        Frame _f = (frame);                                                                                  \
        assert_false(passes(interface, &_f));                                                                \
    } while (0)

static int setup(void **state)
{
    static NetInterface interface;

    interface = (NetInterface){.name = "eth0"};
    memcpy(interface.mac, pod_mac, 6);
    add_address(&interface, "10.1.2.3");
    add_address(&interface, "10.1.2.4");
    add_address(&interface, "fd00::3");
    *state = &interface;
    return 0;
}

static int teardown(void **state)
{
    free(((NetInterface *)*state)->addresses);
    return 0;
}

static void test_ip4(void **state)
{
    const NetInterface *interface = *state;

    assert_passes(interface, frame_ip4(pod_mac, "10.1.2.3"));
    assert_passes(interface, frame_ip4(pod_mac, "10.1.2.4"));
    assert_drops(interface, frame_ip4(other_mac, "10.1.2.3"));
    assert_drops(interface, frame_ip4(pod_mac, "10.1.2.5"));
    assert_drops(interface, frame_ip4(pod_mac, "0.0.0.0"));
}

static void test_arp(void **state)
{
    const NetInterface *interface = *state;
    Frame f;

    assert_passes(interface, frame_arp(pod_mac, pod_mac, "10.1.2.4"));
    assert_drops(interface, frame_arp(pod_mac, other_mac, "10.1.2.3"));
    assert_drops(interface, frame_arp(other_mac, pod_mac, "10.1.2.3"));
    assert_drops(interface, frame_arp(pod_mac, pod_mac, "10.1.2.1"));
    f = frame_arp(pod_mac, pod_mac, "10.1.2.3");
    f.bytes[18] = 8; /* size of a hardware address */
    assert_drops(interface, f);
}

static void test_ip6(void **state)
{
    const NetInterface *interface = *state;

    assert_passes(interface, frame_ip6(pod_mac, "fd00::3", UDP));
    assert_passes(interface, frame_ip6(pod_mac, LINK_LOCAL, UDP));
    assert_drops(interface, frame_ip6(other_mac, "fd00::3", UDP));
    assert_drops(interface, frame_ip6(pod_mac, "fd00::4", UDP));
    assert_drops(interface, frame_ip6(pod_mac, "fe80::858:aff:fe01:204", UDP));
    assert_drops(interface, frame_ip6(pod_mac, "::", UDP));
}

static void test_neighbor_discovery(void **state)
{
    const NetInterface *interface = *state;

    assert_passes(interface, frame_nd(pod_mac, "fd00::3", NS, "fd00::77"));
    assert_drops(interface, frame_nd(pod_mac, "fd00::77", NS, "fd00::3"));
    assert_passes(interface, frame_nd(pod_mac, "fd00::3", NA, "fd00::3"));
    assert_passes(interface, frame_nd(pod_mac, LINK_LOCAL, NA, "fd00::3"));
    assert_drops(interface, frame_nd(pod_mac, "fd00::3", NA, "fd00::77"));
    assert_drops(interface, frame_nd(pod_mac, "fd00::77", NA, "fd00::3"));
    /* Duplicate address detection */
    assert_passes(interface, frame_nd(pod_mac, "::", NS, "fd00::3"));
    assert_passes(interface, frame_nd(pod_mac, "::", NS, LINK_LOCAL));
    assert_drops(interface, frame_nd(pod_mac, "::", NS, "fd00::77"));
    assert_drops(interface, frame_nd(pod_mac, "::", NA, "fd00::3"));
    assert_drops(interface, frame_nd(pod_mac, LINK_LOCAL, RA, "fd00::3"));
    assert_drops(interface, frame_nd(pod_mac, LINK_LOCAL, REDIRECT, "fd00::3"));
    assert_passes(interface, frame_nd(pod_mac, LINK_LOCAL, 133, "fd00::3"));
}

static Frame with_extension(uint8_t header, uint8_t units, uint8_t next, uint8_t type)
{
    Frame f = frame_ip6(pod_mac, "fd00::3", header);

    f.bytes[54] = next;
    f.bytes[55] = units;
    f.bytes[54 + 8 + units * 8] = type;
    return f;
}

static void test_extension_headers(void **state)
{
    const NetInterface *interface = *state;

    assert_passes(interface,
                  with_extension(HOPOPTS, 0, ICMPV6, 143)); /* as multicast listener reports have */
    assert_passes(interface, with_extension(DSTOPTS, 1, UDP, 0));
    assert_drops(interface, with_extension(HOPOPTS, 0, ICMPV6, NA));
    assert_drops(interface, with_extension(DSTOPTS, 1, ICMPV6, RA));
    assert_drops(interface, with_extension(DSTOPTS, 0, DSTOPTS, 0));
    assert_drops(interface, with_extension(HOPOPTS, 0, 44, 0));
    /* A size that points beyond the frame: the load fails, the frame does too. */
    assert_drops(interface, with_extension(HOPOPTS, 9, ICMPV6, 0));
}

static void test_other(void **state)
{
    const NetInterface *interface = *state;
    Frame f;

    assert_drops(interface, frame_new(pod_mac, 0x88cc));
    assert_drops(interface, frame_new(pod_mac, ETH_P_8021Q));
    /* Every frame that ends too early is dropped, whatever it is. */
    f = frame_ip4(pod_mac, "10.1.2.3");
    for (f.n = 1; f.n < 14 + 16; f.n++)
        assert_false(passes(interface, &f));
    f = frame_nd(pod_mac, "fd00::3", NA, "fd00::3");
    for (f.n = 1; f.n < 78; f.n++)
        assert_false(passes(interface, &f));
}

static void test_no_addresses(void **state)
{
    NetInterface interface = {.name = "eth0"};

    memcpy(interface.mac, pod_mac, 6);
    assert_drops(&interface, frame_ip4(pod_mac, "0.0.0.0"));
    assert_drops(&interface, frame_arp(pod_mac, pod_mac, "0.0.0.0"));
    assert_passes(&interface, frame_ip6(pod_mac, LINK_LOCAL, UDP));
    assert_drops(&interface, frame_ip6(pod_mac, "::", UDP));
}

static void test_many_addresses(void **state)
{
    NetInterface interface = {.name = "eth0"};
    char text[32];

    memcpy(interface.mac, pod_mac, 6);
    for (int i = 0; i < NET_ADDRESSES_MAX; i++) {
        snprintf(text, sizeof(text), "fd00::%x", i + 1);
        add_address(&interface, text);
    }
    assert_null(net_interface_add_address(&interface));
    assert_int_equal(errno, E2BIG);
    assert_passes(&interface, frame_ip6(pod_mac, "fd00::1", UDP));
    assert_passes(&interface, frame_ip6(pod_mac, "fd00::40", UDP));
    assert_passes(&interface, frame_ip6(pod_mac, LINK_LOCAL, UDP));
    assert_passes(&interface, frame_nd(pod_mac, "fd00::40", NA, "fd00::40"));
    assert_drops(&interface, frame_ip6(pod_mac, "fd00::41", UDP));
    assert_drops(&interface, frame_nd(pod_mac, "fd00::40", NA, "fd00::41"));
    free(interface.addresses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ip4, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ip6, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbor_discovery, setup, teardown),
        cmocka_unit_test_setup_teardown(test_extension_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other, setup, teardown),
        cmocka_unit_test(test_no_addresses),
        cmocka_unit_test(test_many_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
