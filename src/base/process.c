/* SPDX-License-Identifier: MIT */

#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/fs.h"

static const char *const default_environment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL};

static bool passed(const ProcessSpec *spec, int fd)
{
    for (size_t i = 0; i < spec->n_pass_fds; i++)
        if (spec->pass_fds[i] == fd)
            return true;
    return false;
}

/* Gives the child the descriptors 0 to 2 and the ones passed on, and marks all others close-on-exec. */
static int child_descriptors(const ProcessSpec *spec)
{
    int standard[3] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd};

    /* First out of the way: a source might sit on a number that another one is to get. */
    for (int i = 0; i < 3; i++) {
        int fd = standard[i];

        if (fd < 0)
            fd = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
            return -errno;
        standard[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (standard[i] < 0)
            return -errno;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(standard[i], i) < 0)
            return -errno;
    if (syscall(SYS_close_range, 3U, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */) < 0)
        return -errno;
    for (size_t i = 0; i < spec->n_pass_fds; i++) {
        int r;

        if (spec->pass_fds[i] < 3)
            continue;
        r = fd_set_cloexec(spec->pass_fds[i], false);
        if (r < 0)
            return r;
    }
    return 0;
}

static void child_signals(void)
{
    struct sigaction sa = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, &sa, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

typedef struct ChildError {
    int number;
    int stage;
} ChildError;

static const char *const stage_names[] = {"set up descriptors", "prepare", "execute"};

_Noreturn static void child_main(const ProcessSpec *spec, int error_fd)
{
    ChildError ce = {0};
    const char *const *environment = spec->environment ?: default_environment;

    child_signals();
    ce.number = child_descriptors(spec);
    if (ce.number >= 0 && spec->prepare) {
        ce.stage = 1;
        ce.number = spec->prepare(spec->userdata);
    }
    if (ce.number >= 0) {
        ce.stage = 2;
        execvpe(spec->argv[0], (char *const *)spec->argv, (char *const *)environment);
        ce.number = -errno;
    }
    (void)fd_write_full(error_fd, &ce, sizeof(ce));
    _exit(127);
}

int process_spawn(const ProcessSpec *spec, pid_t *ret_pid, int *ret_pidfd, Error *e)
{
    int pipe_fds[2], pidfd = -EBADF, r;
    ChildError ce;
    ssize_t k;
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot make a pipe to start %s", spec->argv[0]);
    /* The error pipe must stay clear of the numbers that the child arranges. */
    if (passed(spec, pipe_fds[1])) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return error_set(e, -EBADF, "cannot start %s: a descriptor to pass on is not open", spec->argv[0]);
    }
    pid = fork();
    if (pid < 0) {
        r = -errno;
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return error_set_errno(e, r, "cannot fork to start %s", spec->argv[0]);
    }
    if (pid == 0) {
        int error_fd = fcntl(pipe_fds[1], F_DUPFD_CLOEXEC, 3);

        child_main(spec, error_fd < 0 ? pipe_fds[1] : error_fd);
    }
    close(pipe_fds[1]);
    k = fd_read_full(pipe_fds[0], &ce, sizeof(ce));
    close(pipe_fds[0]);
    if (k != 0) {
        (void)waitpid(pid, NULL, 0);
        if (k != sizeof(ce))
            return error_set(e, -EIO, "cannot start %s: the child gave no reason", spec->argv[0]);
        return error_set_errno(e, ce.number, "cannot %s %s", stage_names[ce.stage], spec->argv[0]);
    }
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        r = -errno;
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return error_set_errno(e, r, "cannot open a pidfd of %s", spec->argv[0]);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

int process_reap(int pidfd, int *ret_status)
{
    siginfo_t si = {0};

    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG) < 0)
        return -errno;
    if (si.si_pid == 0)
        return 0;
    if (si.si_code == CLD_EXITED)
        *ret_status = (si.si_status & 0xff) << 8;
    else
        *ret_status = (si.si_status & 0x7f) | (si.si_code == CLD_DUMPED ? 0x80 : 0);
    return 1;
}

int process_kill(int pidfd, int signal)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 && errno != ESRCH)
        return -errno;
    return 0;
}

int process_start_time(pid_t pid, uint64_t *ret)
{
    _cleanup_free_ char *text = NULL;
    char path[64];
    unsigned long long value;
    const char *p;
    int r;

    snprintf(path, sizeof(path), "/proc/%i/stat", pid);
    r = fs_read_file(path, 4096, &text, NULL);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    /* The second field, the name, may contain anything; all after its last parenthesis are numbers. */
    p = strrchr(text, ')');
    if (!p ||
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &value) != 1)
        return -EBADMSG;
    *ret = value;
    return 0;
}

int process_open(pid_t pid, uint64_t start_time, int *ret_pidfd)
{
    _cleanup_close_ int fd = -EBADF;
    uint64_t now;
    int r;

    if (pid <= 0)
        return -ESRCH;
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return -errno;
    if (start_time != 0) {
        r = process_start_time(pid, &now);
        if (r < 0)
            return r;
        if (now != start_time)
            return -ESRCH;
    }
    *ret_pidfd = TAKE_FD(fd);
    return 0;
}

char *process_status_string(int status)
{
    if (WIFEXITED(status))
        return string_printf("exit status %i", WEXITSTATUS(status));
    if (WIFSIGNALED(status))
        return string_printf("signal %i (%s)", WTERMSIG(status), sigdescr_np(WTERMSIG(status)) ?: "unknown");
    return string_printf("wait status %#x", (unsigned)status);
}
