/* SPDX-License-Identifier: MIT */
#pragma once

/* A process of a container that the host knows by name: its number, its streams, how it ended, and who waits
 * for that. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/reaper.h"
#include "agent/streams.h"
#include "base/error.h"

typedef struct Process Process;
typedef struct ProcessWait ProcessWait;

typedef struct ProcessExit {
    uint32_t status;     /* 0 to 255; 128 + n when signal n ended it */
    uint64_t nsec;       /* realtime */
    bool oom_killed;
} ProcessExit;

/* `exit` is NULL when the process was forgotten before it ended. The wait is gone before the call. */
typedef void (*ProcessWaitFn)(const ProcessExit *exit, void *userdata);

int process_new(Loop *loop, Process **ret);
/* Ends waits and streams; does not touch the process itself. */
Process *process_free(Process *process);
DEFINE_CLEANUP_FUNC(Process *, process_free)

/* The container's ends of the standard streams, -EBADF for those that are not wanted. */
typedef struct ProcessPipes {
    int stdin_fd, stdout_fd, stderr_fd;
} ProcessPipes;
#define PROCESS_PIPES_INIT ((ProcessPipes){-EBADF, -EBADF, -EBADF})
void process_pipes_close(ProcessPipes *pipes);

/* Makes the pipes and keeps the agent's ends. The caller closes the others when they are passed on. */
int process_make_pipes(Process *process, bool with_stdin, bool with_stdout, bool with_stderr,
                       ProcessPipes *ret, Error *e);

/* The process exists now: a pid whose end the caller reports by process_ended(). */
int process_set_pid(Process *process, pid_t pid, Error *e);
pid_t process_pid(const Process *process); /* 0: not yet */

void process_ended(Process *process, int wait_status, uint64_t nsec, bool oom_killed);
/* NULL while it runs or has not begun. */
const ProcessExit *process_exit(const Process *process);

/* Sends a signal. -ESRCH when it has ended or has not begun. */
int process_signal(const Process *process, int signal);

/* Calls back when the process ends; not for one that has ended. */
int process_wait(Process *process, ProcessWaitFn callback, void *userdata, ProcessWait **ret);
ProcessWait *process_wait_cancel(ProcessWait *wait);

/* NULL: the process has no such stream. They live as long as the process. */
OutputStream *process_stdout(const Process *process);
OutputStream *process_stderr(const Process *process);
InputStream *process_stdin(const Process *process);

/* Nothing is left that could write to the output streams. */
void process_finish_output(Process *process);

/* 0 to 255 of a wait status: 128 + n for signal n. */
uint32_t process_exit_status(int wait_status);
