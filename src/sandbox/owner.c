/* SPDX-License-Identifier: MIT */

#include "sandbox/owner.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/inotify.h>

#include "base/fd.h"
#include "base/process.h"

struct Owner {
    Loop *loop;
    int pidfd;
    int inotify_fd;
    LoopSource *pidfd_source, *inotify_source, *defer;
    char *bundle;
    OwnerFn callback;
    void *userdata;
};

static bool bundle_exists(const Owner *o)
{
    return o->bundle[0] && (access(o->bundle, F_OK) >= 0 || errno != ENOENT);
}

static void on_inotify(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    Owner *o = userdata;

    while (read(fd, buffer, sizeof(buffer)) > 0)
        continue;
    if (bundle_exists(o))
        return;
    o->inotify_source = loop_source_free(source);
    o->callback(o, OWNER_LOST, o->userdata);
}

/* Watches the bundle's directory itself. Should that not be possible the sandbox is kept: losing a pod is
 * worse than keeping one. */
static void watch_bundle(Owner *o)
{
    o->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (o->inotify_fd >= 0 &&
        inotify_add_watch(o->inotify_fd, o->bundle, IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR) >= 0)
        (void)loop_add_io(o->loop, o->inotify_fd, EPOLLIN, on_inotify, o, &o->inotify_source);
}

static void shim_ended(Owner *o)
{
    watch_bundle(o);
    /* Looked at after the watch began, so that a removal between the two is not missed. The callback may free
     * the object. */
    if (bundle_exists(o))
        o->callback(o, OWNER_SHIM_ENDED, o->userdata);
    else
        o->callback(o, OWNER_LOST, o->userdata);
}

static void on_pidfd(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Owner *o = userdata;

    o->pidfd_source = loop_source_free(source);
    shim_ended(o);
}

static void on_defer(LoopSource *source, void *userdata)
{
    Owner *o = userdata;

    o->defer = loop_source_free(source);
    shim_ended(o);
}

int owner_new(Loop *loop, pid_t shim_pid, uint64_t start_time, const char *bundle, OwnerFn callback,
              void *userdata, Owner **ret, Error *e)
{
    Owner *o = calloc(1, sizeof(*o));
    int r;

    if (!o)
        return error_set_errno(e, -ENOMEM, "cannot watch shim %i", shim_pid);
    *o = (Owner){
        .loop = loop, .pidfd = -EBADF, .inotify_fd = -EBADF, .callback = callback, .userdata = userdata};
    o->bundle = strdup(bundle);
    r = o->bundle ? process_open(shim_pid, start_time, &o->pidfd) : -ENOMEM;
    if (r >= 0)
        r = loop_add_io(loop, o->pidfd, EPOLLIN, on_pidfd, o, &o->pidfd_source);
    else if (r == -ESRCH)
        r = loop_add_defer(loop, on_defer, o, &o->defer);
    if (r < 0) {
        owner_free(o);
        return error_set_errno(e, r, "cannot watch shim %i", shim_pid);
    }
    *ret = o;
    return 0;
}

Owner *owner_free(Owner *o)
{
    if (!o)
        return NULL;
    loop_source_free(o->pidfd_source);
    loop_source_free(o->inotify_source);
    loop_source_free(o->defer);
    fd_close(o->pidfd);
    fd_close(o->inotify_fd);
    free(o->bundle);
    free(o);
    return NULL;
}
