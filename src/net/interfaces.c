/* SPDX-License-Identifier: MIT */

#include "net/interfaces.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <netinet/in.h>
#include <string.h>

#include "net/link.h"
#include "net/tap.h"

/* What a dump callback works on. */
typedef struct Reader {
    NetConfig *config;
    const LinkList *links;
    int family;
    Error *e;
} Reader;

static int append_error(Error *e, const char *what)
{
    if (errno == E2BIG)
        return error_set(e, -E2BIG, "the pod's network has too many %s", what);
    return error_set_errno(e, -ENOMEM, "cannot read the pod's network");
}

static NetInterface *find_interface(NetConfig *config, unsigned index)
{
    for (size_t i = 0; i < config->n_interfaces; i++)
        if (config->interfaces[i].index == index)
            return &config->interfaces[i];
    return NULL;
}

static int attr_ip(NetIp *ip, const struct nlattr *attr)
{
    return net_ip_set(ip, nla_data(attr), (size_t)nla_len(attr));
}

/* Whether an address is for the guest: see the header. */
static bool address_is_wanted(const struct ifaddrmsg *ifa, uint32_t flags)
{
    if (ifa->ifa_family == AF_INET)
        return ifa->ifa_scope != RT_SCOPE_HOST;
    if (ifa->ifa_family != AF_INET6 ||
        (ifa->ifa_scope != RT_SCOPE_UNIVERSE && ifa->ifa_scope != RT_SCOPE_LINK))
        return false;
    return (flags & IFA_F_PERMANENT) && !(flags & (IFA_F_TEMPORARY | IFA_F_DADFAILED));
}

static int read_address(struct nlmsghdr *nlh, void *userdata)
{
    static const struct nla_policy policy[IFA_MAX + 1] = {
        [IFA_FLAGS] = {.type = NLA_U32},
    };
    Reader *reader = userdata;
    struct nlattr *tb[IFA_MAX + 1];
    const struct ifaddrmsg *ifa = nlmsg_data(nlh);
    NetInterface *interface;
    NetAddress *address;
    const Link *link;
    uint32_t flags;
    int r;

    if (nlmsg_parse(nlh, sizeof(*ifa), tb, IFA_MAX, policy) < 0)
        return -EBADMSG;
    flags = tb[IFA_FLAGS] ? nla_get_u32(tb[IFA_FLAGS]) : ifa->ifa_flags;
    if (!address_is_wanted(ifa, flags) || !(tb[IFA_LOCAL] ?: tb[IFA_ADDRESS]))
        return 0;
    interface = find_interface(reader->config, ifa->ifa_index);
    if (!interface) {
        link = link_list_find_index(reader->links, ifa->ifa_index);
        /* A link-local address is made up by the kernel, and an interface with nothing else unused. */
        if (!link || (link->flags & IFF_LOOPBACK) || !(link->flags & IFF_UP) ||
            ifa->ifa_scope == RT_SCOPE_LINK || tap_name_is_ours(link->name))
            return 0;
        return error_set(reader->e, -EOPNOTSUPP,
                         "interface %s has addresses but is not an Ethernet interface", link->name);
    }
    address = net_interface_add_address(interface);
    if (!address)
        return append_error(reader->e, "addresses on one interface");
    address->prefix = ifa->ifa_prefixlen;
    r = attr_ip(&address->address, tb[IFA_LOCAL] ?: tb[IFA_ADDRESS]);
    if (r >= 0 && tb[IFA_LOCAL] && tb[IFA_ADDRESS] &&
        nla_memcmp(tb[IFA_LOCAL], nla_data(tb[IFA_ADDRESS]), nla_len(tb[IFA_ADDRESS])) != 0)
        r = attr_ip(&address->peer, tb[IFA_ADDRESS]);
    if (r >= 0 && tb[IFA_BROADCAST] && ifa->ifa_family == AF_INET)
        r = attr_ip(&address->broadcast, tb[IFA_BROADCAST]);
    return r;
}

static void restart_addresses(void *userdata)
{
    NetConfig *config = ((Reader *)userdata)->config;

    for (size_t i = 0; i < config->n_interfaces; i++) {
        free(config->interfaces[i].addresses);
        config->interfaces[i].addresses = NULL;
        config->interfaces[i].n_addresses = 0;
    }
}

static int read_metrics(NetRoute *route, struct nlattr *attr)
{
    static const struct nla_policy policy[RTAX_MAX + 1] = {
        [RTAX_MTU] = {.type = NLA_U32},
    };
    struct nlattr *tb[RTAX_MAX + 1];

    if (nla_parse_nested(tb, RTAX_MAX, attr, policy) < 0)
        return -EBADMSG;
    if (tb[RTAX_MTU])
        route->mtu = nla_get_u32(tb[RTAX_MTU]);
    return 0;
}

