/* SPDX-License-Identifier: MIT */

#include "net/tc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
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
        "%s. The kernel needs CONFIG_NET_CLS_ACT, NET_SCH_INGRESS, NET_CLS_BPF and "
        "NET_ACT_MIRRED (modules sch_ingress, cls_bpf, act_mirred)",
        error_message(e));
}

static struct nl_msg *tc_message(uint16_t type, uint16_t flags, unsigned index, uint32_t handle,
                                 uint32_t parent, uint32_t info, size_t room)
{
    struct tcmsg tcm = {.tcm_family = AF_UNSPEC,
                        .tcm_ifindex = (int)index,
                        .tcm_handle = handle,
                        .tcm_parent = parent,
                        .tcm_info = info};

    return rtnl_message_new(type, flags, &tcm, sizeof(tcm), room);
}

int tc_ensure_ingress(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    _cleanup_nlmsg_ struct nl_msg *message =
        tc_message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, index, INGRESS_HANDLE, TC_H_CLSACT, 0, 0);
    bool ok = message && nla_put_string(message, TCA_KIND, "clsact") >= 0;
    int r;

    r = rtnl_call(rtnl, ok ? message : NULL, e, "make the clsact qdisc of %s", name);
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

/* Starts a bpf filter; gives the open attribute that the caller ends. NULL when memory is short. */
static struct nl_msg *filter_message(unsigned index, uint16_t priority, const struct sock_filter *program,
                                     size_t n, struct nlattr **ret_options)
{
    size_t size = n * sizeof(*program);
    _cleanup_nlmsg_ struct nl_msg *message = tc_message(RTM_NEWTFILTER, NLM_F_CREATE, index, FILTER_HANDLE,
                                                        INGRESS_PARENT, filter_info(priority), size);

    if (!message || nla_put_string(message, TCA_KIND, "bpf") < 0 ||
        !(*ret_options = nla_nest_start(message, TCA_OPTIONS)) ||
        nla_put_u16(message, TCA_BPF_OPS_LEN, (uint16_t)n) < 0 ||
        nla_put(message, TCA_BPF_OPS, (int)size, program) < 0)
        return NULL;
    return TAKE_PTR(message);
}

static bool put_mirred(struct nl_msg *message, unsigned target)
{
    const struct tc_mirred parms = {.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = target};
    struct nlattr *actions, *first, *options;

    return (actions = nla_nest_start(message, TCA_BPF_ACT)) && (first = nla_nest_start(message, 1)) &&
           nla_put_string(message, TCA_ACT_KIND, "mirred") >= 0 &&
           (options = nla_nest_start(message, TCA_ACT_OPTIONS)) &&
           nla_put(message, TCA_MIRRED_PARMS, sizeof(parms), &parms) >= 0 &&
           nla_nest_end(message, options) >= 0 && nla_nest_end(message, first) >= 0 &&
           nla_nest_end(message, actions) >= 0;
}

int tc_redirect(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority,
                const struct sock_filter *program, size_t n, unsigned target, Error *e)
{
    struct nlattr *options;
    _cleanup_nlmsg_ struct nl_msg *message = filter_message(index, priority, program, n, &options);
    bool ok = message && put_mirred(message, target) && nla_nest_end(message, options) >= 0;
    int r;

    r = rtnl_call(rtnl, ok ? message : NULL, e, "redirect what arrives on %s to interface %u", name, target);
    return r < 0 ? name_modules(e, r) : 0;
}

int tc_drop_all(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e)
{
    const struct sock_filter program[] = {BPF_STMT(BPF_RET | BPF_K, TC_ACT_SHOT)};
    struct nlattr *options;
    _cleanup_nlmsg_ struct nl_msg *message = filter_message(index, priority, program, 1, &options);
    /* "Direct action": the program's value is the verdict. */
    bool ok = message && nla_put_u32(message, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT) >= 0 &&
              nla_nest_end(message, options) >= 0;
    int r;

    r = rtnl_call(rtnl, ok ? message : NULL, e, "install the drop filter of %s", name);
    return r < 0 ? name_modules(e, r) : 0;
}

int tc_remove(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e)
{
    _cleanup_nlmsg_ struct nl_msg *message =
        tc_message(RTM_DELTFILTER, 0, index, 0, INGRESS_PARENT, filter_info(priority), 0);
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

static int count_filter(struct nlmsghdr *nlh, void *userdata)
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
    _cleanup_nlmsg_ struct nl_msg *message = tc_message(RTM_GETTFILTER, 0, index, 0, parent, 0, 0);

    return rtnl_dump(rtnl, message, RTM_NEWTFILTER, count_filter, restart_count, ret, e);
}

int tc_remove_ingress_if_empty(Rtnl *rtnl, unsigned index, const char *name, Error *e)
{
    _cleanup_nlmsg_ struct nl_msg *message = NULL;
    size_t n_in = 0, n_out = 0;
    int r;

    r = count_filters(rtnl, index, INGRESS_PARENT, &n_in, e);
    if (r >= 0)
        r = count_filters(rtnl, index, EGRESS_PARENT, &n_out, e);
    if (r < 0 || n_in + n_out > 0)
        return r < 0 ? r : 0;
    message = tc_message(RTM_DELQDISC, 0, index, INGRESS_HANDLE, TC_H_CLSACT, 0, 0);
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

static int read_drops(struct nlmsghdr *nlh, void *userdata)
{
    static const struct nla_policy stats_policy[TCA_STATS_MAX + 1] = {
        [TCA_STATS_QUEUE] = {.minlen = sizeof(struct gnet_stats_queue)},
    };
    Drops *drops = userdata;
    struct nlattr *tb[TCA_MAX + 1], *stats[TCA_STATS_MAX + 1];
    struct gnet_stats_queue queue;
    const struct tcmsg *tcm = nlmsg_data(nlh);

    if (nlmsg_parse(nlh, sizeof(*tcm), tb, TCA_MAX, NULL) < 0)
        return -EBADMSG;
    if ((unsigned)tcm->tcm_ifindex != drops->index || tcm->tcm_parent != TC_H_CLSACT || !tb[TCA_STATS2])
        return 0;
    if (nla_parse_nested(stats, TCA_STATS_MAX, tb[TCA_STATS2], stats_policy) < 0 || !stats[TCA_STATS_QUEUE])
        return -EBADMSG;
    memcpy(&queue, nla_data(stats[TCA_STATS_QUEUE]), sizeof(queue));
    drops->drops = queue.drops;
    drops->found = true;
    return 0;
}

int tc_get_ingress_drops(Rtnl *rtnl, unsigned index, uint64_t *ret, Error *e)
{
    _cleanup_nlmsg_ struct nl_msg *message = tc_message(RTM_GETQDISC, 0, index, 0, 0, 0, 0);
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
