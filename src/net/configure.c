/* SPDX-License-Identifier: MIT */

#include "net/configure.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <netinet/in.h>
#include <string.h>

#include "base/fs.h"
#include "net/link.h"

enum { LOOPBACK_INDEX = 1 }; /* of every network namespace */

static const uint8_t no_mac[NET_MAC_SIZE];

/* ------------------------------------------------------------------------------------------- what must hold
 */

static bool has_interface(const NetConfig *config, const char *name)
{
    for (size_t i = 0; i < config->n_interfaces; i++)
        if (strcmp(config->interfaces[i].name, name) == 0)
            return true;
    return false;
}

static bool ip_fits(const NetIp *ip, uint8_t n, bool optional)
{
    return ip->n == n || (optional && ip->n == 0);
}

static int check_interface(const NetInterface *interface, Error *e)
{
    char text[NET_IP_STRING_SIZE];

    if (!net_name_is_valid(interface->name) || strcmp(interface->name, "lo") == 0)
        return error_set(e, -EINVAL, "bad interface name '%.*s'", NET_NAME_SIZE, interface->name);
    if ((interface->mac[0] & 1) || memcmp(interface->mac, no_mac, NET_MAC_SIZE) == 0)
        return error_set(e, -EINVAL, "bad MAC address for interface %s", interface->name);
    for (size_t i = 0; i < interface->n_addresses; i++) {
        const NetAddress *a = &interface->addresses[i];

        if ((a->address.n != 4 && a->address.n != 16) || a->prefix > a->address.n * 8 ||
            !ip_fits(&a->peer, a->address.n, true) || !ip_fits(&a->broadcast, 4, true) ||
            (a->broadcast.n > 0 && a->address.n != 4))
            return error_set(e, -EINVAL, "bad address %s/%u for interface %s",
                             net_ip_string(&a->address, text), a->prefix, interface->name);
    }
    return 0;
}

static int check_route(const NetConfig *config, const NetRoute *route, Error *e)
{
    uint8_t n = route->family == AF_INET ? 4 : 16;
    char text[NET_IP_STRING_SIZE];

    if ((route->family != AF_INET && route->family != AF_INET6) || route->prefix > n * 8 ||
        !ip_fits(&route->destination, n, route->prefix == 0) || !ip_fits(&route->source, n, true) ||
        (!ip_fits(&route->gateway, n, true) && !(n == 4 && route->gateway.n == 16)))
        return error_set(e, -EINVAL, "bad route to %s/%u", net_ip_string(&route->destination, text),
                         route->prefix);
    if (!has_interface(config, route->interface))
        return error_set(e, -EINVAL, "route to %s/%u names interface '%.*s', which is not configured",
                         net_ip_string(&route->destination, text), route->prefix, NET_NAME_SIZE,
                         route->interface);
    return 0;
}

static int check_config(const NetConfig *config, Error *e)
{
    int r = 0;

    for (size_t i = 0; i < config->n_interfaces && r >= 0; i++) {
        r = check_interface(&config->interfaces[i], e);
        for (size_t j = 0; j < i && r >= 0; j++)
            if (strcmp(config->interfaces[i].name, config->interfaces[j].name) == 0)
                r = error_set(e, -EINVAL, "interface %s is named twice", config->interfaces[i].name);
    }
    for (size_t i = 0; i < config->n_routes && r >= 0; i++)
        r = check_route(config, &config->routes[i], e);
    for (size_t i = 0; i < config->n_neighbors && r >= 0; i++) {
        const NetNeighbor *neighbor = &config->neighbors[i];

        if ((neighbor->address.n != 4 && neighbor->address.n != 16) ||
            !has_interface(config, neighbor->interface))
            r = error_set(e, -EINVAL, "bad neighbour on interface '%.*s'", NET_NAME_SIZE,
                          neighbor->interface);
    }
    return r;
}

/* --------------------------------------------------------------------------------------- finding the devices
 */

static bool is_taken(const unsigned *indices, size_t n, unsigned index)
{
    for (size_t i = 0; i < n; i++)
        if (indices[i] == index)
            return true;
    return false;
}

/* By the MAC that the VMM gave the device. Its current one serves where the driver keeps no permanent one,
 * and the pod's MAC finds such a device when it is configured again. */
