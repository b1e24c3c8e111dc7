/* SPDX-License-Identifier: MIT */
#pragma once

/* The little of traffic control that the redirect needs: the clsact qdisc, and on its ingress filters of the
 * bpf classifier (classic programs) with or without a mirred action.
 *
 * Why bpf and not u32: a frame that no filter lets pass must be dropped, or it reaches the host's own stack
 * in the pod's namespace. u32 needs the action gact for that, which small kernels lack, while the bpf
 * classifier can drop by itself; it also tests what u32 can't express. It is in every distribution's kernel,
 * since the big CNI plugins need it. */

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "net/rtnl.h"

/* Makes the clsact qdisc; one of that kind, or of kind ingress, that exists is used. */
int tc_ensure_ingress(Rtnl *rtnl, unsigned index, const char *name, Error *e);

/* Installs or atomically replaces the one filter of that priority: frames for which `program` gives -1 leave
 * by the interface `target`, whatever comes after. */
int tc_redirect(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority,
                const struct sock_filter *program, size_t n, unsigned target, Error *e);

/* Installs the filter that drops, and counts, every frame that gets as far. */
int tc_drop_all(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e);

/* 1 when there were filters of that priority and they are gone, 0 when there were none. */
int tc_remove(Rtnl *rtnl, unsigned index, const char *name, uint16_t priority, Error *e);

/* Removes the qdisc if no filter is left on it. */
int tc_remove_ingress_if_empty(Rtnl *rtnl, unsigned index, const char *name, Error *e);

/* Frames dropped at ingress. */
int tc_get_ingress_drops(Rtnl *rtnl, unsigned index, uint64_t *ret, Error *e);
