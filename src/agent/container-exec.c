/* SPDX-License-Identifier: MIT */

/* Further processes of a container (exec): announced first, with streams that can be read from then on, and
 * started by crun later. */

#include <errno.h>
#include <string.h>

#include "agent/container-private.h"
#include "agent/crun.h"
#include "agent/names.h"
#include "agent/spec.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/trace.h"

struct Exec {
    Container *container;
    char *id;
    char *path; /* of its files in the container's directory, without their endings */
    Process *process;
    ProcessPipes pipes; /* the container's ends, until crun has them */
    bool starting;
    bool started;
    bool failed; /* to start, and its streams are at their end: only to be deleted */
    bool deleted; /* while it was being started: freed when that is over */
    Completion *starts;
    Exec *next;
};

static Exec *exec_find(const Container *c, const char *exec_id)
{
    for (Exec *exec = c->execs; exec; exec = exec->next)
        if (!exec->deleted && strcmp(exec->id, exec_id) == 0)
            return exec;
    return NULL;
}

static char *exec_file(const Exec *exec, const char *ending)
{
    return string_printf("%s.%s", exec->path, ending);
}

static void exec_remove_files(const Exec *exec)
{
    static const char *const endings[] = {"json", "pid", "log"};

    for (size_t i = 0; i < ELEMENTSOF(endings) && exec->path; i++) {
        _cleanup_free_ char *path = exec_file(exec, endings[i]);

        if (path)
            (void)unlink(path);
    }
}

static Exec *exec_free(Exec *exec)
{
    Container *c = exec->container;

    for (Exec **p = &c->execs; *p; p = &(*p)->next)
        if (*p == exec) {
            *p = exec->next;
            c->n_execs--;
            break;
        }
    if (exec->process && process_pid(exec->process) > 0 && !process_exit(exec->process))
        reaper_forget(container_context(c)->reaper, process_pid(exec->process));
    exec_remove_files(exec);
    process_pipes_close(&exec->pipes);
    process_free(exec->process);
    free(exec->id);
    free(exec->path);
    free(exec);
    return NULL;
}

void container_execs_free(Container *c)
{
    while (c->execs)
        exec_free(c->execs);
}

bool container_execs_are_starting(const Container *c)
{
    for (const Exec *exec = c->execs; exec; exec = exec->next)
        if (exec->starting)
            return true;
    return false;
}

Process *container_exec_process(const Container *c, const char *exec_id)
{
    Exec *exec = exec_find(c, exec_id);

    return exec ? exec->process : NULL;
}

static int exec_new(Container *c, const Cloudhv__Agent__V1__ExecRequest *q, Exec **ret, Error *e)
{
    Exec *exec = calloc(1, sizeof(*exec));
    int r = -ENOMEM;

    if (!exec)
        return error_set(e, -ENOMEM, "out of memory");
    *exec = (Exec){.container = c, .pipes = PROCESS_PIPES_INIT, .next = c->execs};
    c->execs = exec;
    c->n_execs++;
    exec->id = strdup(q->exec_id);
    exec->path = string_printf("%s/exec-%s", c->directory, q->exec_id);
    if (exec->id && exec->path)
        r = process_new(container_context(c)->loop, &exec->process);
    if (r < 0) {
        exec_free(exec);
        return error_set(e, r, "out of memory");
    }
    *ret = exec;
    return 0;
}

static int exec_prepare(Exec *exec, const Cloudhv__Agent__V1__ExecRequest *q, Error *e)
{
    _cleanup_free_ char *path = exec_file(exec, "json");
    int r;

    if (!path)
        return error_set(e, -ENOMEM, "out of memory");
    r = fs_write_file_atomic(path, q->process.data, q->process.len, 0600);
    if (r < 0)
        return error_set_errno(e, -EIO, "cannot write %s", path);
    return process_make_pipes(exec->process, q->stdin, q->stdout, q->stderr, &exec->pipes, e);
}

int container_exec(Container *c, const Cloudhv__Agent__V1__ExecRequest *q, Error *e)
{
    Exec *exec = NULL;
    int r;

    if (!name_is_valid(q->exec_id))
        return error_set(e, -EINVAL, "not an exec id: \"%.140s\"", q->exec_id);
    if (exec_find(c, q->exec_id))
        return error_set(e, -EEXIST, "there is a process %s in the container %s already", q->exec_id, c->id);
    if (q->terminal)
        return error_set(e, -EOPNOTSUPP, "a terminal for a process is not implemented");
    if (c->state != CONTAINER_RUNNING || c->paused)
        return error_set(e, -EBUSY, "the container %s does not run", c->id);
    if (c->n_execs >= AGENT_EXECS_MAX)
        return error_set(e, -ENOSPC, "there are %i processes in the container %s already", AGENT_EXECS_MAX, c->id);
    r = spec_check_process(q->process.data, q->process.len, e);
    if (r < 0)
        return r;
    r = exec_new(c, q, &exec, e);
    if (r < 0)
        return r;
    r = exec_prepare(exec, q, e);
    if (r < 0)
        exec_free(exec);
    return r;
}

