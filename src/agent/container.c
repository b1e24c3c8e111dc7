/* SPDX-License-Identifier: MIT */

#include "agent/container.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "agent/container-private.h"
#include "agent/crun.h"
#include "agent/names.h"
#include "base/fs.h"
#include "base/log.h"

struct Containers {
    ContainersContext context;
    Container *list;
    size_t n;
};

int containers_new(const ContainersContext *context, Containers **ret)
{
    Containers *containers = calloc(1, sizeof(*containers));

    if (!containers)
        return -ENOMEM;
    containers->context = *context;
    *ret = containers;
    return 0;
}

Containers *containers_free(Containers *containers)
{
    if (!containers)
        return NULL;
    while (containers->list)
        container_free(containers->list);
    free(containers);
    return NULL;
}

Container *containers_find(Containers *containers, const char *id)
{
    for (Container *c = containers->list; c; c = c->next)
        if (strcmp(c->id, id) == 0)
            return c;
    return NULL;
}

Container *containers_next(Containers *containers, Container *c)
{
    return c ? c->next : containers->list;
}

size_t containers_count(const Containers *containers)
{
    return containers->n;
}

const ContainersContext *container_context(const Container *c)
{
    return &c->registry->context;
}

const char *container_id(const Container *c)
{
    return c->id;
}

ContainerState container_state(const Container *c)
{
    return c->state;
}

Process *container_process(Container *c)
{
    return c->process;
}

const char *container_cgroup(const Container *c)
{
    return c->cgroup;
}

static const char *state_name(ContainerState state)
{
    static const char *const names[] = {"creating", "created", "starting", "running", "stopped", "deleting"};

    return names[state];
}

const char *container_status(const Container *c)
{
    switch (c->state) {
    case CONTAINER_CREATING:
        return NULL;
    case CONTAINER_CREATED:
    case CONTAINER_STARTING:
        return "created";
    case CONTAINER_RUNNING:
        return c->paused ? "paused" : "running";
    case CONTAINER_STOPPED:
    case CONTAINER_DELETING:
        break;
    }
    return "stopped";
}

bool container_move_is_allowed(ContainerState from, ContainerState to)
{
    static const unsigned allowed[] = {
        /* A creation that fails and cannot be cleaned up leaves a stopped container, to be deleted. */
        [CONTAINER_CREATING] = 1U << CONTAINER_CREATED | 1U << CONTAINER_STOPPED,
        [CONTAINER_CREATED] = 1U << CONTAINER_STARTING | 1U << CONTAINER_STOPPED | 1U << CONTAINER_DELETING,
        [CONTAINER_STARTING] = 1U << CONTAINER_RUNNING | 1U << CONTAINER_CREATED | 1U << CONTAINER_STOPPED,
        [CONTAINER_RUNNING] = 1U << CONTAINER_STOPPED,
        [CONTAINER_STOPPED] = 1U << CONTAINER_DELETING,
        [CONTAINER_DELETING] = 1U << CONTAINER_STOPPED,
    };

    return (allowed[from] >> to & 1U) != 0;
}

int container_move(Container *c, ContainerState to)
{
    if (!container_move_is_allowed(c->state, to)) {
        log_error("container %s: refusing to go from %s to %s", c->id, state_name(c->state), state_name(to));
        return -EBUSY;
    }
    log_debug("container %s: %s", c->id, state_name(to));
    c->state = to;
    return 0;
}

int container_new(Containers *containers, const char *id, Container **ret, Error *e)
{
    Container *c;
    int r;

    if (!name_is_valid(id))
        return error_set(e, -EINVAL, "not a container id: \"%.140s\"", id);
    if (containers_find(containers, id))
        return error_set(e, -EEXIST, "there is a container %s already", id);
    if (containers->n >= AGENT_CONTAINERS_MAX)
        return error_set(e, -ENOSPC, "there are %i containers in the pod already", AGENT_CONTAINERS_MAX);
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(e, -ENOMEM, "out of memory");
    c->registry = containers;
    c->next = containers->list;
    containers->list = c;
    containers->n++;
    c->id = strdup(id);
    c->directory = fs_join(AGENT_CONTAINERS_DIR, id);
    c->cgroup = cgroup_directory(id);
    r = process_new(containers->context.loop, &c->process);
    if (!c->id || !c->directory || !c->cgroup || r < 0) {
        container_free(c);
        return error_set(e, -ENOMEM, "out of memory");
    }
    *ret = c;
    return 0;
}

Container *container_free(Container *c)
{
    if (!c)
        return NULL;
    for (Container **p = &c->registry->list; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            c->registry->n--;
            break;
        }
    if (c->process && process_pid(c->process) > 0 && !process_exit(c->process))
        reaper_forget(c->registry->context.reaper, process_pid(c->process));
    container_execs_free(c);
    cgroup_watch_free(c->cgroup_watch);
    loop_source_free(c->end_timer);
    loop_source_free(c->pause_timer);
    process_free(c->process);
    free(c->id);
    free(c->directory);
    free(c->cgroup);
    free(c);
    return NULL;
}

int completion_add(Completion **list, ContainerDoneFn done, ContainerDeletedFn deleted, void *userdata)
{
    Completion *completion = malloc(sizeof(*completion));

    if (!completion)
        return -ENOMEM;
    *completion = (Completion){.done = done, .deleted = deleted, .userdata = userdata, .next = *list};
    *list = completion;
    return 0;
}

