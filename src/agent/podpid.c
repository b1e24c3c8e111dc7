/* SPDX-License-Identifier: MIT */

#include "agent/podpid.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"

struct PodPid {
    Reaper *reaper;
    pid_t pid; /* 0: none */
    char path[40];
};

int podpid_new(Reaper *reaper, PodPid **ret)
{
    PodPid *pod = calloc(1, sizeof(*pod));

    if (!pod)
        return -ENOMEM;
    pod->reaper = reaper;
    *ret = pod;
    return 0;
}

PodPid *podpid_free(PodPid *pod)
{
    if (!pod)
        return NULL;
    if (pod->pid > 0) {
        reaper_forget(pod->reaper, pod->pid);
        (void)kill(pod->pid, SIGKILL);
    }
    free(pod);
    return NULL;
}

_Noreturn void podpid_main(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t all;

    /* SIGCHLD ignored: the kernel collects the orphans itself. All others blocked: only SIGKILL from outside
     * ends a namespace's first process. */
    (void)sigaction(SIGCHLD, &ignore, NULL);
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&all);
    sigaddset(&all, SIGTERM);
    for (;;)
        (void)sigwaitinfo(&all, NULL);
}

/* A program of its own, not a copy of the agent: containers of the pod may look into its memory. */
_Noreturn static void child_main(int error_fd)
{
    char *const argv[] = {(char *)"pod", (char *)PODPID_ARGUMENT, NULL}, *const environment[] = {NULL};
    int r, null_fd;

    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd >= 0)
        for (int i = 0; i < 3; i++)
            (void)dup2(null_fd, i);
    (void)setsid();
    r = fs_write_existing("/proc/self/oom_score_adj", "-998");
    if (r >= 0 || r == -ENOENT) {
        (void)syscall(SYS_close_range, 3U, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */);
        execve("/proc/self/exe", argv, environment);
        r = -errno;
    }
    (void)!write(error_fd, &r, sizeof(r));
    _exit(1);
}

static void on_end(pid_t pid, int status, uint64_t ended_nsec, void *userdata)
{
    PodPid *pod = userdata;

    log_warning("the first process of the pod's namespace has ended, and all in it");
    pod->pid = 0;
}

static int podpid_start(PodPid *pod, Error *e)
{
    _cleanup_close_ int read_fd = -EBADF;
    int fds[2], number = 0, r;
    long pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot make a pipe");
    read_fd = fds[0];
    pid = syscall(SYS_clone, (unsigned long)(CLONE_NEWPID | SIGCHLD), 0UL, 0UL, 0UL, 0UL);
    if (pid == 0)
        child_main(fds[1]);
    r = pid < 0 ? -errno : 0;
    close(fds[1]);
    if (r < 0)
        return error_set_errno(e, r, "cannot make the pod's process namespace");
    if (fd_read_full(read_fd, &number, sizeof(number)) != 0) {
        (void)waitpid((pid_t)pid, NULL, 0);
        return error_set_errno(e, number < 0 ? number : -EIO, "cannot start the first process of the pod");
    }
    r = reaper_watch(pod->reaper, (pid_t)pid, on_end, pod);
    if (r < 0) {
        (void)kill((pid_t)pid, SIGKILL);
        return error_set_errno(e, r, "cannot watch the first process of the pod");
    }
    pod->pid = (pid_t)pid;
    snprintf(pod->path, sizeof(pod->path), "/proc/%i/ns/pid", pod->pid);
    return 0;
}

int podpid_get(PodPid *pod, const char **ret_path, Error *e)
{
    int r = pod->pid > 0 ? 0 : podpid_start(pod, e);

    if (r >= 0)
        *ret_path = pod->path;
    return r;
}
