/* SPDX-License-Identifier: MIT */

#include "net/link.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <string.h>

enum { LINKS_MAX = 4096 };

void link_list_clear(LinkList *list)
{
    free(list->links);
    *list = (LinkList){0};
}

static void copy_mac(uint8_t mac[static NET_MAC_SIZE], const struct nlattr *attr)
{
    if (attr && nla_len(attr) == NET_MAC_SIZE)
        memcpy(mac, nla_data(attr), NET_MAC_SIZE);
}

static int read_link(struct nlmsghdr *nlh, void *userdata)
{
    static const struct nla_policy policy[IFLA_MAX + 1] = {
        [IFLA_IFNAME] = {.type = NLA_STRING, .maxlen = NET_NAME_SIZE},
        [IFLA_MTU] = {.type = NLA_U32},
    };
    LinkList *list = userdata;
    struct nlattr *tb[IFLA_MAX + 1];
    const struct ifinfomsg *ifi = nlmsg_data(nlh);
    Link *link;

    if (nlmsg_parse(nlh, sizeof(*ifi), tb, IFLA_MAX, policy) < 0 || !tb[IFLA_IFNAME])
        return -EBADMSG;
    if (list->n >= LINKS_MAX)
        return -E2BIG;
    if ((list->n & (list->n - 1)) == 0) {
        Link *p = realloc(list->links, (list->n ? list->n * 2 : 1) * sizeof(*p));

        if (!p)
            return -ENOMEM;
        list->links = p;
    }
    link = &list->links[list->n++];
    *link = (Link){.index = (unsigned)ifi->ifi_index, .type = ifi->ifi_type, .flags = ifi->ifi_flags};
    snprintf(link->name, sizeof(link->name), "%s", nla_get_string(tb[IFLA_IFNAME]));
    copy_mac(link->mac, tb[IFLA_ADDRESS]);
    copy_mac(link->permanent_mac, tb[IFLA_PERM_ADDRESS]);
    if (tb[IFLA_MTU])
        link->mtu = nla_get_u32(tb[IFLA_MTU]);
    return 0;
}

static void restart_links(void *userdata)
{
    ((LinkList *)userdata)->n = 0;
}

int link_list_read(Rtnl *rtnl, LinkList *ret, Error *e)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_GETLINK, 0, &ifi, sizeof(ifi), 0);
    /* Without this each answer carries statistics that nobody reads. */
    bool ok = message && nla_put_u32(message, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) >= 0;
    _cleanup_link_list_ LinkList list = {0};
    int r;

    r = rtnl_dump(rtnl, ok ? message : NULL, RTM_NEWLINK, read_link, restart_links, &list, e);
    if (r < 0)
        return e && e->number ? r : error_set_errno(e, r, "cannot list network interfaces");
    *ret = list;
    list = (LinkList){0};
    return 0;
}

const Link *link_list_find_index(const LinkList *list, unsigned index)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->links[i].index == index)
            return &list->links[i];
    return NULL;
}

int link_set_up(Rtnl *rtnl, unsigned index, const char *name, bool up, Error *e)
{
    struct ifinfomsg ifi = {.ifi_index = (int)index, .ifi_change = IFF_UP, .ifi_flags = up ? IFF_UP : 0};
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), 0);

    return rtnl_call(rtnl, message, e, "%s interface %s", up ? "raise" : "take down", name);
}

/* Sends one attribute. */
static int link_set(Rtnl *rtnl, unsigned index, int attribute, const void *data, size_t n, Error *e,
                    const char *what)
{
    struct ifinfomsg ifi = {.ifi_index = (int)index};
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), 0);
    bool ok = message && nla_put(message, attribute, (int)n, data) >= 0;

    return rtnl_call(rtnl, ok ? message : NULL, e, "%s", what);
}

int link_set_mtu(Rtnl *rtnl, unsigned index, const char *name, uint32_t mtu, Error *e)
{
    char what[64];

    snprintf(what, sizeof(what), "set the MTU of %s to %u", name, mtu);
    return link_set(rtnl, index, IFLA_MTU, &mtu, sizeof(mtu), e, what);
}

int link_set_mac(Rtnl *rtnl, unsigned index, const char *name, const uint8_t mac[static NET_MAC_SIZE],
                 Error *e)
{
    char what[80], text[NET_MAC_STRING_SIZE];

    snprintf(what, sizeof(what), "set the MAC address of %s to %s", name, net_mac_string(mac, text));
    return link_set(rtnl, index, IFLA_ADDRESS, mac, NET_MAC_SIZE, e, what);
}

int link_rename(Rtnl *rtnl, unsigned index, const char *name, const char *new_name, Error *e)
{
    char what[64];

    snprintf(what, sizeof(what), "rename interface %s to %s", name, new_name);
    return link_set(rtnl, index, IFLA_IFNAME, new_name, strlen(new_name) + 1, e, what);
}

int link_set_no_ipv6_autoconf(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    struct ifinfomsg ifi = {.ifi_index = (int)index};
    _cleanup_nlmsg_ struct nl_msg *message = rtnl_message_new(RTM_NEWLINK, 0, &ifi, sizeof(ifi), 0);
    struct nlattr *spec, *inet6;
    bool ok;
    int r;

    ok = message && (spec = nla_nest_start(message, IFLA_AF_SPEC)) &&
         (inet6 = nla_nest_start(message, AF_INET6)) &&
         nla_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) >= 0 &&
         nla_nest_end(message, inet6) >= 0 && nla_nest_end(message, spec) >= 0;
    r = rtnl_call(rtnl, ok ? message : NULL, e, "turn off IPv6 autoconfiguration on %s", name);
    if (r == -EAFNOSUPPORT || r == -EOPNOTSUPP) { /* no IPv6 in this kernel */
        if (e)
            error_clear(e);
        return 0;
    }
    return r;
}
