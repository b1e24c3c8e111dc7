/* SPDX-License-Identifier: MIT */

#include "net/redirect.h"

#include <errno.h>
#include <linux/if_arp.h>

#include "net/link.h"
#include "net/source-filter.h"
#include "net/tap-filter.h"
#include "net/tap.h"
#include "net/tc.h"

/* What arrives on the CNI interface, all of it, leaves by the TAP. */
static int redirect_inwards(Rtnl *rtnl, const NetInterface *interface, unsigned tap_index, Error *e)
{
    const struct sock_filter everything[] = {BPF_STMT(BPF_RET | BPF_K, (uint32_t)-1)};
    int r;

    r = tc_ensure_ingress(rtnl, interface->index, interface->name, e);
    if (r < 0)
        return r;
    return tc_redirect(rtnl, interface->index, interface->name, CNI_PRIORITY_REDIRECT, everything, 1,
                       tap_index, e);
}

/* What arrives on the TAP and passes the source filter leaves by the CNI interface. */
static int redirect_outwards(Rtnl *rtnl, const NetInterface *interface, const char *tap, unsigned tap_index,
                             Error *e)
{
    _cleanup_free_ struct sock_filter *program = NULL;
    size_t n;
    int r;

    r = source_filter_build(interface, &program, &n);
    if (r < 0)
        return error_set_errno(e, r, "cannot build the source filter of %s with %zu addresses",
                               interface->name, interface->n_addresses);
    r = tc_ensure_ingress(rtnl, tap_index, tap, e);
    if (r >= 0)
        r = tc_drop_all(rtnl, tap_index, tap, TAP_PRIORITY_DROP, e);
    if (r >= 0)
        r = tc_redirect(rtnl, tap_index, tap, TAP_PRIORITY_PASS, program, n, interface->index, e);
    return r;
}

int redirect_install(Rtnl *rtnl, const NetInterface *interface, unsigned tap_index, Error *e)
{
    _cleanup_link_list_ LinkList links = {0};
    const Link *tap;
    int r;

    r = link_list_read(rtnl, &links, e);
    if (r < 0)
        return r;
    tap = link_list_find_index(&links, tap_index);
    if (!tap || !tap_name_is_ours(tap->name))
        return error_set(e, -ENODEV, "cannot redirect %s: interface %u is not a TAP of ours", interface->name,
                         tap_index);
    r = 0;
    if (interface->mtu > 0 && interface->mtu != tap->mtu)
        r = link_set_mtu(rtnl, tap_index, tap->name, interface->mtu, e);
    if (r >= 0)
        r = redirect_outwards(rtnl, interface, tap->name, tap_index, e);
    if (r >= 0)
        r = redirect_inwards(rtnl, interface, tap_index, e);
    if (r < 0) {
        if (e)
            error_prefix(e, "cannot connect the VM to %s", interface->name);
        (void)tc_remove(rtnl, interface->index, interface->name, CNI_PRIORITY_REDIRECT, NULL);
        (void)tc_remove(rtnl, tap_index, tap->name, TAP_PRIORITY_PASS, NULL);
    }
    return r;
}

int redirect_remove_all(Rtnl *rtnl, Error *e)
{
    _cleanup_link_list_ LinkList links = {0};
    int r, result = 0;

    r = link_list_read(rtnl, &links, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < links.n; i++) {
        const Link *link = &links.links[i];
        bool is_tap = tap_name_is_ours(link->name);

        if (link->type != ARPHRD_ETHER)
            continue;
        /* One that fails does not keep the others; the first error is the one that is told. A TAP keeps its
         * filter that drops everything. */
        r = tc_remove(rtnl, link->index, link->name, is_tap ? TAP_PRIORITY_PASS : CNI_PRIORITY_REDIRECT,
                      result < 0 ? NULL : e);
        if (r > 0 && !is_tap)
            r = tc_remove_ingress_if_empty(rtnl, link->index, link->name, result < 0 ? NULL : e);
        if (r < 0 && result == 0)
            result = r;
    }
    return result;
}

int redirect_get_dropped(Rtnl *rtnl, unsigned tap_index, uint64_t *ret)
{
    return tc_get_ingress_drops(rtnl, tap_index, ret, NULL);
}
