/* SPDX-License-Identifier: MIT */

#include "net/rtnl-message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { SIZE_MIN = 256, SIZE_MAX_MESSAGE = 256 * 1024 };

struct RtnlMessage {
    char *data;
    size_t n, allocated;
    bool failed;
};

/* Zeroed room at the end, padded as netlink wants it; NULL after a failure. */
static void *reserve(RtnlMessage *message, size_t n)
{
    size_t padded = NLMSG_ALIGN(n);
    void *room;

    if (!message || message->failed)
        return NULL;
    if (message->n + padded > message->allocated) {
        size_t want = message->allocated ? message->allocated : SIZE_MIN;
        char *p;

        while (want < message->n + padded)
            want *= 2;
        p = want <= SIZE_MAX_MESSAGE ? realloc(message->data, want) : NULL;
        if (!p) {
            message->failed = true;
            return NULL;
        }
        message->data = p;
        message->allocated = want;
    }
    room = message->data + message->n;
    memset(room, 0, padded);
    message->n += padded;
    return room;
}

RtnlMessage *rtnl_message_new(uint16_t type, uint16_t flags, const void *header, size_t header_size)
{
    RtnlMessage *message = calloc(1, sizeof(*message));
    struct nlmsghdr nlh = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    void *room;

    if ((room = reserve(message, NLMSG_HDRLEN)))
        memcpy(room, &nlh, sizeof(nlh));
    if ((room = reserve(message, header_size)))
        memcpy(room, header, header_size);
    return message;
}

RtnlMessage *rtnl_message_from(const struct nlmsghdr *nlh, uint16_t type, uint16_t flags)
{
    return rtnl_message_new(type, flags, NLMSG_DATA(nlh), nlh->nlmsg_len - NLMSG_HDRLEN);
}

RtnlMessage *rtnl_message_free(RtnlMessage *message)
{
    if (message)
        free(message->data);
    free(message);
    return NULL;
}

void rtnl_put(RtnlMessage *message, uint16_t type, const void *data, size_t n)
{
    struct rtattr attribute = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(n)};
    char *room;

    if (message && RTA_LENGTH(n) > UINT16_MAX)
        message->failed = true;
    room = reserve(message, RTA_LENGTH(n));
    if (!room)
        return;
    memcpy(room, &attribute, sizeof(attribute));
    if (n > 0)
        memcpy(room + RTA_LENGTH(0), data, n);
}

void rtnl_put_u8(RtnlMessage *message, uint16_t type, uint8_t value)
{
    rtnl_put(message, type, &value, sizeof(value));
}

void rtnl_put_u16(RtnlMessage *message, uint16_t type, uint16_t value)
{
    rtnl_put(message, type, &value, sizeof(value));
}

void rtnl_put_u32(RtnlMessage *message, uint16_t type, uint32_t value)
{
    rtnl_put(message, type, &value, sizeof(value));
}

void rtnl_put_string(RtnlMessage *message, uint16_t type, const char *value)
{
    rtnl_put(message, type, value, strlen(value) + 1);
}

size_t rtnl_nest_begin(RtnlMessage *message, uint16_t type)
{
    size_t at = message ? message->n : 0;

    rtnl_put(message, type | NLA_F_NESTED, NULL, 0);
    return at;
}

void rtnl_nest_end(RtnlMessage *message, size_t nest)
{
    struct rtattr attribute;

    if (!message || message->failed)
        return;
    if (message->n - nest > UINT16_MAX) {
        message->failed = true;
        return;
    }
    memcpy(&attribute, message->data + nest, sizeof(attribute));
    attribute.rta_len = (uint16_t)(message->n - nest);
    memcpy(message->data + nest, &attribute, sizeof(attribute));
}

struct nlmsghdr *rtnl_message_data(RtnlMessage *message)
{
    struct nlmsghdr *nlh;

    if (!message || message->failed)
        return NULL;
    nlh = (struct nlmsghdr *)message->data;
    nlh->nlmsg_len = (uint32_t)message->n;
    return nlh;
}

static void parse(const struct rtattr *attribute, size_t n, const struct rtattr **table, size_t max)
{
    memset(table, 0, (max + 1) * sizeof(*table));
    while (n >= sizeof(*attribute) && attribute->rta_len >= sizeof(*attribute) && attribute->rta_len <= n) {
        size_t step = RTA_ALIGN(attribute->rta_len), type = attribute->rta_type & NLA_TYPE_MASK;

        if (type <= max)
            table[type] = attribute;
        if (step >= n)
            break;
        n -= step;
        attribute = (const struct rtattr *)((const char *)attribute + step);
    }
}

int rtnl_parse(const struct nlmsghdr *nlh, size_t header_size, const struct rtattr **table, size_t max)
{
    size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_size);

    if (nlh->nlmsg_len < NLMSG_HDRLEN + header_size)
        return -EBADMSG;
    parse((const struct rtattr *)((const char *)nlh + skip),
          nlh->nlmsg_len > skip ? nlh->nlmsg_len - skip : 0, table, max);
    return 0;
}

void rtnl_parse_nested(const struct rtattr *attribute, const struct rtattr **table, size_t max)
{
    parse(rtnl_attr_data(attribute), rtnl_attr_size(attribute), table, max);
}

uint32_t rtnl_attr_u32(const struct rtattr *attribute)
{
    uint32_t value = 0;

    if (rtnl_attr_size(attribute) >= sizeof(value))
        memcpy(&value, rtnl_attr_data(attribute), sizeof(value));
    return value;
}