static const Link *find_device(const LinkList *links, const NetInterface *interface, const unsigned *taken,
                               size_t n)
{
    const Link *second = NULL, *third = NULL;

    for (size_t i = 0; i < links->n; i++) {
        const Link *link = &links->links[i];

        if (link->type != ARPHRD_ETHER || is_taken(taken, n, link->index))
            continue;
        if (memcmp(interface->device_mac, no_mac, NET_MAC_SIZE) != 0) {
            if (memcmp(link->permanent_mac, interface->device_mac, NET_MAC_SIZE) == 0)
                return link;
            if (memcmp(link->mac, interface->device_mac, NET_MAC_SIZE) == 0)
                second = link;
        }
        if (memcmp(link->mac, interface->mac, NET_MAC_SIZE) == 0)
            third = link;
    }
    return second ?: third;
}

static int find_devices(const LinkList *links, const NetConfig *config, unsigned *indices, Error *e)
{
    for (size_t i = 0; i < config->n_interfaces; i++) {
        const NetInterface *interface = &config->interfaces[i];
        const Link *link = find_device(links, interface, indices, i);
        char text[NET_MAC_STRING_SIZE];

        if (!link)
            return error_set(e, -ENODEV, "there is no network device with MAC address %s for interface %s",
                             net_mac_string(interface->device_mac, text), interface->name);
        indices[i] = link->index;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------- taking away what was
 */

typedef struct Flush {
    struct nl_msg *messages[2 * NET_ADDRESSES_MAX];
    size_t n;
    unsigned index;
} Flush;

static int collect_address(struct nlmsghdr *nlh, void *userdata)
{
    Flush *flush = userdata;
    const struct ifaddrmsg *ifa = nlmsg_data(nlh);
    struct nl_msg *message;

    if (!nlmsg_valid_hdr(nlh, sizeof(*ifa)))
        return -EBADMSG;
    if (ifa->ifa_index != flush->index)
        return 0;
    if (flush->n == ELEMENTSOF(flush->messages))
        return -E2BIG;
    /* What the kernel says about an address is what it wants to hear to delete it. */
    message = nlmsg_convert(nlh);
    if (!message)
        return -ENOMEM;
    *nlmsg_hdr(message) = (struct nlmsghdr){.nlmsg_type = RTM_DELADDR, .nlmsg_len = nlh->nlmsg_len};
    flush->messages[flush->n++] = message;
    return 0;
}

static void flush_clear(void *userdata)
{
    Flush *flush = userdata;

    while (flush->n > 0)
        nlmsg_free(flush->messages[--flush->n]);
}

static int flush_addresses(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    struct ifaddrmsg ifa = {.ifa_family = AF_UNSPEC, .ifa_index = index};
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_GETADDR, 0, &ifa, sizeof(ifa), 0);
    Flush flush = {.index = index};
    int r;

    r = rtnl_dump(rtnl, message, RTM_NEWADDR, collect_address, flush_clear, &flush, e);
    if (r < 0 && e && e->number == 0)
        error_set_errno(e, r, "cannot list the addresses of %s", name);
    for (size_t i = 0; i < flush.n && r >= 0; i++) {
        r = rtnl_call(rtnl, flush.messages[i], NULL, "%s", "");
        /* Secondary addresses go with their primary one. */
        if (r == -EADDRNOTAVAIL)
            r = 0;
        if (r < 0)
            error_set_errno(e, r, "cannot remove an address of %s", name);
    }
    flush_clear(&flush);
    return r;
}

/* Devices of the VM are down and bare afterwards: routes and neighbours go with IFF_UP. Devices that the
 * kernel only simulates (bridges, veths that the workload made) have no permanent MAC and are left alone. */
static int reset_devices(Rtnl *rtnl, const LinkList *links, const unsigned *indices, size_t n, Error *e)
{
    for (size_t i = 0; i < links->n; i++) {
        const Link *link = &links->links[i];
        int r;

        if (link->type != ARPHRD_ETHER ||
            (memcmp(link->permanent_mac, no_mac, NET_MAC_SIZE) == 0 && !is_taken(indices, n, link->index)))
            continue;
        r = link_set_up(rtnl, link->index, link->name, false, e);
        if (r >= 0)
            r = flush_addresses(rtnl, link->index, link->name, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------ setting things
 * up */

/* Via temporary names, since one device may have the name that another one is to get. */
static int rename_devices(Rtnl *rtnl, const LinkList *links, const NetConfig *config, const unsigned *indices,
                          Error *e)
{
    char temporary[NET_NAME_SIZE];
    int r;

    for (size_t i = 0; i < links->n; i++) {
        const Link *link = &links->links[i];

        if (!has_interface(config, link->name) && !is_taken(indices, config->n_interfaces, link->index))
            continue;
        snprintf(temporary, sizeof(temporary), "dev%u", link->index);
        if (strcmp(temporary, link->name) == 0)
            continue;
        r = link_rename(rtnl, link->index, link->name, temporary, e);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < config->n_interfaces; i++) {
        snprintf(temporary, sizeof(temporary), "dev%u", indices[i]);
        r = link_rename(rtnl, indices[i], temporary, config->interfaces[i].name, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int refuse_advertisements(const char *name, Error *e)
{
    char path[96];
    int r;

    /* The pod's configuration is the CNI's, whole; see interfaces.h. ENOENT: no IPv6. */
    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", name);
    r = fs_write_existing(path, "0");
    if (r < 0 && r != -ENOENT)
        return error_set_errno(e, r, "cannot write %s", path);
    return 0;
}

/* Puts nothing where there is no address. */
static bool put_ip(struct nl_msg *message, int attribute, const NetIp *ip)
{
    return ip->n == 0 || nla_put(message, attribute, ip->n, ip->bytes) >= 0;
}

static int add_address(Rtnl *rtnl, unsigned index, const char *name, const NetAddress *a, Error *e)
{
    struct ifaddrmsg ifa = {
        .ifa_family = a->address.n == 4 ? AF_INET : AF_INET6, .ifa_prefixlen = a->prefix, .ifa_index = index};
    _cleanup_nlmsg_ struct nl_msg *message = NULL;
    const NetIp *other = a->peer.n > 0 ? &a->peer : &a->address;
    char text[NET_IP_STRING_SIZE];
    bool ok;

    if (ifa.ifa_family == AF_INET6 && a->address.bytes[0] == 0xfe && (a->address.bytes[1] & 0xc0) == 0x80)
        ifa.ifa_scope = RT_SCOPE_LINK;
    message = rtnl_message_new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &ifa, sizeof(ifa), 0);
    /* The host has checked for duplicates already, and waiting again would delay the pod by a second. The
     * routes come from the host too, all of them. */
    ok = message && nla_put_u32(message, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE) >= 0 &&
         put_ip(message, IFA_LOCAL, &a->address) && put_ip(message, IFA_ADDRESS, other) &&
         put_ip(message, IFA_BROADCAST, &a->broadcast);
    return rtnl_call(rtnl, ok ? message : NULL, e, "add address %s/%u to %s",
                     net_ip_string(&a->address, text), a->prefix, name);
}

static bool put_gateway(struct nl_msg *message, const NetRoute *route)
{
    uint16_t via[1 + 8] = {AF_INET6}; /* struct rtvia: the family, then the address */

    if (route->family == AF_INET6 || route->gateway.n != 16)
        return put_ip(message, RTA_GATEWAY, &route->gateway);
    memcpy(via + 1, route->gateway.bytes, 16);
    return nla_put(message, RTA_VIA, sizeof(via), via) >= 0;
}

static bool put_mtu(struct nl_msg *message, uint32_t mtu)
{
    struct nlattr *metrics;

    return mtu == 0 || ((metrics = nla_nest_start(message, RTA_METRICS)) &&
                        nla_put_u32(message, RTAX_MTU, mtu) >= 0 && nla_nest_end(message, metrics) >= 0);
}

static int add_route(Rtnl *rtnl, unsigned index, const NetRoute *route, Error *e)
{
    struct rtmsg rtm = {.rtm_family = route->family,
                        .rtm_dst_len = route->prefix,
                        .rtm_table = RT_TABLE_MAIN,
                        .rtm_protocol = RTPROT_STATIC,
                        .rtm_scope = route->scope,
                        .rtm_type = RTN_UNICAST,
                        .rtm_flags = route->onlink ? RTNH_F_ONLINK : 0};
    /* Append: several routes to one destination are several routes. */
    _cleanup_nlmsg_ struct nl_msg *message =
        rtnl_message_new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &rtm, sizeof(rtm), 0);
    char to[NET_IP_STRING_SIZE], via[NET_IP_STRING_SIZE];
    bool ok;
    int r;

    ok = message && nla_put_u32(message, RTA_OIF, index) >= 0 &&
         put_ip(message, RTA_DST, &route->destination) && put_ip(message, RTA_PREFSRC, &route->source) &&
         (route->metric == 0 || nla_put_u32(message, RTA_PRIORITY, route->metric) >= 0) &&
         put_gateway(message, route) && put_mtu(message, route->mtu);
    r = rtnl_call(rtnl, ok ? message : NULL, e, "add the route to %s/%u via %s on %s",
                  route->destination.n > 0 ? net_ip_string(&route->destination, to) : "default",
                  route->prefix, net_ip_string(&route->gateway, via), route->interface);
    if (r == -EEXIST) {
        if (e)
            error_clear(e);
        return 0;
    }
    return r;
}

static int add_neighbor(Rtnl *rtnl, unsigned index, const NetNeighbor *neighbor, Error *e)
{
    struct ndmsg ndm = {.ndm_family = neighbor->address.n == 4 ? AF_INET : AF_INET6,
                        .ndm_ifindex = (int)index,
                        .ndm_state = NUD_PERMANENT};
    _cleanup_nlmsg_ struct nl_msg *message =
        rtnl_message_new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &ndm, sizeof(ndm), 0);
    bool ok = message && put_ip(message, NDA_DST, &neighbor->address) &&
              nla_put(message, NDA_LLADDR, NET_MAC_SIZE, neighbor->mac) >= 0;
    char text[NET_IP_STRING_SIZE];

    return rtnl_call(rtnl, ok ? message : NULL, e, "add neighbour %s on %s",
                     net_ip_string(&neighbor->address, text), neighbor->interface);
}

static unsigned index_of(const NetConfig *config, const unsigned *indices, const char *name)
{
    for (size_t i = 0; i < config->n_interfaces; i++)
        if (strcmp(config->interfaces[i].name, name) == 0)
            return indices[i];
    return 0; /* check_config() has seen to it */
}

static int set_up_interface(Rtnl *rtnl, unsigned index, const NetInterface *interface, Error *e)
{
    int r;

    r = link_set_mac(rtnl, index, interface->name, interface->mac, e);
    if (r >= 0 && interface->mtu > 0)
        r = link_set_mtu(rtnl, index, interface->name, interface->mtu, e);
    if (r >= 0)
        r = link_set_no_ipv6_autoconf(rtnl, index, interface->name, e);
    if (r >= 0)
        r = refuse_advertisements(interface->name, e);
    if (r >= 0)
        r = link_set_up(rtnl, index, interface->name, true, e);
    for (size_t i = 0; i < interface->n_addresses && r >= 0; i++)
        r = add_address(rtnl, index, interface->name, &interface->addresses[i], e);
    return r;
}

static int apply(Rtnl *rtnl, const LinkList *links, const NetConfig *config, const unsigned *indices,
                 Error *e)
{
    int r;

    r = rename_devices(rtnl, links, config, indices, e);
    for (size_t i = 0; i < config->n_interfaces && r >= 0; i++)
        r = set_up_interface(rtnl, indices[i], &config->interfaces[i], e);
    for (size_t i = 0; i < config->n_routes && r >= 0; i++)
        r = add_route(rtnl, index_of(config, indices, config->routes[i].interface), &config->routes[i], e);
    for (size_t i = 0; i < config->n_neighbors && r >= 0; i++)
        r = add_neighbor(rtnl, index_of(config, indices, config->neighbors[i].interface),
                         &config->neighbors[i], e);
    return r;
}

int configure_network(const NetConfig *config, Error *e)
{
    unsigned indices[NET_INTERFACES_MAX] = {0};
    _cleanup_link_list_ LinkList links = {0};
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    int r;

    if (config->n_interfaces > NET_INTERFACES_MAX)
        return error_set(e, -E2BIG, "more than %i interfaces", NET_INTERFACES_MAX);
    r = check_config(config, e);
    if (r >= 0)
        r = rtnl_new(&rtnl, e);
    if (r >= 0)
        r = link_set_up(rtnl, LOOPBACK_INDEX, "lo", true, e);
    if (r >= 0)
        r = link_list_read(rtnl, &links, e);
    if (r >= 0)
        r = find_devices(&links, config, indices, e);
    if (r < 0)
        return r;
    r = reset_devices(rtnl, &links, indices, config->n_interfaces, e);
    if (r >= 0)
        r = apply(rtnl, &links, config, indices, e);
    if (r < 0)
        (void)reset_devices(rtnl, &links, indices, config->n_interfaces, NULL);
    return r;
}

int configure_loopback(Error *e)
{
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    int r;

    r = rtnl_new(&rtnl, e);
    if (r < 0)
        return r;
    return link_set_up(rtnl, LOOPBACK_INDEX, "lo", true, e);
}