void completions_done(Completion **list, int number, const char *message)
{
    while (*list) {
        _cleanup_free_ Completion *completion = *list;

        *list = completion->next;
        completion->done(number, message, completion->userdata);
    }
}

void completions_deleted(Completion **list, int number, const char *message, const ContainerRemains *remains)
{
    while (*list) {
        _cleanup_free_ Completion *completion = *list;

        *list = completion->next;
        completion->deleted(number, message, remains, completion->userdata);
    }
}

/* With the cgroup empty, nobody of the container can write any more. */
static void finish_output(Container *c)
{
    if (c->output_finished || !process_exit(c->process) || cgroup_is_populated(c->cgroup) != 0)
        return;
    c->output_finished = true;
    process_finish_output(c->process);
}

static void on_cgroup_event(LoopSource *source, void *userdata)
{
    Container *c = userdata;

    finish_output(c);
    container_pause_continue(c);
    container_dismantle_continue(c);
}

int container_watch_cgroup(Container *c)
{
    if (c->cgroup_watch)
        return 0;
    return cgroup_watch_new(container_context(c)->loop, c->cgroup, on_cgroup_event, c, &c->cgroup_watch);
}

void container_process_ended(pid_t pid, int status, uint64_t nsec, void *userdata)
{
    Container *c = userdata;
    bool oom = cgroup_oom_kills(c->cgroup) > 0;
    int r;

    /* What it started must not outlive it, also where it was not the first of its process namespace. */
    r = cgroup_kill(c->cgroup);
    if (r < 0)
        log_error_errno(r, "container %s: cannot end the processes that are left", c->id);
    if (c->state == CONTAINER_CREATED || c->state == CONTAINER_RUNNING)
        (void)container_move(c, CONTAINER_STOPPED);
    process_ended(c->process, status, nsec, oom);
    log_info("container %s: its process ended with %u%s", c->id, process_exit_status(status),
             oom ? ", out of memory" : "");
    finish_output(c);
    container_pause_continue(c);
    container_dismantle_continue(c);
}

static void on_started(int number, const char *message, void *userdata)
{
    Container *c = userdata;

    if (number < 0) {
        log_error("container %s: %s", c->id, message);
        (void)container_move(c, process_exit(c->process) ? CONTAINER_STOPPED : CONTAINER_CREATED);
    } else {
        c->started = true;
        (void)container_move(c, CONTAINER_RUNNING);
        if (process_exit(c->process))
            (void)container_move(c, CONTAINER_STOPPED);
    }
    completions_done(&c->starts, number, message);
}

static int start_begin(Container *c, Error *e)
{
    _cleanup_free_ char *log_path = fs_join(c->directory, "start.log");

    if (!log_path)
        return error_set(e, -ENOMEM, "out of memory");
    return crun_run(container_context(c)->reaper,
                    &(const CrunCommand){.arguments = (const char *const[]){"start", c->id, NULL},
                                         .log_path = log_path,
                                         .stdin_fd = -EBADF,
                                         .stdout_fd = -EBADF,
                                         .stderr_fd = -EBADF,
                                         .timeout_usec = CONTAINER_CRUN_TIMEOUT_SECS * USEC_PER_SEC},
                    on_started, c, e);
}

int container_start(Container *c, ContainerDoneFn done, void *userdata, Error *e)
{
    Completion *added;
    int r;

    if (c->started) {
        done(0, NULL, userdata);
        return 0;
    }
    if (c->state != CONTAINER_CREATED && c->state != CONTAINER_STARTING)
        return error_set(e, -EBUSY, "the container %s cannot be started: it is %s", c->id,
                         state_name(c->state));
    r = completion_add(&c->starts, done, NULL, userdata);
    if (r < 0)
        return error_set(e, r, "out of memory");
    if (c->state == CONTAINER_STARTING)
        return 0;
    r = start_begin(c, e);
    if (r < 0) {
        added = c->starts;
        c->starts = added->next;
        free(added);
        return r;
    }
    return container_move(c, CONTAINER_STARTING);
}

int container_kill(Container *c, int signal, bool all, Error *e)
{
    int r;

    if (signal < 1 || signal > SIGRTMAX)
        return error_set(e, -EINVAL, "%i is not a signal", signal);
    if (c->state == CONTAINER_CREATING)
        return error_set(e, -EBUSY, "the container %s is being created", c->id);
    if (all)
        r = signal == SIGKILL ? cgroup_kill(c->cgroup) : cgroup_signal(c->cgroup, signal);
    else
        r = process_signal(c->process, signal);
    if (r == -ESRCH)
        return error_set(e, r, "the process of the container %s has ended already", c->id);
    return r < 0 ? error_set_errno(e, -EIO, "cannot send signal %i to the container %s", signal, c->id) : 0;
}

int container_processes(Container *c, size_t max, pid_t **ret, size_t *ret_n, Error *e)
{
    int r = cgroup_processes(c->cgroup, max, ret, ret_n);

    if (r == -ENOENT) {
        *ret = NULL;
        *ret_n = 0;
        return 0;
    }
    return r < 0 ? error_set_errno(e, -EIO, "cannot list the processes of the container %s", c->id) : 0;
}
