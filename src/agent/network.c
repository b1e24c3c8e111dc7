/* SPDX-License-Identifier: MIT */

#include "agent/network.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "net/configure.h"

enum { DEVICE_TIMEOUT_SECS = 10 };

struct Network {
    Loop *loop;
    UeventMonitor *monitor;

    /* The configuration that waits for a device. */
    UeventSubscription *subscription;
    LoopSource *timer;
    NetConfig config;
    Error failure;
    NetworkFn done; /* NULL: none */
    void *userdata;
};

int network_new(Loop *loop, UeventMonitor *monitor, Network **ret)
{
    Network *network = calloc(1, sizeof(*network));

    if (!network)
        return -ENOMEM;
    network->loop = loop;
    network->monitor = monitor;
    *ret = network;
    return 0;
}

static void waiting_end(Network *network)
{
    network->subscription = uevent_unsubscribe(network->subscription);
    network->timer = loop_source_free(network->timer);
    net_config_clear(&network->config);
}

Network *network_free(Network *network)
{
    if (!network)
        return NULL;
    waiting_end(network);
    error_clear(&network->failure);
    free(network);
    return NULL;
}

static int translate_mac(const ProtobufCBinaryData *bytes, uint8_t ret[static NET_MAC_SIZE], const char *what,
                         Error *e)
{
    if (bytes->len != NET_MAC_SIZE)
        return error_set(e, -EINVAL, "%s: a MAC address of %zu bytes", what, bytes->len);
    memcpy(ret, bytes->data, NET_MAC_SIZE);
    return 0;
}

static int translate_name(const char *name, char ret[static NET_NAME_SIZE], Error *e)
{
    if (!net_name_is_valid(name))
        return error_set(e, -EINVAL, "not a name for an interface: \"%.64s\"", name);
    snprintf(ret, NET_NAME_SIZE, "%s", name);
    return 0;
}

static int translate_ip(const ProtobufCBinaryData *bytes, NetIp *ret, const char *what, Error *e)
{
    if (net_ip_set(ret, bytes->data, bytes->len) < 0)
        return error_set(e, -EINVAL, "%s: an address of %zu bytes", what, bytes->len);
    return 0;
}

/* A prefix length that fits the address; 0 where there is none. */
static int translate_prefix(uint32_t prefix, size_t address_size, uint8_t *ret, const char *what, Error *e)
{
    if (prefix > address_size * 8)
        return error_set(e, -EINVAL, "%s: a prefix of %u bits", what, prefix);
    *ret = (uint8_t)prefix;
    return 0;
}

static int no_room(const char *what, Error *e)
{
    return errno == E2BIG ? error_set(e, -EINVAL, "too many %s", what) : error_set(e, -ENOMEM, "out of memory");
}

static int translate_address(const Cloudhv__Agent__V1__Address *a, NetInterface *interface, Error *e)
{
    NetAddress *address = net_interface_add_address(interface);
    int r;

    if (!address)
        return no_room("addresses of an interface", e);
    r = translate_ip(&a->address, &address->address, interface->name, e);
    if (r >= 0 && address->address.n == 0)
        r = error_set(e, -EINVAL, "%s: an empty address", interface->name);
    if (r >= 0)
        r = translate_prefix(a->prefix, address->address.n, &address->prefix, interface->name, e);
    if (r >= 0)
        r = translate_ip(&a->peer, &address->peer, interface->name, e);
    if (r >= 0)
        r = translate_ip(&a->broadcast, &address->broadcast, interface->name, e);
    return r;
}

static int translate_interface(const Cloudhv__Agent__V1__Interface *i, NetConfig *config, Error *e)
{
    NetInterface *interface = net_config_add_interface(config);
    int r;

    if (!interface)
        return no_room("interfaces", e);
    r = translate_name(i->name, interface->name, e);
    if (r >= 0)
        r = translate_mac(&i->device_mac, interface->device_mac, i->name, e);
    if (r >= 0)
        r = translate_mac(&i->mac, interface->mac, i->name, e);
    if (r < 0)
        return r;
    interface->mtu = i->mtu;
    for (size_t k = 0; k < i->n_addresses && r >= 0; k++)
        r = translate_address(i->addresses[k], interface, e);
    return r;
}

