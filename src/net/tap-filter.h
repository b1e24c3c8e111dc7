/* SPDX-License-Identifier: MIT */
#pragma once

/* The order of the filters that tap.c and redirect.c install; the kernel asks the lowest priority first. */

enum {
    TAP_PRIORITY_PASS = 1, /* frames of the pod go out by the CNI interface */
    TAP_PRIORITY_DROP = 2, /* all others are dropped */

    /* On the CNI interface, which may have filters of others: a number by which ours are recognized. */
    CNI_PRIORITY_REDIRECT = 0x0c1d,
};
