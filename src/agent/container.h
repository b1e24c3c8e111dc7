/* SPDX-License-Identifier: MIT */
#pragma once

/* The pod's containers: what they are made of, the states they go through, and what can be done to them.
 * Errors of these functions are answers to the host: -EINVAL, -ENOENT, -EEXIST, -ESRCH (has ended), -EBUSY
 * (not in this state), -EOPNOTSUPP, -ENOSPC, -ETIMEDOUT; anything that went wrong inside is -EIO. */

#include "agent.pb-c.h"
#include "agent/disks.h"
#include "agent/podpid.h"
#include "agent/process.h"
#include "agent/trees.h"

typedef struct Container Container;
typedef struct Containers Containers;

typedef enum ContainerState {
    CONTAINER_CREATING,
    CONTAINER_CREATED, /* its process waits to be started */
    CONTAINER_STARTING,
    CONTAINER_RUNNING,
    CONTAINER_STOPPED,
    CONTAINER_DELETING,
} ContainerState;

/* What containers are built with; all of it must outlive them. */
typedef struct ContainersContext {
    Loop *loop;
    Reaper *reaper;
    Disks *disks;
    Trees *trees;
    PodPid *pod_pid;
} ContainersContext;

int containers_new(const ContainersContext *context, Containers **ret);
Containers *containers_free(Containers *containers);
DEFINE_CLEANUP_FUNC(Containers *, containers_free)

/* NULL: there is none. */
Container *containers_find(Containers *containers, const char *id);
/* The first one for NULL; NULL after the last. */
Container *containers_next(Containers *containers, Container *container);
size_t containers_count(const Containers *containers);

/* The end of something that takes time: 0, or a negative errno as above and why. */
typedef void (*ContainerDoneFn)(int number, const char *message, void *userdata);

/* Makes a container. `request` must stay until the end; the error of a failure that is known at once is
 * returned instead. A container that could not be made leaves nothing behind. */
int container_create(Containers *containers, const Cloudhv__Agent__V1__CreateContainerRequest *request,
                     ContainerDoneFn done, void *userdata, Error *e);

/* Lets the first process run. Succeeds at once for one that was started before. */
int container_start(Container *container, ContainerDoneFn done, void *userdata, Error *e);

typedef struct ContainerRemains {
    pid_t pid;
    ProcessExit exit;
} ContainerRemains;

/* `remains` says how the container's first process ended; zeros for one that never existed. */
typedef void (*ContainerDeletedFn)(int number, const char *message, const ContainerRemains *remains,
                                   void *userdata);

/* Ends what is left in the container and removes it. -EBUSY while its first process runs. One that is being
 * made is removed as soon as that is over; one that is being removed already is waited for. */
int container_delete(Container *container, ContainerDeletedFn done, void *userdata, Error *e);

/* Announces a further process; its streams can be read from now on. */
int container_exec(Container *container, const Cloudhv__Agent__V1__ExecRequest *request, Error *e);
/* NULL: there is none. */
Process *container_exec_process(const Container *container, const char *exec_id);
/* Like container_start() and container_delete(), for such a process. */
int container_exec_start(Container *container, const char *exec_id, ContainerDoneFn done, void *userdata, Error *e);
int container_exec_delete(Container *container, const char *exec_id, ContainerRemains *ret, Error *e);

/* Holds all processes of a running container, or lets them go on; calls back when all have stopped or go on. */
int container_pause(Container *container, bool paused, ContainerDoneFn done, void *userdata, Error *e);

/* Sends a signal to the first process, or to all. */
int container_kill(Container *container, int signal, bool all, Error *e);

/* The processes in the container; the caller frees the list. */
int container_processes(Container *container, size_t max, pid_t **ret, size_t *ret_n, Error *e);

const char *container_id(const Container *container);
ContainerState container_state(const Container *container);
/* "created", "running", "paused", "stopped"; NULL while it is being made. */
const char *container_status(const Container *container);
Process *container_process(Container *container);

/* The directory of its cgroup. */
const char *container_cgroup(const Container *container);

/* Whether a container may go from one state to another. */
bool container_move_is_allowed(ContainerState from, ContainerState to);
