/* SPDX-License-Identifier: MIT */
#pragma once

/* A process as containerd sees it, a container's first one or an exec: its state, its streams, who waits for its
 * end. The order at the end is: the agent says that it ended, its output is drained to the end of file, files are
 * brought back, and only then the exit is published and the waiters are told. */

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "shim/io.h"
#include "ttrpc/ttrpc.h"

typedef struct Container Container;
typedef struct Process Process;

typedef enum ProcessState {
    PROCESS_CREATING, /* nothing is promised yet */
    PROCESS_CREATED,
    PROCESS_STARTING,
    PROCESS_RUNNING,
    PROCESS_ENDING, /* it has ended; its output is being drained */
    PROCESS_STOPPED,
    PROCESS_DELETING,
} ProcessState;

/* A call of containerd about a process that waits for the agent; there is one at a time, since each has a state of
 * its own. It ends at the latest with the process. */
typedef struct ProcessOp {
    Process *process;
    TtrpcCall *call;
    TtrpcPending *pending; /* cleared by the reply's callback */
    void (*answer)(TtrpcCall *call, const Process *p);
} ProcessOp;

/* NULL when out of memory; the call is then the caller's to answer. */
ProcessOp *process_op_new(Process *p, TtrpcCall *call);
/* Frees it and gives the call back. */
TtrpcCall *process_op_end(ProcessOp *op);

/* Called when the process has ended and its output is drained. The owner does what is left to do and then calls
 * process_stop(). */
typedef void (*ProcessEndedFn)(Process *process);

struct Process {
    Container *container;
    char *exec_id; /* "": the container's first */
    ProcessState state;
    bool terminal;
    bool has_process; /* the guest has it, which the sandbox's container is not */
    char *stdin_path, *stdout_path, *stderr_path;
    Stdio *stdio;
    TtrpcPending *wait;
    ProcessOp *op;
    ProcessEndedFn ended;
    bool ended_early; /* while it was being started: the start must be published first */
    uint32_t exit_status;
    uint64_t exited_at_nsec;
    TtrpcCall **waiters;
    size_t n_waiters;
    Process *next; /* execs of a container */
};

int process_init(Process *p, Container *container, const char *exec_id, bool terminal, const char *stdin_path,
                 const char *stdout_path, const char *stderr_path, ProcessEndedFn ended);
/* Releases what it holds, not itself; waiters that are left get an error. */
void process_clear(Process *p);

/* Moves to another state. A move that can't be is refused with -EPERM and a message that names both. */
int process_move(Process *p, ProcessState to, Error *e);
const char *process_state_name(ProcessState state);

/* Opens the process' FIFOs. */
int process_open_stdio(Process *p, Error *e);

/* The agent has made the process: waits for its end and moves its data. */
int process_attach(Process *p, TtrpcClient *agent, Error *e);

/* The agent has started it: publishes the start. */
void process_started(Process *p);

/* It ended, in whatever way but WaitProcess (the sandbox's container; the VM is gone). */
void process_end(Process *p, uint32_t exit_status);

/* The VM is gone: nothing can be drained. */
void process_lose(Process *p);

/* Publishes the exit and tells the waiters. */
void process_stop(Process *p);

/* Answers when the process has stopped; at once if it has. Takes the call. */
void process_wait(Process *p, TtrpcCall *call);
