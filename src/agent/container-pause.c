/* SPDX-License-Identifier: MIT */

/* Holding a container's processes (the cgroup freezer) and letting them go on. */

#include <errno.h>

#include "agent/container-private.h"
#include "base/log.h"

static bool is_reached(const Container *c)
{
    return cgroup_is_frozen(c->cgroup) == c->paused;
}

static void pause_end(Container *c, int number, const char *message)
{
    c->pause_timer = loop_source_free(c->pause_timer);
    completions_done(&c->pauses, number, message);
}

/* A pause that failed must leave the container as it was. */
static void undo(Container *c)
{
    if (!c->paused)
        return;
    c->paused = false;
    if (cgroup_freeze(c->cgroup, false) < 0)
        log_error("the container %s cannot be let go: %m", c->id);
}

static void on_timeout(LoopSource *source, void *userdata)
{
    Container *c = userdata;

    undo(c);
    pause_end(c, -ETIMEDOUT, "the container's processes cannot be held or let go in time");
}

void container_pause_continue(Container *c)
{
    if (!c->pauses)
        return;
    if (process_exit(c->process))
        pause_end(c, -ESRCH, "the container's process has ended");
    else if (is_reached(c))
        pause_end(c, 0, NULL);
}

int container_pause(Container *c, bool paused, ContainerDoneFn done, void *userdata, Error *e)
{
    int r;

    if (c->state != CONTAINER_RUNNING)
        return error_set(e, -EBUSY, "the container %s does not run", c->id);
    if (c->pauses && c->paused != paused)
        return error_set(e, -EBUSY, "the container %s is being %s", c->id, c->paused ? "paused" : "resumed");
    r = cgroup_freeze(c->cgroup, paused);
    if (r < 0)
        return error_set_errno(e, -EIO, "cannot %s the container %s", paused ? "pause" : "resume", c->id);
    c->paused = paused;
    if (is_reached(c)) {
        done(0, NULL, userdata);
        return 0;
    }
    if (!c->pause_timer)
        r = loop_add_timer(container_context(c)->loop, CONTAINER_PAUSE_TIMEOUT_SECS * USEC_PER_SEC, on_timeout, c,
                           &c->pause_timer);
    if (r >= 0)
        r = completion_add(&c->pauses, done, NULL, userdata);
    if (r < 0) {
        undo(c);
        return error_set(e, r, "out of memory");
    }
    return 0;
}
