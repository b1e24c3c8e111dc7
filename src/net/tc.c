/* SPDX-License-Identifier: MIT */

#include "net/tc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <string.h>

#define INGRESS_HANDLE TC_H_MAKE(TC_H_CLSACT, 0)
#define INGRESS_PARENT TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
#define EGRESS_PARENT TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)

enum { FILTER_HANDLE = 1 };

/* The kernel says ENOENT for a qdisc, classifier or action that it has not got. */
static int name_modules(Error *e, int r)
{
    if (r != -ENOENT || !e)
        return r;
    return error_set(
        e, -EOPNOTSUPP,
        "%s. The kernel must have CONFIG_NET_CLS_ACT, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF and "
        "CONFIG_NET_ACT_MIRRED (modules sch_ingress, cls_bpf, act_mirred)",
        error_message(e));
}

static RtnlMessage *tc_message(uint16_t type, uint16_t flags, unsigned index, uint32_t handle,
                               uint32_t parent, uint32_t info)
{
    struct tcmsg tcm = {.tcm_family = AF_UNSPEC,
                        .tcm_ifindex = (int)index,
                        .tcm_handle = handle,
                        .tcm_parent = parent,
                        .tcm_info = info};

    return rtnl_message_new(type, flags, &tcm, sizeof(tcm));
}

int tc_ensure_ingress(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    _cleanup_rtnl_message_ RtnlMessage *message =
        tc_message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, index, INGRESS_HANDLE, TC_H_CLSACT, 0);
    int r;

    rtnl_put_string(message, TCA_KIND, "clsact");
    r = rtnl_call(rtnl, message, e, "make the clsact qdisc of %s", name);
    if (r == -EEXIST) {
        if (e)
            error_clear(e);
        return 0;
    }
    return r < 0 ? name_modules(e, r) : 0;
}

static uint32_t filter_info(uint16_t priority)
{
    return TC_H_MAKE((uint32_t)priority << 16, htons(ETH_P_ALL));
}

/* Starts a bpf filter; gives the open attribute that the caller ends. */
static RtnlMessage *filter_message(unsigned index, uint16_t priority, const struct sock_filter *program,
                                   size_t n, size_t *ret_options)
{
    RtnlMessage *message =
        tc_message(RTM_NEWTFILTER, NLM_F_CREATE, index, FILTER_HANDLE, INGRESS_PARENT, filter_info(priority));

    rtnl_put_string(message, TCA_KIND, "bpf");
    *ret_options = rtnl_nest_begin(message, TCA_OPTIONS);
    rtnl_put_u16(message, TCA_BPF_OPS_LEN, (uint16_t)n);
    rtnl_put(message, TCA_BPF_OPS, program, n * sizeof(*program));
    return message;
}

static void put_mirred(RtnlMessage *message, unsigned target)
{
    struct tc_mirred parms = {.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = target};
    size_t actions, first, options;

    actions = rtnl_nest_begin(message, TCA_BPF_ACT);
    first = rtnl_nest_begin(message, 1);
    rtnl_put_string(message, TCA_ACT_KIND, "mirred");
    options = rtnl_nest_begin(message, TCA_ACT_OPTIONS);
    rtnl_put(message, TCA_MIRRED_PARMS, &parms, sizeof(parms));
    rtnl_nest_end(message, options);
    rtnl_nest_end(message, first);
    rtnl_nest_end(message, actions);
}

int tc_redirect(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority,
                const struct sock_filter *program, size_t n, unsigned target, Error *e)
{
    size_t options;
    _cleanup_rtnl_message_ RtnlMessage *message = filter_message(index, priority, program, n, &options);
    int r;

    put_mirred(message, target);
    rtnl_nest_end(message, options);
    r = rtnl_call(rtnl, message, e, "redirect what arrives on %s to interface %u", name, target);
    return r < 0 ? name_modules(e, r) : 0;
}