static int fill_route(NetRoute *route, const struct rtmsg *rtm, struct nlattr *const *tb)
{
    int r = 0;

    route->family = rtm->rtm_family;
    route->prefix = rtm->rtm_dst_len;
    route->scope = rtm->rtm_scope;
    route->onlink = rtm->rtm_flags & RTNH_F_ONLINK;
    if (tb[RTA_DST] && rtm->rtm_dst_len > 0)
        r = attr_ip(&route->destination, tb[RTA_DST]);
    if (r >= 0 && tb[RTA_GATEWAY])
        r = attr_ip(&route->gateway, tb[RTA_GATEWAY]);
    if (r >= 0 && tb[RTA_VIA]) {
        const struct rtvia *via = nla_data(tb[RTA_VIA]);

        r = net_ip_set(&route->gateway, via->rtvia_addr, (size_t)nla_len(tb[RTA_VIA]) - sizeof(*via));
    }
    if (r >= 0 && tb[RTA_PREFSRC])
        r = attr_ip(&route->source, tb[RTA_PREFSRC]);
    if (r >= 0 && tb[RTA_METRICS])
        r = read_metrics(route, tb[RTA_METRICS]);
    if (tb[RTA_PRIORITY])
        route->metric = nla_get_u32(tb[RTA_PRIORITY]);
    return r;
}

/* Whether a route is for the guest at all: see the header. */
static bool route_is_wanted(const struct rtmsg *rtm, struct nlattr *const *tb, int family)
{
    uint32_t table = tb[RTA_TABLE] ? nla_get_u32(tb[RTA_TABLE]) : rtm->rtm_table;

    if (rtm->rtm_family != family || table != RT_TABLE_MAIN || (rtm->rtm_flags & RTM_F_CLONED) ||
        rtm->rtm_protocol == RTPROT_RA)
        return false;
    switch (rtm->rtm_type) {
    case RTN_UNICAST:
        return true;
    case RTN_BLACKHOLE:
    case RTN_UNREACHABLE:
    case RTN_PROHIBIT:
    case RTN_THROW:
        /* The kernel has some of its own. */
        return rtm->rtm_protocol != RTPROT_KERNEL;
    default:
        return false;
    }
}

static int read_route(struct nlmsghdr *nlh, void *userdata)
{
    static const struct nla_policy policy[RTA_MAX + 1] = {
        [RTA_OIF] = {.type = NLA_U32},
        [RTA_PRIORITY] = {.type = NLA_U32},
        [RTA_TABLE] = {.type = NLA_U32},
        [RTA_VIA] = {.minlen = sizeof(struct rtvia)},
    };
    Reader *reader = userdata;
    struct nlattr *tb[RTA_MAX + 1];
    const struct rtmsg *rtm = nlmsg_data(nlh);
    char text[NET_IP_STRING_SIZE];
    NetIp destination = {0};
    NetInterface *interface;
    NetRoute *route;
    int r;

    if (nlmsg_parse(nlh, sizeof(*rtm), tb, RTA_MAX, policy) < 0)
        return -EBADMSG;
    if (!route_is_wanted(rtm, tb, reader->family))
        return 0;
    if (tb[RTA_DST])
        (void)attr_ip(&destination, tb[RTA_DST]);
    if (rtm->rtm_type != RTN_UNICAST)
        return error_set(reader->e, -EOPNOTSUPP,
                         "route %s/%u of the pod rejects packets, which is not supported",
                         net_ip_string(&destination, text), rtm->rtm_dst_len);
    if (tb[RTA_MULTIPATH] || !tb[RTA_OIF])
        return error_set(reader->e, -EOPNOTSUPP,
                         "route %s/%u of the pod has several next hops, which is not supported",
                         net_ip_string(&destination, text), rtm->rtm_dst_len);
    interface = find_interface(reader->config, nla_get_u32(tb[RTA_OIF]));
    if (!interface)
        return 0;
    route = net_config_add_route(reader->config);
    if (!route)
        return append_error(reader->e, "routes");
    memcpy(route->interface, interface->name, sizeof(route->interface));
    r = fill_route(route, rtm, tb);
    if (r < 0)
        return error_set(reader->e, r, "cannot understand route %s/%u of the pod",
                         net_ip_string(&destination, text), rtm->rtm_dst_len);
    return 0;
}

/* The routes of one family come last in the array. */
static void restart_routes(void *userdata)
{
    Reader *reader = userdata;
    NetConfig *config = reader->config;

    while (config->n_routes > 0 && config->routes[config->n_routes - 1].family == reader->family)
        config->n_routes--;
}