static int translate_route(const Cloudhv__Agent__V1__Route *m, NetConfig *config, Error *e)
{
    NetRoute *route = net_config_add_route(config);
    int r;

    if (!route)
        return no_room("routes", e);
    if (m->family != AF_INET && m->family != AF_INET6)
        return error_set(e, -EINVAL, "a route of the address family %u", m->family);
    if (m->scope > UINT8_MAX)
        return error_set(e, -EINVAL, "a route of the scope %u", m->scope);
    route->family = (uint8_t)m->family;
    route->scope = (uint8_t)m->scope;
    route->metric = m->metric;
    route->onlink = m->onlink;
    route->mtu = m->mtu;
    r = translate_name(m->interface, route->interface, e);
    if (r >= 0)
        r = translate_ip(&m->destination, &route->destination, "a route's destination", e);
    if (r >= 0)
        r = translate_prefix(m->prefix, route->destination.n, &route->prefix, "a route", e);
    if (r >= 0)
        r = translate_ip(&m->gateway, &route->gateway, "a route's gateway", e);
    if (r >= 0)
        r = translate_ip(&m->source, &route->source, "a route's source", e);
    return r;
}

static int translate_neighbor(const Cloudhv__Agent__V1__Neighbor *m, NetConfig *config, Error *e)
{
    NetNeighbor *neighbor = net_config_add_neighbor(config);
    int r;

    if (!neighbor)
        return no_room("neighbors", e);
    r = translate_name(m->interface, neighbor->interface, e);
    if (r >= 0)
        r = translate_ip(&m->address, &neighbor->address, "a neighbor", e);
    if (r >= 0)
        r = translate_mac(&m->mac, neighbor->mac, "a neighbor", e);
    return r;
}

int network_translate(const Cloudhv__Agent__V1__ConfigureNetworkRequest *q, NetConfig *ret, Error *e)
{
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    int r = 0;

    for (size_t i = 0; i < q->n_interfaces && r >= 0; i++)
        r = translate_interface(q->interfaces[i], &config, e);
    for (size_t i = 0; i < q->n_routes && r >= 0; i++)
        r = translate_route(q->routes[i], &config, e);
    for (size_t i = 0; i < q->n_neighbors && r >= 0; i++)
        r = translate_neighbor(q->neighbors[i], &config, e);
    if (r < 0)
        return r;
    *ret = config;
    config = NET_CONFIG_INIT;
    return 0;
}

static void complete(Network *network, int number)
{
    NetworkFn done = TAKE_PTR(network->done);

    waiting_end(network);
    done(number, number < 0 ? error_message(&network->failure) : NULL, network->userdata);
    error_clear(&network->failure);
}

/* A device of the configuration may have come. */
static void on_device(void *userdata)
{
    Network *network = userdata;
    int r;

    error_clear(&network->failure);
    r = configure_network(&network->config, &network->failure);
    if (r != -ENODEV)
        complete(network, r);
}

static void on_timeout(LoopSource *source, void *userdata)
{
    complete(userdata, -ENODEV);
}

static int await_device(Network *network)
{
    int r = uevent_subscribe(network->monitor, "net", on_device, network, &network->subscription);

    if (r < 0)
        return r;
    return loop_add_timer(network->loop, DEVICE_TIMEOUT_SECS * USEC_PER_SEC, on_timeout, network,
                          &network->timer);
}

void network_configure(Network *network, const Cloudhv__Agent__V1__ConfigureNetworkRequest *q, NetworkFn done,
                       void *userdata)
{
    int r;

    if (network->done) {
        done(-EBUSY, "the network is being configured already", userdata);
        return;
    }
    network->done = done;
    network->userdata = userdata;
    r = network_translate(q, &network->config, &network->failure);
    if (r >= 0)
        r = configure_network(&network->config, &network->failure);
    if (r == -ENODEV && await_device(network) >= 0)
        return;
    complete(network, r);
}
