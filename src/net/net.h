/* SPDX-License-Identifier: MIT */
#pragma once

/* The network of a pod as plain data: what a CNI plugin set up in the pod's network namespace, read by
 * interfaces.h on the host and applied by configure.h in the guest. The structures map one to one to
 * ConfigureNetworkRequest of agent.proto; addresses are in network byte order. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum {
    NET_NAME_SIZE = 16, /* IFNAMSIZ, with the NUL */
    NET_MAC_SIZE = 6,

    /* More than any sensible pod has; a list that is longer is refused, on both sides. */
    NET_INTERFACES_MAX = 8,
    NET_ADDRESSES_MAX = 64, /* of one interface */
    NET_ROUTES_MAX = 1024,
    NET_NEIGHBORS_MAX = 256,
};

/* An address without its prefix. `n` is 4 or 16 bytes, or 0: there is none. */
typedef struct NetIp {
    uint8_t bytes[16];
    uint8_t n;
} NetIp;

typedef struct NetAddress {
    NetIp address;
    uint8_t prefix;
    NetIp peer;      /* point-to-point: the other end; `prefix` is then the peer's */
    NetIp broadcast; /* IPv4 only */
} NetAddress;

typedef struct NetInterface {
    unsigned index;                   /* on the host; 0 in the guest */
    char name[NET_NAME_SIZE];         /* such as eth0 */
    uint8_t device_mac[NET_MAC_SIZE]; /* how the guest finds the device: the MAC that the VMM gave it */
    uint8_t mac[NET_MAC_SIZE];        /* what it gets: the MAC of the CNI interface */
    uint32_t mtu;                     /* 0: unchanged */
    NetAddress *addresses;
    size_t n_addresses;
} NetInterface;

typedef struct NetRoute {
    char interface[NET_NAME_SIZE];
    uint8_t family;    /* AF_INET or AF_INET6 */
    NetIp destination; /* none: default */
    uint8_t prefix;
    NetIp gateway; /* none: on-link. May be IPv6 in an IPv4 route (RFC 5549) */
    NetIp source;  /* preferred source */
    uint32_t metric;
    uint8_t scope; /* as in rtnetlink(7) */
    bool onlink;   /* the gateway is reachable though no route says so */
    uint32_t mtu;
} NetRoute;

typedef struct NetNeighbor {
    char interface[NET_NAME_SIZE];
    NetIp address;
    uint8_t mac[NET_MAC_SIZE];
} NetNeighbor;

typedef struct NetConfig {
    NetInterface *interfaces;
    size_t n_interfaces;
    NetRoute *routes; /* in the order in which they can be added */
    size_t n_routes;
    NetNeighbor *neighbors; /* permanent entries */
    size_t n_neighbors;
} NetConfig;

#define NET_CONFIG_INIT ((NetConfig){0})

/* Frees what it holds, not itself. */
void net_config_clear(NetConfig *config);
#define _cleanup_net_config_ _cleanup_(net_config_clear)

/* Append a zeroed element and return it, to be filled in; NULL when out of memory or when the limit above is
 * reached (errno says which: ENOMEM, E2BIG). */
NetInterface *net_config_add_interface(NetConfig *config);
NetAddress *net_interface_add_address(NetInterface *interface);
NetRoute *net_config_add_route(NetConfig *config);
NetNeighbor *net_config_add_neighbor(NetConfig *config);

/* Takes 0, 4 or 16 bytes as they come in a message; -EINVAL for another length. */
int net_ip_set(NetIp *ip, const void *bytes, size_t n);

/* "10.0.0.1", "fe80::1" or "none", for messages. */
enum { NET_IP_STRING_SIZE = 46 };
const char *net_ip_string(const NetIp *ip, char buffer[static NET_IP_STRING_SIZE]);

/* "02:00:00:00:00:01" */
enum { NET_MAC_STRING_SIZE = 18 };
const char *net_mac_string(const uint8_t mac[static NET_MAC_SIZE], char buffer[static NET_MAC_STRING_SIZE]);

/* A name that the kernel takes for an interface: 1 to 15 characters, no slash, colon, white space or control
 * character, not "." or "..", not "all" or "default" (they are directories of sysctls). */
bool net_name_is_valid(const char *name);
