/* SPDX-License-Identifier: MIT */

#include "sandbox/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"

#define RESULT_MAX (64 * 1024)
#define NICE 10

struct Job {
    const char *what;
    int fd, pidfd;
    LoopSource *source;
    char *text; /* the result so far */
    size_t n;
    JobDoneFn done;
    void *userdata;
};

_Noreturn static void child_main(pid_t parent, JobFn function, const void *argument, int fd)
{
    _cleanup_error_ Error e = ERROR_INIT;
    json_t *result, *outer;
    char *text;
    sigset_t none;

    /* The loop blocks the signals that it takes by descriptor. */
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)setpriority(PRIO_PROCESS, 0, NICE);
    /* TAPs and connections of others must not live as long as this. */
    if (dup2(fd, 3) < 0)
        _exit(1);
    fd = 3;
    (void)syscall(SYS_close_range, 4U, ~0U, 0U);
    result = function(argument, &e);
    if (result)
        outer = json_pack("{s:o}", "result", result);
    else
        outer = json_pack("{s:i, s:s}", "number", e.number ?: -EIO, "message", error_message(&e));
    text = outer ? json_dumps(outer, JSON_COMPACT) : NULL;
    if (text)
        (void)fd_write_full(fd, text, strlen(text));
    _exit(text ? 0 : 1);
}

static void reap(Job *job)
{
    siginfo_t si;

    if (job->pidfd < 0)
        return;
    (void)syscall(SYS_pidfd_send_signal, job->pidfd, SIGKILL, NULL, 0);
    (void)waitid((idtype_t)P_PIDFD, (id_t)job->pidfd, &si, WEXITED);
}

Job *job_free(Job *job)
{
    if (!job)
        return NULL;
    loop_source_free(job->source);
    reap(job);
    fd_close(job->pidfd);
    fd_close(job->fd);
    free(job->text);
    free(job);
    return NULL;
}

static json_t *parse_result(const Job *job, json_t *outer, Error *e)
{
    const char *message = NULL;
    json_t *result = json_object_get(outer, "result");

    if (result)
        return json_incref(result);
    (void)json_get_string(outer, "message", job->what, &message, NULL);
    (void)error_set(e, (int)json_integer_value(json_object_get(outer, "number")) ?: -EIO, "%s: %s", job->what,
                    message ?: "the process for it ended without a result");
    return NULL;
}

/* The child has closed its end: it has said everything. */
static void finish(Job *job, Error *e)
{
    _cleanup_json_ json_t *outer = NULL, *result = NULL;
    JobDoneFn done = job->done;
    void *userdata = job->userdata;

    if (e->number == 0) {
        (void)json_parse(job->text ?: "", job->n, job->what, &outer, NULL);
        result = parse_result(job, outer, e);
    }
    job_free(job);
    done(result, result ? NULL : e, userdata);
}

static void on_readable(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Job *job = userdata;
    char buffer[4096], *grown;
    ssize_t n = read(fd, buffer, sizeof(buffer));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        grown = job->n + (size_t)n <= RESULT_MAX ? realloc(job->text, job->n + (size_t)n) : NULL;
        if (grown) {
            job->text = grown;
            memcpy(grown + job->n, buffer, (size_t)n);
            job->n += (size_t)n;
            return;
        }
        (void)error_set(&e, -EMSGSIZE, "%s: the result is too long", job->what);
    } else if (n < 0)
        (void)error_set_errno(&e, -errno, "%s", job->what);
    finish(job, &e);
}

int job_start(Loop *loop, const char *what, JobFn function, const void *argument, JobDoneFn done,
              void *userdata, Job **ret, Error *e)
{
    Job *job = calloc(1, sizeof(*job));
    pid_t parent = getpid(), pid;
    int fds[2], r;

    if (!job)
        return error_set_errno(e, -ENOMEM, "%s", what);
    *job = (Job){.what = what, .fd = -EBADF, .pidfd = -EBADF, .done = done, .userdata = userdata};
    if (pipe2(fds, O_CLOEXEC) < 0) {
        r = error_set_errno(e, -errno, "%s", what);
        job_free(job);
        return r;
    }
    job->fd = fds[0];
    pid = fork();
    if (pid == 0)
        child_main(parent, function, argument, fds[1]);
    r = pid < 0 ? -errno : 0;
    close(fds[1]);
    if (r >= 0) {
        job->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (job->pidfd < 0) {
            r = -errno;
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, NULL, 0);
        }
    }
    if (r >= 0)
        r = fd_set_nonblock(job->fd, true);
    if (r >= 0)
        r = loop_add_io(loop, job->fd, EPOLLIN, on_readable, job, &job->source);
    if (r < 0) {
        job_free(job);
        return error_set_errno(e, r, "%s", what);
    }
    *ret = job;
    return 0;
}
