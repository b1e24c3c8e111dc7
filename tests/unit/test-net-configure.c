/* SPDX-License-Identifier: MIT */

/* What interfaces_read() finds in one namespace, configure_network() makes in another: both ways of a pod's
 * network, checked with ip(8) and by reading it a second time. */

#include "net/configure.h"

#include "net/interfaces.h"
#include "test-net.h"

static const uint8_t device_mac[6] = {0x02, 0, 0, 0, 0, 1};
static const uint8_t device_mac2[6] = {0x02, 0, 0, 0, 0, 2};

static NetConfig read_all(void)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    NetConfig config = NET_CONFIG_INIT;

    assert_int_equal(rtnl_new(&rtnl, &e), 0);
    if (interfaces_read(rtnl, &config, &e) < 0)
        fail_msg("%s", error_message(&e));
    return config;
}

static int read_error(char *message, size_t n)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    NetConfig config = NET_CONFIG_INIT;
    int r;

    assert_int_equal(rtnl_new(&rtnl, &e), 0);
    r = interfaces_read(rtnl, &config, &e);
    snprintf(message, n, "%s", error_message(&e));
    return r;
}

static void configure(const NetConfig *config)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (configure_network(config, &e) < 0)
        fail_msg("%s", error_message(&e));
}

static void pod_namespace(void)
{
    run("ip link set lo up");
    run("ip link add eth0 address 0a:58:0a:01:02:03 mtu 1400 type veth peer name x0");
    run("ip link add net1 address 0a:58:0a:01:02:99 type veth peer name x1");
    run("ip link set x0 up; ip link set eth0 up; ip link set net1 up");
    run("ip link set x0 down; ip link set x0 name down0");
    run("ip addr add 10.1.2.3/24 brd 10.1.2.255 dev eth0; ip addr add 10.7.0.1/32 dev eth0");
    run("ip addr add fd00::3/64 dev eth0 nodad");
    run("ip addr add 192.168.5.1 peer 192.168.5.2/32 dev net1");
}

static void guest_namespace(void)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    /* Their names are swapped with respect to what they will get. */
    run("ip link add net1 address 02:00:00:00:00:01 type veth peer name p0; ip link set p0 up");
    run("ip link add eth0 address 02:00:00:00:00:02 type veth peer name p1; ip link set p1 up");
    run("ip addr add 172.16.0.1/16 dev net1; ip link set net1 up");
}

static void free_config(NetConfig *config)
{
    net_config_clear(config);
}

