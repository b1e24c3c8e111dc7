/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/network.h"

static uint8_t mac[] = {2, 0, 0, 0, 0, 7}, v4[] = {10, 0, 0, 2}, gateway[] = {10, 0, 0, 1}, v6[16] = {0xfd, 1};

#define BYTES(x) ((ProtobufCBinaryData){.data = (x), .len = sizeof(x)})

typedef struct Message {
    Cloudhv__Agent__V1__ConfigureNetworkRequest request;
    Cloudhv__Agent__V1__Interface interface, *interfaces[1];
    Cloudhv__Agent__V1__Address addresses[2], *address_list[2];
    Cloudhv__Agent__V1__Route route, *routes[1];
    Cloudhv__Agent__V1__Neighbor neighbor, *neighbors[1];
} Message;

/* A message that is fine, for tests to spoil. */
static void fill(Message *m)
{
    memset(m, 0, sizeof(*m));
    cloudhv__agent__v1__configure_network_request__init(&m->request);
    cloudhv__agent__v1__interface__init(&m->interface);
    cloudhv__agent__v1__route__init(&m->route);
    cloudhv__agent__v1__neighbor__init(&m->neighbor);
    for (size_t i = 0; i < 2; i++) {
        cloudhv__agent__v1__address__init(&m->addresses[i]);
        m->address_list[i] = &m->addresses[i];
    }
    m->interface.name = (char *)"eth0";
    m->interface.device_mac = m->interface.mac = BYTES(mac);
    m->interface.mtu = 1450;
    m->interface.addresses = m->address_list;
    m->interface.n_addresses = 2;
    m->addresses[0].address = BYTES(v4);
    m->addresses[0].prefix = 24;
    m->addresses[1].address = BYTES(v6);
    m->addresses[1].prefix = 64;
    m->route.interface = (char *)"eth0";
    m->route.family = AF_INET;
    m->route.gateway = BYTES(gateway);
    m->neighbor.interface = (char *)"eth0";
    m->neighbor.address = BYTES(gateway);
    m->neighbor.mac = BYTES(mac);
    m->interfaces[0] = &m->interface;
    m->routes[0] = &m->route;
    m->neighbors[0] = &m->neighbor;
    m->request.interfaces = m->interfaces;
    m->request.routes = m->routes;
    m->request.neighbors = m->neighbors;
    m->request.n_interfaces = m->request.n_routes = m->request.n_neighbors = 1;
}

static void test_translate(void **state)
{
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    Message m;

    fill(&m);
    assert_int_equal(network_translate(&m.request, &config, NULL), 0);
    assert_int_equal(config.n_interfaces, 1);
    assert_string_equal(config.interfaces[0].name, "eth0");
    assert_int_equal(config.interfaces[0].mtu, 1450);
    assert_memory_equal(config.interfaces[0].mac, mac, 6);
    assert_int_equal(config.interfaces[0].n_addresses, 2);
    assert_int_equal(config.interfaces[0].addresses[0].address.n, 4);
    assert_int_equal(config.interfaces[0].addresses[0].prefix, 24);
    assert_int_equal(config.interfaces[0].addresses[1].address.n, 16);
    assert_int_equal(config.n_routes, 1);
    assert_int_equal(config.routes[0].destination.n, 0);
    assert_memory_equal(config.routes[0].gateway.bytes, gateway, 4);
    assert_int_equal(config.n_neighbors, 1);
    assert_memory_equal(config.neighbors[0].mac, mac, 6);
}

static void assert_refused(const Message *m)
{
    _cleanup_error_ Error e = ERROR_INIT;
    NetConfig config = NET_CONFIG_INIT;

    assert_int_equal(network_translate(&m->request, &config, &e), -EINVAL);
    assert_non_null(e.message);
    assert_null(config.interfaces);
}

static void test_refused(void **state)
{
    Message m;

    fill(&m);
    m.interface.name = (char *)"a/b";
    assert_refused(&m);
    fill(&m);
    m.interface.device_mac.len = 5;
    assert_refused(&m);
    fill(&m);
    m.addresses[0].prefix = 33;
    assert_refused(&m);
    fill(&m);
    m.addresses[1].prefix = 129;
    assert_refused(&m);
    fill(&m);
    m.addresses[0].address.len = 3;
    assert_refused(&m);
    fill(&m);
    m.addresses[0].address.len = 0;
    assert_refused(&m);
    fill(&m);
    m.route.family = 1;
    assert_refused(&m);
    fill(&m);
    m.route.scope = 256;
    assert_refused(&m);
    fill(&m);
    m.route.prefix = 1; /* of no destination */
    assert_refused(&m);
    fill(&m);
    m.route.gateway.len = 15;
    assert_refused(&m);
    fill(&m);
    m.neighbor.mac.len = 0;
    assert_refused(&m);
}

static void test_too_many(void **state)
{
    Cloudhv__Agent__V1__Interface *list[NET_INTERFACES_MAX + 1];
    Message m;

    fill(&m);
    for (size_t i = 0; i < ELEMENTSOF(list); i++)
        list[i] = &m.interface;
    m.request.interfaces = list;
    m.request.n_interfaces = ELEMENTSOF(list);
    assert_refused(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translate),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
