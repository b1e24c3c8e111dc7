/* SPDX-License-Identifier: MIT */

#include "net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include "net/link.h"

int netns_enter(const char *path, Error *e)
{
    /* O_NONBLOCK: `path` comes from a spec and might be a FIFO. */
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int type;

    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open network namespace %s", path);
    type = ioctl(fd, NS_GET_NSTYPE);
    if (type != CLONE_NEWNET)
        return error_set(e, -EINVAL, "%s is not a network namespace", path);
    if (setns(fd, CLONE_NEWNET) < 0)
        return error_set_errno(e, -errno, "cannot enter network namespace %s", path);
    return 0;
}

int netns_new(Error *e)
{
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    int r;

    if (unshare(CLONE_NEWNET) < 0)
        return error_set_errno(e, -errno, "cannot make a network namespace");
    r = rtnl_new(&rtnl, e);
    if (r < 0)
        return r;
    return link_set_up(rtnl, 1 /* lo, always */, "lo", true, e);
}