static void test_round_trip(void **state)
{
    NetConfig config, again;
    size_t n_ip4 = 0;

    pod_namespace();
    run("ip route add default via 10.1.2.1 dev eth0");
    run("ip route add 10.20.0.0/16 via 10.1.2.9 dev eth0 metric 77 mtu 1300 src 10.7.0.1");
    run("ip route add 169.254.1.1 dev eth0 scope link");
    run("ip route add 10.30.0.0/16 via 10.99.99.99 dev net1 onlink");
    run("ip route add 10.40.0.0/16 via inet6 fe80::1 dev eth0");
    run("ip -6 route add default via fd00::1 dev eth0; ip -6 route add fd01::/64 dev net1 metric 5");
    run("ip neigh add 10.1.2.1 lladdr 02:aa:aa:aa:aa:aa dev eth0 nud permanent");
    run("ip neigh add fd00::1 lladdr 02:aa:aa:aa:aa:ab dev eth0 nud permanent");
    config = read_all();
    assert_int_equal(config.n_interfaces, 2);
    assert_string_equal(config.interfaces[0].name, "eth0");
    assert_int_equal(config.interfaces[0].mtu, 1400);
    assert_memory_equal(config.interfaces[0].mac, pod_mac, 6);
    for (size_t i = 0; i < config.interfaces[0].n_addresses; i++)
        n_ip4 += config.interfaces[0].addresses[i].address.n == 4;
    assert_int_equal(n_ip4, 2);
    assert_int_equal(config.n_neighbors, 2);
    assert_int_equal(config.interfaces[1].addresses[0].peer.n, 4);

    memcpy(config.interfaces[0].device_mac, device_mac, 6);
    memcpy(config.interfaces[1].device_mac, device_mac2, 6);
    guest_namespace();
    configure(&config);
    assert_true(succeeds("ip link show lo | grep -q LOOPBACK,UP"));
    assert_true(succeeds("ip link show eth0 | grep -q 'mtu 1400'"));
    assert_true(succeeds("ip link show eth0 | grep -q 0a:58:0a:01:02:03"));
    assert_true(succeeds("ip addr show net1 | grep -q 'inet 192.168.5.1 peer 192.168.5.2/32'"));
    assert_true(succeeds("ip addr show eth0 | grep -q 'inet 10.1.2.3/24 brd 10.1.2.255'"));
    assert_true(succeeds("ip addr show eth0 | grep 'inet6 fd00::3/64' | grep -vq tentative"));
    assert_false(succeeds("ip addr | grep -q 172.16.0.1"));
    assert_true(succeeds("ip route | grep -q 'default via 10.1.2.1 dev eth0'"));
    assert_true(succeeds(
        "ip route | grep -q '10.20.0.0/16 via 10.1.2.9 dev eth0 .*src 10.7.0.1 metric 77 mtu 1300'"));
    assert_true(succeeds("ip route | grep -q '169.254.1.1 dev eth0 .*scope link'"));
    assert_true(succeeds("ip route | grep -q '10.30.0.0/16 via 10.99.99.99 dev net1 .*onlink'"));
    assert_true(succeeds("ip route | grep -q '10.40.0.0/16 via inet6 fe80::1 dev eth0'"));
    assert_true(succeeds("ip -6 route | grep -q 'default via fd00::1 dev eth0'"));
    assert_true(succeeds("ip -6 route | grep -q 'fd01::/64 dev net1 .*metric 5'"));
    assert_true(succeeds("ip neigh | grep -q '10.1.2.1 dev eth0 lladdr 02:aa:aa:aa:aa:aa PERMANENT'"));
    assert_true(succeeds("ip neigh | grep -q 'fd00::1 dev eth0 lladdr 02:aa:aa:aa:aa:ab PERMANENT'"));
    assert_true(succeeds("test $(cat /proc/sys/net/ipv6/conf/eth0/accept_ra) = 0"));

    /* Read again, it is the same. */
    run("ip link set p0 down; ip link set p1 down");
    again = read_all();
    assert_int_equal(again.n_interfaces, 2);
    assert_int_equal(again.n_neighbors, config.n_neighbors);
    free_config(&again);
    free_config(&config);
}

/* As the ptp plugin does it: no prefix route, a host route to the gateway, the rest through it. */
static void test_ptp(void **state)
{
    NetConfig config;

    run("ip link add eth0 type veth peer name x0; ip link set x0 up; ip link set eth0 up");
    run("ip addr add 10.1.1.2/24 dev eth0; ip route del 10.1.1.0/24 dev eth0");
    run("ip route add 10.1.1.1 dev eth0 scope link src 10.1.1.2");
    run("ip route add 10.1.1.0/24 via 10.1.1.1 src 10.1.1.2; ip route add default via 10.1.1.1 dev eth0");
    run("ip link set x0 down");
    config = read_all();
    assert_int_equal(config.n_interfaces, 1);
    memcpy(config.interfaces[0].device_mac, device_mac, 6);
    guest_namespace();
    configure(&config);
    assert_true(succeeds("ip route | grep -q '^10.1.1.1 dev eth0 .*scope link src 10.1.1.2'"));
    assert_true(succeeds("ip route | grep -q '^10.1.1.0/24 via 10.1.1.1 dev eth0'"));
    assert_false(succeeds("ip route | grep -q '^10.1.1.0/24 dev eth0'"));
    assert_true(succeeds("ip route | grep -q '^default via 10.1.1.1'"));
    free_config(&config);
}

/* A second configuration replaces the first. */
static void test_replace(void **state)
{
    NetConfig config;

    pod_namespace();
    run("ip route add default via 10.1.2.1 dev eth0");
    config = read_all();
    memcpy(config.interfaces[0].device_mac, device_mac, 6);
    memcpy(config.interfaces[1].device_mac, device_mac2, 6);
    guest_namespace();
    configure(&config);
    configure(&config);
    assert_int_equal(config.n_routes > 1, 1);
    config.n_routes--;
    config.interfaces[0].n_addresses = 1;
    config.interfaces[0].addresses[0] = (NetAddress){.address = ip_of("10.1.2.50"), .prefix = 24};
    config.n_routes = 1;
    config.routes[0] = (NetRoute){
        .interface = "eth0", .family = AF_INET, .destination = ip_of("10.1.2.0"), .prefix = 24, .scope = 253};
    configure(&config);
    assert_true(succeeds("ip addr show eth0 | grep -q 10.1.2.50/24"));
    assert_false(succeeds("ip addr show eth0 | grep -q 10.1.2.3/24"));
    assert_false(succeeds("ip route | grep -q default"));
    free_config(&config);
}

