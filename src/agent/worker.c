/* SPDX-License-Identifier: MIT */

#include "agent/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"

typedef struct WorkerResult {
    int number;
    char message[2040]; /* with the number less than PIPE_BUF: written in one piece, never blocking */
} WorkerResult;

typedef struct Worker {
    int result_fd;
    WorkerDoneFn done;
    void *userdata;
} Worker;

_Noreturn static void worker_main(WorkerFn job, void *userdata, int fd)
{
    _cleanup_error_ Error e = ERROR_INIT;
    WorkerResult result = {0};
    sigset_t none;

    if (dup3(fd, 3, O_CLOEXEC) < 0 && fd != 3)
        _exit(1);
    (void)syscall(SYS_close_range, 4U, ~0U, 0U);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    result.number = job(userdata, &e);
    if (result.number < 0)
        snprintf(result.message, sizeof(result.message), "%s",
                 e.number ? error_message(&e) : strerrordesc_np(-result.number) ?: "unknown error");
    (void)fd_write_full(3, &result, sizeof(result));
    /* The agent's exit handlers and buffers are not the child's. */
    _exit(0);
}

static void on_end(pid_t pid, int status, uint64_t ended_nsec, void *userdata)
{
    Worker *worker = userdata;
    WorkerResult result;

    if (fd_read_full(worker->result_fd, &result, sizeof(result)) != sizeof(result)) {
        result.number = -EIO;
        snprintf(result.message, sizeof(result.message), "the job was ended by signal %i before it was done",
                 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
    result.message[sizeof(result.message) - 1] = 0;
    close(worker->result_fd);
    worker->done(result.number, result.message, worker->userdata);
    free(worker);
}

int worker_run(Reaper *reaper, WorkerFn job, WorkerDoneFn done, void *userdata, Error *e)
{
    _cleanup_free_ Worker *worker = malloc(sizeof(*worker));
    _cleanup_close_ int read_fd = -EBADF, write_fd = -EBADF;
    int fds[2], r;
    pid_t pid;

    if (!worker)
        return error_set(e, -ENOMEM, "out of memory");
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot make a pipe");
    read_fd = fds[0];
    write_fd = fds[1];
    pid = fork();
    if (pid < 0)
        return error_set_errno(e, -errno, "cannot fork");
    if (pid == 0)
        worker_main(job, userdata, write_fd);
    *worker = (Worker){.result_fd = read_fd, .done = done, .userdata = userdata};
    r = reaper_watch(reaper, pid, on_end, worker);
    if (r < 0) {
        (void)kill(pid, SIGKILL);
        return error_set_errno(e, r, "cannot watch a job");
    }
    (void)TAKE_FD(read_fd);
    (void)TAKE_PTR(worker);
    return 0;
}
