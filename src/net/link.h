/* SPDX-License-Identifier: MIT */
#pragma once

/* Network interfaces: listing them and changing their properties. */

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "net/net.h"
#include "net/rtnl.h"

typedef struct Link {
    unsigned index;
    unsigned short type; /* ARPHRD_… */
    unsigned flags;      /* IFF_… */
    char name[NET_NAME_SIZE];
    uint8_t mac[NET_MAC_SIZE];           /* zero where the interface has none */
    uint8_t permanent_mac[NET_MAC_SIZE]; /* zero where it has none */
    uint32_t mtu;
} Link;

typedef struct LinkList {
    Link *links;
    size_t n;
} LinkList;

void link_list_clear(LinkList *list);
#define _cleanup_link_list_ _cleanup_(link_list_clear)

/* All interfaces of the namespace, by index. */
int link_list_read(Rtnl *rtnl, LinkList *ret, Error *e);

/* NULL if there is none. */
const Link *link_list_find_index(const LinkList *list, unsigned index);

/* In all of these `name` serves the error message only. */
int link_set_up(Rtnl *rtnl, unsigned index, const char *name, bool up, Error *e);
int link_set_mtu(Rtnl *rtnl, unsigned index, const char *name, uint32_t mtu, Error *e);
int link_set_mac(Rtnl *rtnl, unsigned index, const char *name, const uint8_t mac[static NET_MAC_SIZE],
                 Error *e);
int link_rename(Rtnl *rtnl, unsigned index, const char *name, const char *new_name, Error *e);

/* The kernel shall not make up an IPv6 link-local address (and, with it, duplicate address detection and
 * router solicitations). A kernel without IPv6 is fine. */
int link_set_no_ipv6_autoconf(Rtnl *rtnl, unsigned index, const char *name, Error *e);