static int expect_error(NetConfig *config, const char *part)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r = configure_network(config, &e);

    if (!strstr(error_message(&e), part))
        fail_msg("'%s' does not name '%s'", error_message(&e), part);
    return r;
}

static void test_errors(void **state)
{
    NetConfig config = NET_CONFIG_INIT;
    NetInterface *interface = net_config_add_interface(&config);
    NetAddress *address = net_interface_add_address(interface);
    NetRoute *route;

    guest_namespace();
    memcpy(interface->name, "eth7", 5);
    memcpy(interface->mac, pod_mac, 6);
    memcpy(interface->device_mac, other_mac, 6);
    *address = (NetAddress){.address = ip_of("10.0.0.1"), .prefix = 24};
    assert_int_equal(expect_error(&config, "0a:58:0a:01:02:99"), -ENODEV);
    memcpy(interface->device_mac, device_mac, 6);
    address->prefix = 33;
    assert_int_equal(expect_error(&config, "10.0.0.1/33"), -EINVAL);
    address->prefix = 24;
    route = net_config_add_route(&config);
    *route = (NetRoute){.interface = "eth8", .family = AF_INET};
    assert_int_equal(expect_error(&config, "eth8"), -EINVAL);
    *route = (NetRoute){.interface = "eth7", .family = AF_INET, .gateway = ip_of("10.9.9.9")};
    assert_true(expect_error(&config, "via 10.9.9.9 on eth7") < 0);
    /* Nothing half done stays up. */
    assert_false(succeeds("ip link show eth7 | grep -q ',UP'"));
    assert_false(succeeds("ip addr | grep -q 10.0.0.1"));
    memcpy(interface->name, "a/b", 4);
    assert_int_equal(expect_error(&config, "a/b"), -EINVAL);
    free_config(&config);
}

static void test_refused(void **state)
{
    char message[256];

    run("ip link add eth0 type veth peer name x0; ip link set x0 up; ip link set eth0 up; ip addr add "
        "10.1.1.2/24 dev eth0");
    run("ip route add 10.5.0.0/16 nexthop via 10.1.1.1 nexthop via 10.1.1.3");
    assert_int_equal(read_error(message, sizeof(message)), -EOPNOTSUPP);
    assert_non_null(strstr(message, "10.5.0.0/16"));
    run("ip route del 10.5.0.0/16; ip route add blackhole 10.6.0.0/16");
    assert_int_equal(read_error(message, sizeof(message)), -EOPNOTSUPP);
    assert_non_null(strstr(message, "10.6.0.0/16"));
}

static void test_nothing(void **state)
{
    NetConfig config = read_all();
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(config.n_interfaces, 0);
    assert_int_equal(config.n_routes, 0);
    assert_int_equal(configure_network(&config, &e), 0);
    assert_int_equal(configure_loopback(&e), 0);
    assert_true(succeeds("ip link show lo | grep -q LOOPBACK,UP"));
}

static void test_names(void **state)
{
    assert_true(net_name_is_valid("eth0"));
    assert_true(net_name_is_valid("eth0.100"));
    assert_false(net_name_is_valid(""));
    assert_false(net_name_is_valid("sixteen-chars-xx"));
    assert_false(net_name_is_valid("all"));
    assert_false(net_name_is_valid(".."));
    assert_false(net_name_is_valid("a b"));
    assert_false(net_name_is_valid("a/b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup(test_nothing, new_namespace),
        cmocka_unit_test_setup(test_round_trip, new_namespace),
        cmocka_unit_test_setup(test_ptp, new_namespace),
        cmocka_unit_test_setup(test_replace, new_namespace),
        cmocka_unit_test_setup(test_errors, new_namespace),
        cmocka_unit_test_setup(test_refused, new_namespace),
    };

    if (geteuid() != 0)
        return TEST_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