static int compare_routes(const void *pa, const void *pb)
{
    const NetRoute *a = pa, *b = pb;

    if ((a->gateway.n > 0) != (b->gateway.n > 0))
        return a->gateway.n > 0 ? 1 : -1;
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    if (a->prefix != b->prefix)
        return a->prefix > b->prefix ? -1 : 1;
    return a->metric < b->metric ? -1 : a->metric > b->metric;
}

static int read_neighbor(struct nlmsghdr *nlh, void *userdata)
{
    Reader *reader = userdata;
    struct nlattr *tb[NDA_MAX + 1];
    const struct ndmsg *ndm = nlmsg_data(nlh);
    NetInterface *interface;
    NetNeighbor *neighbor;

    if (nlmsg_parse(nlh, sizeof(*ndm), tb, NDA_MAX, NULL) < 0)
        return -EBADMSG;
    if ((ndm->ndm_family != AF_INET && ndm->ndm_family != AF_INET6) || !(ndm->ndm_state & NUD_PERMANENT) ||
        (ndm->ndm_flags & NTF_PROXY) || !tb[NDA_DST] || !tb[NDA_LLADDR] ||
        nla_len(tb[NDA_LLADDR]) != NET_MAC_SIZE)
        return 0;
    interface = find_interface(reader->config, (unsigned)ndm->ndm_ifindex);
    if (!interface)
        return 0;
    neighbor = net_config_add_neighbor(reader->config);
    if (!neighbor)
        return append_error(reader->e, "permanent neighbours");
    memcpy(neighbor->interface, interface->name, sizeof(neighbor->interface));
    memcpy(neighbor->mac, nla_data(tb[NDA_LLADDR]), NET_MAC_SIZE);
    return attr_ip(&neighbor->address, tb[NDA_DST]);
}

static void restart_neighbors(void *userdata)
{
    ((Reader *)userdata)->config->n_neighbors = 0;
}

static int pick_interfaces(const LinkList *links, NetConfig *config, Error *e)
{
    for (size_t i = 0; i < links->n; i++) {
        const Link *link = &links->links[i];
        NetInterface *interface;

        if (link->type != ARPHRD_ETHER || !(link->flags & IFF_UP) || tap_name_is_ours(link->name))
            continue;
        interface = net_config_add_interface(config);
        if (!interface)
            return append_error(e, "interfaces");
        interface->index = link->index;
        interface->mtu = link->mtu;
        memcpy(interface->name, link->name, sizeof(interface->name));
        memcpy(interface->mac, link->mac, sizeof(interface->mac));
    }
    return 0;
}

/* Runs one dump; an error that the callback did not explain gets words here. */
static int dump(Rtnl *rtnl, uint16_t type, const void *header, size_t header_size, RtnlFn callback,
                void (*restart)(void *), Reader *reader, const char *what)
{
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(type, 0, header, header_size, 0);
    int r;

    r = rtnl_dump(rtnl, message, type - 2, callback, restart, reader,
                  reader->e); /* RTM_GET… is RTM_NEW… + 2 */
    if (r < 0 && reader->e && reader->e->number == 0)
        error_set_errno(reader->e, r, "cannot read the pod's %s", what);
    return r;
}

int interfaces_read(Rtnl *rtnl, NetConfig *ret, Error *e)
{
    static const int families[] = {AF_INET, AF_INET6};
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    _cleanup_link_list_ LinkList links = {0};
    Reader reader = {.config = &config, .links = &links, .e = e};
    struct ifaddrmsg ifa = {.ifa_family = AF_UNSPEC};
    struct ndmsg ndm = {.ndm_family = AF_UNSPEC};
    int r;

    r = link_list_read(rtnl, &links, e);
    if (r >= 0)
        r = pick_interfaces(&links, &config, e);
    if (r >= 0)
        r = dump(rtnl, RTM_GETADDR, &ifa, sizeof(ifa), read_address, restart_addresses, &reader, "addresses");
    for (size_t i = 0; i < ELEMENTSOF(families) && r >= 0; i++) {
        struct rtmsg rtm = {.rtm_family = (unsigned char)families[i]};

        reader.family = families[i];
        r = dump(rtnl, RTM_GETROUTE, &rtm, sizeof(rtm), read_route, restart_routes, &reader, "routes");
    }
    if (r >= 0)
        r = dump(rtnl, RTM_GETNEIGH, &ndm, sizeof(ndm), read_neighbor, restart_neighbors, &reader,
                 "neighbours");
    if (r < 0)
        return r;
    if (config.n_routes > 0)
        qsort(config.routes, config.n_routes, sizeof(config.routes[0]), compare_routes);
    *ret = config;
    config = NET_CONFIG_INIT;
    return 0;
}
