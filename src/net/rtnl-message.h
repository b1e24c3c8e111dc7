/* SPDX-License-Identifier: MIT */
#pragma once

/* Messages of route netlink: building requests, taking answers apart. By hand and not with libnl-3, whose
 * core makes a static program 410 KB larger (it brings in getaddrinfo() and its caches).
 *
 * Building can't fail as far as the caller sees: where memory is short the message is marked, all later calls
 * do nothing, and rtnl_call() returns -ENOMEM. That holds for a NULL message too. */

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

typedef struct RtnlMessage RtnlMessage;

/* A request with its fixed header, such as struct ifinfomsg. */
RtnlMessage *rtnl_message_new(uint16_t type, uint16_t flags, const void *header, size_t header_size);

/* A request that says what an answer of the kernel said, with another type. */
RtnlMessage *rtnl_message_from(const struct nlmsghdr *nlh, uint16_t type, uint16_t flags);

RtnlMessage *rtnl_message_free(RtnlMessage *message);
DEFINE_CLEANUP_FUNC(RtnlMessage *, rtnl_message_free)
#define _cleanup_rtnl_message_ _cleanup_(rtnl_message_freep)

void rtnl_put(RtnlMessage *message, uint16_t type, const void *data, size_t n);
void rtnl_put_u8(RtnlMessage *message, uint16_t type, uint8_t value);
void rtnl_put_u16(RtnlMessage *message, uint16_t type, uint16_t value);
void rtnl_put_u32(RtnlMessage *message, uint16_t type, uint32_t value);
void rtnl_put_string(RtnlMessage *message, uint16_t type, const char *value);

/* An attribute that holds attributes: what is put in between. */
size_t rtnl_nest_begin(RtnlMessage *message, uint16_t type);
void rtnl_nest_end(RtnlMessage *message, size_t nest);

/* The finished message, valid until it is changed or freed; NULL when memory was short. */
struct nlmsghdr *rtnl_message_data(RtnlMessage *message);

/* Sorts the attributes behind the fixed header into table[0] … table[max]: NULL where there is none. -EBADMSG
 * when the message is shorter than its header. The second form: those inside of an attribute. */
int rtnl_parse(const struct nlmsghdr *nlh, size_t header_size, const struct rtattr **table, size_t max);
void rtnl_parse_nested(const struct rtattr *attribute, const struct rtattr **table, size_t max);

static inline size_t rtnl_attr_size(const struct rtattr *attribute)
{
    return RTA_PAYLOAD(attribute);
}

static inline const void *rtnl_attr_data(const struct rtattr *attribute)
{
    return RTA_DATA(attribute);
}

/* 0 where the attribute is too short. */
uint32_t rtnl_attr_u32(const struct rtattr *attribute);