static void on_ended(pid_t pid, int status, uint64_t nsec, void *userdata)
{
    Exec *exec = userdata;

    process_ended(exec->process, status, nsec, false);
    /* What it started may live on and hold the other ends: its output ends with what is in the pipes. */
    process_finish_output(exec->process);
}

static int adopt(Exec *exec, Error *e)
{
    _cleanup_free_ char *path = exec_file(exec, "pid");
    pid_t pid = 0;
    int r;

    if (!path)
        return error_set(e, -ENOMEM, "out of memory");
    r = container_read_pid_file(path, &pid, e);
    if (r >= 0)
        r = process_set_pid(exec->process, pid, e);
    if (r < 0)
        return r;
    r = reaper_watch(container_context(exec->container)->reaper, pid, on_ended, exec);
    return r < 0 ? error_set_errno(e, r, "cannot watch the process %i", pid) : 0;
}

static void on_crun_done(int number, const char *message, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Exec *exec = userdata;
    Container *c = exec->container;

    exec->starting = false;
    if (number < 0)
        (void)error_set(&e, number, "%s", message);
    else if (adopt(exec, &e) >= 0)
        exec->started = true;
    reaper_release(container_context(c)->reaper);
    exec->failed = e.number < 0;
    exec_remove_files(exec);
    TRACE("agent.exec.started");
    completions_done(&exec->starts, e.number, error_message(&e));
    if (exec->deleted)
        exec_free(exec);
    container_dismantle_continue(c);
}

static int exec_start(Exec *exec, Error *e)
{
    _cleanup_free_ char *file = exec_file(exec, "json"), *pid_file = exec_file(exec, "pid"),
                        *log_path = exec_file(exec, "log");
    Container *c = exec->container;
    Reaper *reaper = container_context(c)->reaper;
    int r;

    if (!file || !pid_file || !log_path)
        return error_set(e, -ENOMEM, "out of memory");
    reaper_hold(reaper);
    r = crun_run(reaper,
                 &(const CrunCommand){
                     .arguments = (const char *const[]){"exec", "--detach", "--process", file, "--pid-file", pid_file,
                                                        c->id, NULL},
                     .log_path = log_path,
                     .stdin_fd = exec->pipes.stdin_fd,
                     .stdout_fd = exec->pipes.stdout_fd,
                     .stderr_fd = exec->pipes.stderr_fd,
                     .timeout_usec = CONTAINER_CRUN_TIMEOUT_SECS * USEC_PER_SEC,
                 },
                 on_crun_done, exec, e);
    process_pipes_close(&exec->pipes);
    if (r < 0) {
        reaper_release(reaper);
        return r;
    }
    exec->starting = true;
    return 0;
}

int container_exec_start(Container *c, const char *exec_id, ContainerDoneFn done, void *userdata, Error *e)
{
    Exec *exec = exec_find(c, exec_id);
    Completion *added;
    int r;

    if (!exec)
        return error_set(e, -ENOENT, "there is no process %s in the container %s", exec_id, c->id);
    if (exec->started) {
        done(0, NULL, userdata);
        return 0;
    }
    if (exec->failed)
        return error_set(e, -EBUSY, "the process %s could not be started before", exec_id);
    if (c->state != CONTAINER_RUNNING || c->paused)
        return error_set(e, -EBUSY, "the container %s does not run", c->id);
    r = completion_add(&exec->starts, done, NULL, userdata);
    if (r < 0)
        return error_set(e, r, "out of memory");
    if (exec->starting)
        return 0;
    r = exec_start(exec, e);
    if (r < 0) {
        added = exec->starts;
        exec->starts = added->next;
        free(added);
    }
    return r;
}

int container_exec_delete(Container *c, const char *exec_id, ContainerRemains *ret, Error *e)
{
    Exec *exec = exec_find(c, exec_id);
    const ProcessExit *exit;

    if (!exec)
        return error_set(e, -ENOENT, "there is no process %s in the container %s", exec_id, c->id);
    exit = process_exit(exec->process);
    if (process_pid(exec->process) > 0 && !exit)
        return error_set(e, -EBUSY, "the process %s in the container %s cannot be deleted: it runs", exec_id, c->id);
    *ret = (ContainerRemains){.pid = process_pid(exec->process), .exit = exit ? *exit : (ProcessExit){0}};
    if (exec->starting)
        exec->deleted = true;
    else
        exec_free(exec);
    return 0;
}
