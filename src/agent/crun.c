/* SPDX-License-Identifier: MIT */

#include "agent/crun.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "agent/names.h"
#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"

enum {
    CRUN_ARGUMENTS_MAX = 24,
    CRUN_LOG_MAX = 64 * 1024,
    CRUN_MESSAGE_MAX = 1024,
    CRUN_FILES_SOFT = 1024,
};

typedef struct CrunRun {
    Reaper *reaper;
    int pidfd;
    bool timed_out;
    char *log_path;
    char *verb;
    LoopSource *timer;
    CrunDoneFn done;
    void *userdata;
} CrunRun;

static CrunRun *crun_run_free(CrunRun *run)
{
    loop_source_free(run->timer);
    fd_close(run->pidfd);
    free(run->log_path);
    free(run->verb);
    free(run);
    return NULL;
}
DEFINE_CLEANUP_FUNC(CrunRun *, crun_run_free)

const char *crun_log_message(char *text)
{
    size_t n = strlen(text);
    char *line;

    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        text[--n] = 0;
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    if (strlen(line) > CRUN_MESSAGE_MAX)
        line[CRUN_MESSAGE_MAX] = 0;
    /* The name of a program or a path in the image may hold anything. */
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    return line;
}

static void on_timeout(LoopSource *source, void *userdata)
{
    CrunRun *run = userdata;

    run->timed_out = true;
    (void)process_kill(run->pidfd, SIGKILL);
}

static void on_end(pid_t pid, int status, uint64_t ended_nsec, void *userdata)
{
    _cleanup_(crun_run_freep) CrunRun *run = userdata;
    _cleanup_free_ char *log = NULL, *message = NULL, *how = NULL;
    const char *text = "";

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        run->done(0, NULL, run->userdata);
        return;
    }
    if (fs_read_file(run->log_path, CRUN_LOG_MAX, &log, NULL) >= 0)
        text = crun_log_message(log);
    if (run->timed_out) {
        message = string_printf("crun %s took too long and was killed", run->verb);
        run->done(-ETIMEDOUT, message ?: "crun took too long", run->userdata);
        return;
    }
    how = process_status_string(status);
    message = string_printf("crun %s failed: %s", run->verb, text[0] ? text : how ?: "unknown status");
    run->done(-EIO, message ?: "crun failed", run->userdata);
}

/* The agent is exempt from the guest's OOM killer; what it starts must not be. Containers whose spec names no
 * limit of open files inherit this one, the same that systemd gives to services. */
static int child_prepare(void *userdata)
{
    struct rlimit files;
    int r;

    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return -errno;
    if (files.rlim_cur > CRUN_FILES_SOFT) {
        files.rlim_cur = CRUN_FILES_SOFT;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0)
            return -errno;
    }
    r = fs_write_existing("/proc/self/oom_score_adj", "0");
    return r == -ENOENT ? 0 : r;
}

static int crun_spawn(const CrunCommand *command, pid_t *ret_pid, int *ret_pidfd, Error *e)
{
    const char *argv[CRUN_ARGUMENTS_MAX] = {
        "crun", "--root", AGENT_CRUN_DIR, "--log", command->log_path, "--log-format", "text",
        "--cgroup-manager", "cgroupfs",
    };
    size_t n = 0;

    while (argv[n])
        n++;
    for (size_t i = 0; command->arguments[i]; i++) {
        if (n >= CRUN_ARGUMENTS_MAX - 1)
            return error_set(e, -E2BIG, "too many arguments for crun");
        argv[n++] = command->arguments[i];
    }
    return process_spawn(&(const ProcessSpec){.argv = argv,
                                              .stdin_fd = command->stdin_fd,
                                              .stdout_fd = command->stdout_fd,
                                              .stderr_fd = command->stderr_fd,
                                              .prepare = child_prepare},
                         ret_pid, ret_pidfd, e);
}

int crun_run(Reaper *reaper, const CrunCommand *command, CrunDoneFn done, void *userdata, Error *e)
{
    _cleanup_(crun_run_freep) CrunRun *run = calloc(1, sizeof(*run));
    pid_t pid;
    int r;

    if (!run)
        return error_set(e, -ENOMEM, "out of memory");
    *run = (CrunRun){.reaper = reaper, .pidfd = -EBADF, .done = done, .userdata = userdata};
    run->log_path = strdup(command->log_path);
    run->verb = strdup(command->arguments[0]);
    if (!run->log_path || !run->verb)
        return error_set(e, -ENOMEM, "out of memory");
    if (unlink(command->log_path) < 0 && errno != ENOENT)
        return error_set_errno(e, -errno, "cannot remove %s", command->log_path);
    r = loop_add_timer(reaper_loop(reaper), command->timeout_usec, on_timeout, run, &run->timer);
    if (r < 0)
        return error_set_errno(e, r, "cannot set a deadline for crun");
    r = crun_spawn(command, &pid, &run->pidfd, e);
    if (r < 0)
        return r;
    r = reaper_watch(reaper, pid, on_end, run);
    if (r < 0) {
        (void)process_kill(run->pidfd, SIGKILL);
        return error_set_errno(e, r, "cannot watch crun");
    }
    (void)TAKE_PTR(run);
    return 0;
}
