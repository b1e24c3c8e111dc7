/* SPDX-License-Identifier: MIT */

/* The pod's network as a message: what the shim says is what the agent understands. */

#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/network.h"
#include "base/cleanup.h"
#include "shim/network-message.h"

typedef struct Fixture {
    Loop *loop;
    TtrpcServer *server;
    TtrpcClient *client;
    TtrpcHandler handlers[64];
    NetConfig understood;
    int number;
    bool replied;
} Fixture;

static void on_configure(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    Cloudhv__Agent__V1__Empty empty = CLOUDHV__AGENT__V1__EMPTY__INIT;
    Fixture *f = userdata;

    f->number =
        network_translate((const Cloudhv__Agent__V1__ConfigureNetworkRequest *)message, &f->understood, NULL);
    ttrpc_call_reply(call, &empty.base);
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    assert_int_equal(reply->code, TTRPC_OK);
    ((Fixture *)userdata)->replied = true;
}

static int setup(void **state)
{
    const ProtobufCServiceDescriptor *d = &cloudhv__agent__v1__task__descriptor;
    const ProtobufCMethodDescriptor *m =
        protobuf_c_service_descriptor_get_method_by_name(d, "ConfigureNetwork");
    Fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    *state = f;
    f->handlers[m - d->methods] = on_configure;
    return d->n_methods > 64 || loop_new(&f->loop) < 0 || ttrpc_server_new(f->loop, &f->server) < 0 ||
           ttrpc_server_add_service(f->server, NULL, d, f->handlers, f) < 0 ||
           socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
           ttrpc_server_add_connection(f->server, fds[0]) < 0 ||
           ttrpc_client_new(f->loop, fds[1], &f->client) < 0;
}

static int teardown(void **state)
{
    Fixture *f = *state;

    net_config_clear(&f->understood);
    ttrpc_client_free(f->client);
    ttrpc_server_free(f->server);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void send_config(Fixture *f, const NetConfig *config)
{
    assert_int_equal(network_message_send(f->client, config, 10 * USEC_PER_SEC, on_reply, f, NULL, NULL), 0);
    while (!f->replied)
        assert_true(loop_run_once(f->loop, 10 * USEC_PER_SEC) > 0);
}

static NetIp ip_of(const char *text)
{
    NetIp ip = {.n = strchr(text, ':') ? 16 : 4};

    assert_int_equal(inet_pton(ip.n == 4 ? AF_INET : AF_INET6, text, ip.bytes), 1);
    return ip;
}

static void assert_same_ip(const NetIp *a, const NetIp *b)
{
    char x[NET_IP_STRING_SIZE], y[NET_IP_STRING_SIZE];

    assert_string_equal(net_ip_string(a, x), net_ip_string(b, y));
}

static void fill(NetConfig *c)
{
    static const char *const names[] = {"eth0", "net1"};

    for (uint8_t i = 0; i < 2; i++) {
        NetInterface *interface = net_config_add_interface(c);
        NetAddress *a;

        strcpy(interface->name, names[i]);
        memcpy(interface->device_mac, (uint8_t[]){2, 0, 0, 0, 0, i}, NET_MAC_SIZE);
        memcpy(interface->mac, (uint8_t[]){0x0a, 0x58, 10, 1, 2, i}, NET_MAC_SIZE);
        interface->mtu = 1450U + i;
        a = net_interface_add_address(interface);
        a->address = ip_of(i == 0 ? "10.1.2.3" : "192.168.7.1");
        a->prefix = i == 0 ? 24 : 32;
        if (i == 0)
            a->broadcast = ip_of("10.1.2.255");
        else
            a->peer = ip_of("192.168.7.2");
        a = net_interface_add_address(interface);
        a->address = ip_of(i == 0 ? "fd00::3" : "fd01::3");
        a->prefix = 64;
    }
    *net_config_add_route(c) = (NetRoute){.interface = "eth0",
                                          .family = AF_INET,
                                          .destination = ip_of("169.254.1.1"),
                                          .prefix = 32,
                                          .scope = 253};
    *net_config_add_route(c) = (NetRoute){.interface = "eth0",
                                          .family = AF_INET,
                                          .gateway = ip_of("169.254.1.1"),
                                          .source = ip_of("10.1.2.3"),
                                          .metric = 100,
                                          .onlink = true,
                                          .mtu = 1400};
    *net_config_add_route(c) =
        (NetRoute){.interface = "net1", .family = AF_INET6, .gateway = ip_of("fd01::1")};
    *net_config_add_neighbor(c) =
        (NetNeighbor){.interface = "eth0", .address = ip_of("169.254.1.1"), .mac = {2, 1, 1, 1, 1, 1}};
}

static void test_round_trip(void **state)
{
    _cleanup_net_config_ NetConfig c = NET_CONFIG_INIT;
    Fixture *f = *state;
    const NetConfig *u = &f->understood;

    fill(&c);
    send_config(f, &c);
    assert_int_equal(f->number, 0);
    assert_int_equal(u->n_interfaces, 2);
    assert_int_equal(u->n_routes, 3);
    assert_int_equal(u->n_neighbors, 1);
    for (size_t i = 0; i < 2; i++) {
        const NetInterface *a = &c.interfaces[i], *b = &u->interfaces[i];

        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->device_mac, b->device_mac, NET_MAC_SIZE);
        assert_memory_equal(a->mac, b->mac, NET_MAC_SIZE);
        assert_int_equal(a->mtu, b->mtu);
        assert_int_equal(a->n_addresses, b->n_addresses);
        for (size_t k = 0; k < a->n_addresses; k++) {
            assert_same_ip(&a->addresses[k].address, &b->addresses[k].address);
            assert_same_ip(&a->addresses[k].peer, &b->addresses[k].peer);
            assert_same_ip(&a->addresses[k].broadcast, &b->addresses[k].broadcast);
            assert_int_equal(a->addresses[k].prefix, b->addresses[k].prefix);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        const NetRoute *a = &c.routes[i], *b = &u->routes[i];

        assert_string_equal(a->interface, b->interface);
        assert_int_equal(a->family, b->family);
        assert_same_ip(&a->destination, &b->destination);
        assert_same_ip(&a->gateway, &b->gateway);
        assert_same_ip(&a->source, &b->source);
        assert_int_equal(a->prefix, b->prefix);
        assert_int_equal(a->metric, b->metric);
        assert_int_equal(a->scope, b->scope);
        assert_int_equal(a->onlink, b->onlink);
        assert_int_equal(a->mtu, b->mtu);
    }
    assert_string_equal(c.neighbors[0].interface, u->neighbors[0].interface);
    assert_same_ip(&c.neighbors[0].address, &u->neighbors[0].address);
    assert_memory_equal(c.neighbors[0].mac, u->neighbors[0].mac, NET_MAC_SIZE);
}

/* A pod without CNI: nothing to be configured is a configuration, too. */
static void test_empty(void **state)
{
    NetConfig c = NET_CONFIG_INIT;
    Fixture *f = *state;

    send_config(f, &c);
    assert_int_equal(f->number, 0);
    assert_int_equal(f->understood.n_interfaces, 0);
}

static void test_no_connection(void **state)
{
    NetConfig c = NET_CONFIG_INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;

    f->server = ttrpc_server_free(f->server);
    while (loop_run_once(f->loop, 1000) > 0)
        continue;
    assert_int_equal(network_message_send(f->client, &c, 0, on_reply, f, NULL, &e), -ENOTCONN);
    assert_non_null(strstr(e.message, "cannot tell the agent about the pod's network"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_connection, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
