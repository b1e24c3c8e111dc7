/* SPDX-License-Identifier: MIT */

/* How a container is taken apart: end its processes, let crun forget it, unmount and remove its files. Every
 * step copes with its work having been done before, so that what failed half-way can be repeated. */

#include <errno.h>
#include <string.h>

#include "agent/container-private.h"
#include "agent/crun.h"
#include "agent/names.h"
#include "agent/rootfs.h"
#include "agent/volumes.h"
#include "agent/worker.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/trace.h"

static void dismantle_end(Container *c, int number, const char *message)
{
    ContainerDoneFn done = TAKE_PTR(c->dismantled);

    done(number, message, c->dismantled_userdata);
}

static void on_files_removed(int number, const char *message, void *userdata)
{
    Container *c = userdata;

    TRACE("agent.delete.files-removed");
    if (number >= 0)
        trees_remove_container(container_context(c)->trees, c->id);
    dismantle_end(c, number, message);
}

/* In the worker. */
static int remove_files_job(void *userdata, Error *e)
{
    const Container *c = userdata;
    int r;

    r = volumes_remove(c->directory, e);
    if (r >= 0)
        r = rootfs_unmount(c->directory, e);
    if (r < 0)
        return r;
    r = fs_remove_tree(c->directory);
    return r < 0 ? error_set_errno(e, r, "cannot remove %s", c->directory) : 0;
}

static void remove_files(Container *c)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    r = cgroup_remove(c->cgroup);
    if (r < 0)
        log_error_errno(r, "container %s: cannot remove its cgroup", c->id);
    r = worker_run(container_context(c)->reaper, remove_files_job, on_files_removed, c, &e);
    if (r < 0)
        dismantle_end(c, r, error_message(&e));
}

static void on_crun_deleted(int number, const char *message, void *userdata)
{
    _cleanup_free_ char *state = NULL;
    Container *c = userdata;

    TRACE("agent.delete.crun-deleted");
    if (number < 0) {
        /* It only has its own notes to remove, which is done as well without it. */
        log_warning("container %s: %s", c->id, message);
        state = fs_join(AGENT_CRUN_DIR, c->id);
        if (state)
            (void)fs_remove_tree(state);
    }
    remove_files(c);
}

static int crun_delete(Container *c, Error *e)
{
    _cleanup_free_ char *log_path = fs_join(c->directory, "delete.log");

    if (!log_path)
        return error_set(e, -ENOMEM, "out of memory");
    return crun_run(container_context(c)->reaper,
                    &(const CrunCommand){.arguments = (const char *const[]){"delete", "--force", c->id, NULL},
                                         .log_path = log_path,
                                         .stdin_fd = -EBADF,
                                         .stdout_fd = -EBADF,
                                         .stderr_fd = -EBADF,
                                         .timeout_usec = CONTAINER_CRUN_TIMEOUT_SECS * USEC_PER_SEC},
                    on_crun_deleted, c, e);
}

static void processes_gone(Container *c)
{
    _cleanup_free_ char *state = fs_join(AGENT_CRUN_DIR, c->id);
    _cleanup_error_ Error e = ERROR_INIT;

    TRACE("agent.delete.processes-ended");
    c->waits_for_end = false;
    c->end_timer = loop_source_free(c->end_timer);
    c->cgroup_watch = cgroup_watch_free(c->cgroup_watch);
    container_execs_free(c);
    /* crun knows nothing of a container whose creation did not get that far. */
    if (!state || access(state, F_OK) < 0)
        remove_files(c);
    else if (crun_delete(c, &e) < 0)
        dismantle_end(c, e.number, error_message(&e));
}

static void on_end_timeout(LoopSource *source, void *userdata)
{
    _cleanup_free_ char *message = NULL;
    Container *c = userdata;

    c->waits_for_end = false;
    c->end_timer = loop_source_free(c->end_timer);
    message = string_printf("the processes of the container %s do not end within %i s", c->id,
                            CONTAINER_KILL_TIMEOUT_SECS);
    dismantle_end(c, -ETIMEDOUT, message ?: "the processes of the container do not end");
}

void container_dismantle_continue(Container *c)
{
    bool process_left = process_pid(c->process) > 0 && !process_exit(c->process);

    /* crun may be about to put a process there. */
    if (c->waits_for_end && !process_left && !container_execs_are_starting(c) && cgroup_is_populated(c->cgroup) <= 0)
        processes_gone(c);
}

void container_dismantle(Container *c, ContainerDoneFn done, void *userdata)
{
    int r;

    c->dismantled = done;
    c->dismantled_userdata = userdata;
    /* Watched before it is looked at, so that no change is missed. */
    r = container_watch_cgroup(c);
    if (r >= 0 || r == -ENOENT)
        r = cgroup_kill(c->cgroup);
    if (r >= 0)
        r = loop_add_timer(container_context(c)->loop, CONTAINER_KILL_TIMEOUT_SECS * USEC_PER_SEC,
                           on_end_timeout, c, &c->end_timer);
    if (r < 0) {
        dismantle_end(c, r, "cannot end the container's processes");
        return;
    }
    c->waits_for_end = true;
    container_dismantle_continue(c);
}

static void on_deleted(int number, const char *message, void *userdata)
{
    Container *c = userdata;
    const ProcessExit *exit = process_exit(c->process);
    ContainerRemains remains = {.pid = process_pid(c->process), .exit = exit ? *exit : (ProcessExit){0}};

    if (number < 0) {
        log_error("container %s: cannot be deleted: %s", c->id, message);
        (void)container_move(c, CONTAINER_STOPPED);
        completions_deleted(&c->deletes, number == -ETIMEDOUT ? number : -EIO, message, NULL);
        return;
    }
    completions_deleted(&c->deletes, 0, NULL, &remains);
    container_free(c);
}

void container_delete_begin(Container *c)
{
    (void)container_move(c, CONTAINER_DELETING);
    TRACE("agent.delete.begun");
    container_dismantle(c, on_deleted, c);
}

int container_delete(Container *c, ContainerDeletedFn done, void *userdata, Error *e)
{
    int r;

    if (c->state == CONTAINER_RUNNING || c->state == CONTAINER_STARTING)
        return error_set(e, -EBUSY, "the container %s cannot be deleted: its process runs", c->id);
    r = completion_add(&c->deletes, NULL, done, userdata);
    if (r < 0)
        return error_set(e, r, "out of memory");
    if (c->state == CONTAINER_CREATING)
        container_creation_abort(c);
    else if (c->state != CONTAINER_DELETING)
        container_delete_begin(c);
    return 0;
}
