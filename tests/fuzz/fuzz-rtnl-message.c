/* SPDX-License-Identifier: MIT */

/* Messages of route netlink: attributes of an answer, also nested ones, lie within it; what is built is read
 * back. The first byte says which. */

#include <errno.h>

#include "fuzz.h"
#include "net/rtnl-message.h"

enum { MAX = 60 };

/* Every byte of each attribute is looked at, so that the sanitizer sees one that is not there. */
static void check_table(const struct rtattr *const *table, const uint8_t *begin, const uint8_t *end,
                        unsigned depth)
{
    static volatile uint8_t sum;

    for (size_t type = 0; type <= MAX; type++) {
        const struct rtattr *a = table[type], *nested[MAX + 1];
        const uint8_t *at = (const uint8_t *)a;

        if (!a)
            continue;
        REQUIRE((a->rta_type & NLA_TYPE_MASK) == type);
        REQUIRE(at >= begin && at + sizeof(*a) + rtnl_attr_size(a) <= end);
        for (size_t i = 0; i < rtnl_attr_size(a); i++)
            sum = (uint8_t)(sum + ((const uint8_t *)rtnl_attr_data(a))[i]);
        (void)rtnl_attr_u32(a);
        if (depth > 0) {
            rtnl_parse_nested(a, nested, MAX);
            check_table(nested, rtnl_attr_data(a), (const uint8_t *)rtnl_attr_data(a) + rtnl_attr_size(a),
                        depth - 1);
        }
    }
}

static void try_parse(Input in)
{
    size_t header_size = take_u8(&in) % 33, n = NLMSG_HDRLEN + in.n;
    /* As long as the message and no byte more. */
    _cleanup_free_ struct nlmsghdr *nlh = malloc(n);
    const struct rtattr *table[MAX + 1];
    int r;

    REQUIRE(nlh);
    *nlh = (struct nlmsghdr){.nlmsg_len = (uint32_t)n};
    if (in.n > 0)
        memcpy(nlh + 1, in.bytes, in.n);
    r = rtnl_parse(nlh, header_size, table, MAX);
    REQUIRE(r == (in.n < header_size ? -EBADMSG : 0));
    if (r == 0)
        check_table(table, (const uint8_t *)nlh, (const uint8_t *)nlh + n, 3);
}

static void try_build(Input in)
{
    uint32_t header = 0x11223344;
    _cleanup_rtnl_message_ RtnlMessage *m = rtnl_message_new(16, NLM_F_ACK, &header, sizeof(header));
    const struct rtattr *table[MAX + 1];
    size_t nest[4], depth = 0, put[MAX + 1] = {0};
    bool seen[MAX + 1] = {0};
    struct nlmsghdr *nlh;

    while (in.n > 0) {
        uint8_t what = take_u8(&in), type = take_u8(&in) % (MAX + 1);
        Input part = take(&in, what & 1 ? take_u16(&in) : take_u8(&in) % 16);

        if (what % 8 == 7 && depth < 4) {
            if (depth == 0)
                seen[type] = false; /* of an unknown length */
            nest[depth++] = rtnl_nest_begin(m, type);
        } else if (what % 8 == 6 && depth > 0) {
            rtnl_nest_end(m, nest[--depth]);
        } else {
            rtnl_put(m, type, part.bytes, part.n);
            if (depth == 0) {
                seen[type] = true;
                put[type] = part.n;
            }
        }
    }
    while (depth > 0)
        rtnl_nest_end(m, nest[--depth]);
    nlh = rtnl_message_data(m);
    if (!nlh)
        return; /* it would be too long */
    REQUIRE(nlh->nlmsg_type == 16 && nlh->nlmsg_flags == (NLM_F_REQUEST | NLM_F_ACK));
    REQUIRE(memcmp(NLMSG_DATA(nlh), &header, sizeof(header)) == 0);
    REQUIRE(rtnl_parse(nlh, sizeof(header), table, MAX) == 0);
    check_table(table, (const uint8_t *)nlh, (const uint8_t *)nlh + nlh->nlmsg_len, 4);
    for (size_t i = 0; i <= MAX; i++)
        REQUIRE(!seen[i] || (table[i] && rtnl_attr_size(table[i]) == put[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};

    if (take_u8(&in) % 2)
        try_build(in);
    else
        try_parse(in);
    return 0;
}