int tc_drop_all(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e)
{
    const struct sock_filter program[] = {BPF_STMT(BPF_RET | BPF_K, TC_ACT_SHOT)};
    size_t options;
    _cleanup_rtnl_message_ RtnlMessage *message = filter_message(index, priority, program, 1, &options);
    int r;

    /* "Direct action": the program's value is the verdict. */
    rtnl_put_u32(message, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
    rtnl_nest_end(message, options);
    r = rtnl_call(rtnl, message, e, "install the drop filter of %s", name);
    return r < 0 ? name_modules(e, r) : 0;
}

int tc_remove(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e)
{
    _cleanup_rtnl_message_ RtnlMessage *message =
        tc_message(RTM_DELTFILTER, 0, index, 0, INGRESS_PARENT, filter_info(priority));
    int r;

    r = rtnl_call(rtnl, message, e, "remove the redirect of %s", name);
    /* ENOENT: no such filter; EINVAL, EOPNOTSUPP: no such qdisc, or one without filters; ENODEV: gone. */
    if (r == -ENOENT || r == -EINVAL || r == -EOPNOTSUPP || r == -ENODEV) {
        if (e)
            error_clear(e);
        return 0;
    }
    return r < 0 ? r : 1;
}

static int count_filter(const struct nlmsghdr *nlh, void *userdata)
{
    (*(size_t *)userdata)++;
    return 0;
}

static void restart_count(void *userdata)
{
    *(size_t *)userdata = 0;
}

static int count_filters(Rtnl *rtnl, unsigned index, uint32_t parent, size_t *ret, Error *e)
{
    _cleanup_rtnl_message_ RtnlMessage *message = tc_message(RTM_GETTFILTER, 0, index, 0, parent, 0);

    return rtnl_dump(rtnl, message, RTM_NEWTFILTER, count_filter, restart_count, ret, e);
}

int tc_remove_ingress_if_empty(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    _cleanup_rtnl_message_ RtnlMessage *message = NULL;
    size_t n_in = 0, n_out = 0;
    int r;

    r = count_filters(rtnl, index, INGRESS_PARENT, &n_in, e);
    if (r >= 0)
        r = count_filters(rtnl, index, EGRESS_PARENT, &n_out, e);
    if (r < 0 || n_in + n_out > 0)
        return r < 0 ? r : 0;
    message = tc_message(RTM_DELQDISC, 0, index, INGRESS_HANDLE, TC_H_CLSACT, 0);
    r = rtnl_call(rtnl, message, e, "remove the clsact qdisc of %s", name);
    if (r == -ENOENT || r == -EINVAL || r == -ENODEV) {
        if (e)
            error_clear(e);
        return 0;
    }
    return r;
}

typedef struct Drops {
    unsigned index;
    bool found;
    uint64_t drops;
} Drops;

static int read_drops(const struct nlmsghdr *nlh, void *userdata)
{
    Drops *drops = userdata;
    const struct rtattr *tb[TCA_MAX + 1], *stats[TCA_STATS_MAX + 1];
    struct gnet_stats_queue queue = {0};
    const struct tcmsg *tcm;

    if (rtnl_parse(nlh, sizeof(*tcm), tb, TCA_MAX) < 0)
        return -EBADMSG;
    tcm = NLMSG_DATA(nlh);
    if ((unsigned)tcm->tcm_ifindex != drops->index || tcm->tcm_parent != TC_H_CLSACT || !tb[TCA_STATS2])
        return 0;
    rtnl_parse_nested(tb[TCA_STATS2], stats, TCA_STATS_MAX);
    if (!stats[TCA_STATS_QUEUE] || rtnl_attr_size(stats[TCA_STATS_QUEUE]) < sizeof(queue))
        return -EBADMSG;
    memcpy(&queue, rtnl_attr_data(stats[TCA_STATS_QUEUE]), sizeof(queue));
    drops->drops = queue.drops;
    drops->found = true;
    return 0;
}

int tc_get_ingress_drops(Rtnl *rtnl, unsigned index, uint64_t *ret, Error *e)
{
    _cleanup_rtnl_message_ RtnlMessage *message = tc_message(RTM_GETQDISC, 0, index, 0, 0, 0);
    Drops drops = {.index = index};
    int r;

    r = rtnl_dump(rtnl, message, RTM_NEWQDISC, read_drops, NULL, &drops, e);
    if (r < 0)
        return r;
    if (!drops.found)
        return error_set(e, -ENOENT, "interface %u has no clsact qdisc", index);
    *ret = drops.drops;
    return 0;
}
