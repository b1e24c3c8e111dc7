/* SPDX-License-Identifier: MIT */
#pragma once

/* The inside of a container, shared by container.c (states, signals) and container-*.c. */

#include "agent/cgroup.h"
#include "agent/container.h"

enum {
    CONTAINER_CRUN_TIMEOUT_SECS = 120, /* generous: under emulation crun takes seconds on a busy machine */
    CONTAINER_KILL_TIMEOUT_SECS = 30,
    CONTAINER_PAUSE_TIMEOUT_SECS = 10,
    CONTAINER_DISK_TIMEOUT_SECS = 10, /* where the host names none */
    CONTAINER_DISK_TIMEOUT_MAX_SECS = 600,
};

/* Somebody who waits for a start or a removal. */
typedef struct Completion {
    ContainerDoneFn done;
    ContainerDeletedFn deleted;
    void *userdata;
    struct Completion *next;
} Completion;

typedef struct Creation Creation;
typedef struct Exec Exec;

struct Container {
    Containers *registry;
    char *id;
    char *directory; /* AGENT_CONTAINERS_DIR/ID */
    char *cgroup;    /* directory */
    ContainerState state;
    Process *process; /* the first one */
    bool started;
    bool output_finished;
    CgroupWatch *cgroup_watch;

    Creation *creation; /* while CREATING */
    Completion *starts, *deletes, *pauses;
    bool paused; /* wanted, and reached when nobody waits in `pauses` */
    LoopSource *pause_timer;
    Exec *execs;
    size_t n_execs;

    /* While it is taken apart, after a removal or a failed creation. */
    bool waits_for_end;
    LoopSource *end_timer;
    ContainerDoneFn dismantled;
    void *dismantled_userdata;

    Container *next;
};

const ContainersContext *container_context(const Container *c);

/* Moves to another state; refuses, with a message in the log, what cannot be. */
int container_move(Container *c, ContainerState to);

/* Adds an empty container to the registry; -EEXIST, -ENOSPC. */
int container_new(Containers *containers, const char *id, Container **ret, Error *e);
/* Takes it out of the registry. Whoever waits must have been answered. */
Container *container_free(Container *c);

int completion_add(Completion **list, ContainerDoneFn done, ContainerDeletedFn deleted, void *userdata);
/* Answers and empties the list. */
void completions_done(Completion **list, int number, const char *message);
void completions_deleted(Completion **list, int number, const char *message, const ContainerRemains *remains);

/* The first process has ended. A ReaperFn. */
void container_process_ended(pid_t pid, int status, uint64_t nsec, void *userdata);
/* Watches the cgroup as soon as it exists. */
int container_watch_cgroup(Container *c);

/* Gives up disks that a creation still waits for. */
void container_creation_abort(Container *c);

/* Ends all processes, has crun forget the container, unmounts, removes its files. Calls back in any case. */
void container_dismantle(Container *c, ContainerDoneFn done, void *userdata);
/* A process or the last one of the cgroup has ended: go on if that was waited for. */
void container_dismantle_continue(Container *c);

/* Frees all further processes; none may be starting. */
void container_execs_free(Container *c);
bool container_execs_are_starting(const Container *c);

/* The cgroup or the first process has changed: answer those who wait for a pause. */
void container_pause_continue(Container *c);

/* Reads a number that crun wrote. */
int container_read_pid_file(const char *path, pid_t *ret, Error *e);

/* Begins the removal for those in `deletes`. */
void container_delete_begin(Container *c);
