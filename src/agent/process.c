/* SPDX-License-Identifier: MIT */

#include "agent/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/process.h"

struct ProcessWait {
    Process *process;
    ProcessWaitFn callback;
    void *userdata;
    ProcessWait *next;
};

struct Process {
    Loop *loop;
    pid_t pid;
    int pidfd;
    bool ended;
    ProcessExit exit;
    OutputStream *stdout_stream, *stderr_stream;
    InputStream *stdin_stream;
    ProcessWait *waits;
};

uint32_t process_exit_status(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        return 128 + (uint32_t)WTERMSIG(wait_status);
    return (uint32_t)WEXITSTATUS(wait_status);
}

int process_new(Loop *loop, Process **ret)
{
    Process *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    *p = (Process){.loop = loop, .pidfd = -EBADF};
    *ret = p;
    return 0;
}

/* A callback may cancel any wait, so each one is taken off the list first. */
static void waits_end(Process *p, const ProcessExit *exit)
{
    while (p->waits) {
        ProcessWaitFn callback = p->waits->callback;
        void *userdata = p->waits->userdata;

        process_wait_cancel(p->waits);
        callback(exit, userdata);
    }
}

Process *process_free(Process *p)
{
    if (!p)
        return NULL;
    waits_end(p, NULL);
    output_stream_free(p->stdout_stream);
    output_stream_free(p->stderr_stream);
    input_stream_free(p->stdin_stream);
    fd_close(p->pidfd);
    free(p);
    return NULL;
}

void process_pipes_close(ProcessPipes *pipes)
{
    pipes->stdin_fd = fd_close(pipes->stdin_fd);
    pipes->stdout_fd = fd_close(pipes->stdout_fd);
    pipes->stderr_fd = fd_close(pipes->stderr_fd);
}

static int make_output(Process *p, OutputStream **stream, int *ret_fd)
{
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    r = output_stream_new(p->loop, fds[0], stream);
    if (r < 0) {
        close(fds[1]);
        return r;
    }
    *ret_fd = fds[1];
    return 0;
}

static int make_input(Process *p, int *ret_fd)
{
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    r = input_stream_new(p->loop, fds[1], &p->stdin_stream);
    if (r < 0) {
        close(fds[0]);
        return r;
    }
    *ret_fd = fds[0];
    return 0;
}

int process_make_pipes(Process *p, bool with_stdin, bool with_stdout, bool with_stderr, ProcessPipes *ret,
                       Error *e)
{
    _cleanup_(process_pipes_close) ProcessPipes pipes = PROCESS_PIPES_INIT;
    int r = 0;

    if (with_stdin)
        r = make_input(p, &pipes.stdin_fd);
    if (r >= 0 && with_stdout)
        r = make_output(p, &p->stdout_stream, &pipes.stdout_fd);
    if (r >= 0 && with_stderr)
        r = make_output(p, &p->stderr_stream, &pipes.stderr_fd);
    if (r < 0)
        return error_set_errno(e, r, "cannot make the process's standard streams");
    *ret = pipes;
    pipes = PROCESS_PIPES_INIT;
    return 0;
}

int process_set_pid(Process *p, pid_t pid, Error *e)
{
    /* It has not been collected, so the number is its own. */
    p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (p->pidfd < 0)
        return error_set_errno(e, -errno, "cannot open a pidfd of the process %i", pid);
    p->pid = pid;
    return 0;
}

pid_t process_pid(const Process *p)
{
    return p->pid;
}

void process_ended(Process *p, int wait_status, uint64_t nsec, bool oom_killed)
{
    p->ended = true;
    p->exit = (ProcessExit){process_exit_status(wait_status), nsec, oom_killed};
    p->pidfd = fd_close(p->pidfd);
    waits_end(p, &p->exit);
}

const ProcessExit *process_exit(const Process *p)
{
    return p->ended ? &p->exit : NULL;
}

int process_signal(const Process *p, int signal)
{
    if (p->ended || p->pidfd < 0)
        return -ESRCH;
    return process_kill(p->pidfd, signal);
}

int process_wait(Process *p, ProcessWaitFn callback, void *userdata, ProcessWait **ret)
{
    ProcessWait *wait = malloc(sizeof(*wait));

    if (!wait)
        return -ENOMEM;
    *wait = (ProcessWait){.process = p, .callback = callback, .userdata = userdata, .next = p->waits};
    p->waits = wait;
    *ret = wait;
    return 0;
}

ProcessWait *process_wait_cancel(ProcessWait *wait)
{
    if (!wait)
        return NULL;
    for (ProcessWait **p = &wait->process->waits; *p; p = &(*p)->next)
        if (*p == wait) {
            *p = wait->next;
            break;
        }
    free(wait);
    return NULL;
}

OutputStream *process_stdout(const Process *p)
{
    return p->stdout_stream;
}

OutputStream *process_stderr(const Process *p)
{
    return p->stderr_stream;
}

InputStream *process_stdin(const Process *p)
{
    return p->stdin_stream;
}

void process_finish_output(Process *p)
{
    if (p->stdout_stream)
        output_stream_finish(p->stdout_stream);
    if (p->stderr_stream)
        output_stream_finish(p->stderr_stream);
}
