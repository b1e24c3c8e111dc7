/* SPDX-License-Identifier: MIT */

#include "shim/network-message.h"

#include <errno.h>

#include "agent.pb-c.h"

typedef Cloudhv__Agent__V1__ConfigureNetworkRequest Request;
typedef Cloudhv__Agent__V1__Interface Interface;
typedef Cloudhv__Agent__V1__Address Address;
typedef Cloudhv__Agent__V1__Route Route;
typedef Cloudhv__Agent__V1__Neighbor Neighbor;

/* All parts of a request; the addresses of all interfaces lie in one array. */
typedef struct Parts {
    Interface *interfaces;
    Interface **interface_pointers;
    Address *addresses;
    Address **address_pointers;
    Route *routes;
    Route **route_pointers;
    Neighbor *neighbors;
    Neighbor **neighbor_pointers;
} Parts;

static void parts_clear(Parts *p)
{
    free(p->interfaces);
    free(p->interface_pointers);
    free(p->addresses);
    free(p->address_pointers);
    free(p->routes);
    free(p->route_pointers);
    free(p->neighbors);
    free(p->neighbor_pointers);
}

static int parts_allocate(Parts *p, const NetConfig *c)
{
    size_t n_addresses = 0;

    for (size_t i = 0; i < c->n_interfaces; i++)
        n_addresses += c->interfaces[i].n_addresses;
    /* One more of each: no allocation of nothing, whose NULL would look like a failure. */
    p->interfaces = calloc(c->n_interfaces + 1, sizeof(*p->interfaces));
    p->interface_pointers = calloc(c->n_interfaces + 1, sizeof(*p->interface_pointers));
    p->addresses = calloc(n_addresses + 1, sizeof(*p->addresses));
    p->address_pointers = calloc(n_addresses + 1, sizeof(*p->address_pointers));
    p->routes = calloc(c->n_routes + 1, sizeof(*p->routes));
    p->route_pointers = calloc(c->n_routes + 1, sizeof(*p->route_pointers));
    p->neighbors = calloc(c->n_neighbors + 1, sizeof(*p->neighbors));
    p->neighbor_pointers = calloc(c->n_neighbors + 1, sizeof(*p->neighbor_pointers));
    return p->interfaces && p->interface_pointers && p->addresses && p->address_pointers && p->routes &&
                   p->route_pointers && p->neighbors && p->neighbor_pointers
               ? 0
               : -ENOMEM;
}

static ProtobufCBinaryData bytes(const void *data, size_t n)
{
    return (ProtobufCBinaryData){.len = n, .data = (uint8_t *)data};
}

static ProtobufCBinaryData ip(const NetIp *address)
{
    return bytes(address->bytes, address->n);
}

static void fill_interfaces(Parts *p, const NetConfig *c)
{
    size_t next = 0;

    for (size_t i = 0; i < c->n_interfaces; i++) {
        const NetInterface *from = &c->interfaces[i];
        Interface *to = &p->interfaces[i];

        cloudhv__agent__v1__interface__init(to);
        to->device_mac = bytes(from->device_mac, NET_MAC_SIZE);
        to->name = (char *)from->name;
        to->mac = bytes(from->mac, NET_MAC_SIZE);
        to->mtu = from->mtu;
        to->addresses = &p->address_pointers[next];
        to->n_addresses = from->n_addresses;
        p->interface_pointers[i] = to;
        for (size_t k = 0; k < from->n_addresses; k++, next++) {
            Address *address = &p->addresses[next];

            cloudhv__agent__v1__address__init(address);
            address->address = ip(&from->addresses[k].address);
            address->prefix = from->addresses[k].prefix;
            address->peer = ip(&from->addresses[k].peer);
            address->broadcast = ip(&from->addresses[k].broadcast);
            p->address_pointers[next] = address;
        }
    }
}

static void fill_routes(Parts *p, const NetConfig *c)
{
    for (size_t i = 0; i < c->n_routes; i++) {
        const NetRoute *from = &c->routes[i];
        Route *to = &p->routes[i];

        cloudhv__agent__v1__route__init(to);
        to->interface = (char *)from->interface;
        to->family = from->family;
        to->destination = ip(&from->destination);
        to->prefix = from->prefix;
        to->gateway = ip(&from->gateway);
        to->source = ip(&from->source);
        to->metric = from->metric;
        to->scope = from->scope;
        to->onlink = from->onlink;
        to->mtu = from->mtu;
        p->route_pointers[i] = to;
    }
}

static void fill_neighbors(Parts *p, const NetConfig *c)
{
    for (size_t i = 0; i < c->n_neighbors; i++) {
        const NetNeighbor *from = &c->neighbors[i];
        Neighbor *to = &p->neighbors[i];

        cloudhv__agent__v1__neighbor__init(to);
        to->interface = (char *)from->interface;
        to->address = ip(&from->address);
        to->mac = bytes(from->mac, NET_MAC_SIZE);
        p->neighbor_pointers[i] = to;
    }
}

int network_message_send(TtrpcClient *agent, const NetConfig *config, uint64_t timeout_usec, TtrpcReplyFn callback,
                         void *userdata, TtrpcPending **ret, Error *e)
{
    Request request = CLOUDHV__AGENT__V1__CONFIGURE_NETWORK_REQUEST__INIT;
    _cleanup_(parts_clear) Parts parts = {0};
    int r;

    r = parts_allocate(&parts, config);
    if (r < 0)
        return error_set_errno(e, r, "cannot describe the pod's network");
    fill_interfaces(&parts, config);
    fill_routes(&parts, config);
    fill_neighbors(&parts, config);
    request.interfaces = parts.interface_pointers;
    request.n_interfaces = config->n_interfaces;
    request.routes = parts.route_pointers;
    request.n_routes = config->n_routes;
    request.neighbors = parts.neighbor_pointers;
    request.n_neighbors = config->n_neighbors;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "ConfigureNetwork",
        .request = &request.base,
        .timeout_usec = timeout_usec,
    };
    r = ttrpc_client_call(agent, &spec, callback, userdata, ret);
    return r < 0 ? error_set_errno(e, r, "cannot tell the agent about the pod's network") : 0;
}
