/* SPDX-License-Identifier: MIT */

#include "image/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "image/scratch.h"

#define ERRORS_MAX 4096
#define ADDRESS_SPACE_MAX (4ULL << 30)
#define IMAGE_UUID "7d6f1c0e-3a52-4a3c-9e63-2f1b8f0c5d11"
#define SCRATCH_UUID "1f0c5d11-9e63-4a3c-3a52-7d6f1c0e2f1b"

typedef struct Confinement {
    const ConfinedLimits *limits;
    const Layers *layers; /* NULL: no view is made */
    bool with_upper;
    const char *program, *out, *place;
} Confinement;

static int set_limit(int resource, uint64_t value)
{
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

    return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

static int set_limits(const ConfinedLimits *limits)
{
    int r;

    if ((r = set_limit(RLIMIT_FSIZE, limits->file_size)) < 0 ||
        (r = set_limit(RLIMIT_AS, ADDRESS_SPACE_MAX)) < 0 ||
        (r = set_limit(RLIMIT_CPU, limits->timeout_usec / USEC_PER_SEC + 1)) < 0 ||
        (r = set_limit(RLIMIT_CORE, 0)) < 0 || (r = set_limit(RLIMIT_NOFILE, 256)) < 0)
        return r;
    return 0;
}

/* Leaves root for `uid` and keeps `keep` (a capability, or -1 for none) over the exec. */
static int drop_privileges(uid_t uid, int keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    for (int c = 0; c <= CAP_LAST_CAP; c++)
        if (c != keep && prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL)
            return -errno;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        return -errno;
    if (keep >= 0)
        data[keep / 32].permitted = data[keep / 32].effective = data[keep / 32].inheritable = 1U
                                                                                              << (keep % 32);
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    if (keep >= 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, keep, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* Binds a descriptor's file to an empty file of the new root. */
static int bind_file(int fd, const char *name, bool read_only)
{
    char source[64];
    int target = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (target < 0)
        return -errno;
    fd_close(target);
    snprintf(source, sizeof(source), "/proc/self/fd/%i", fd);
    if (mount(source, name, NULL, MS_BIND, NULL) < 0)
        return -errno;
    if (read_only &&
        mount(NULL, name, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        return -errno;
    return 0;
}

/* Mounts the view of the layers. They are named by descriptors: a hundred paths would not fit a page, which
 * is all that mount(2) takes. An empty directory at the bottom makes an overlay of a single layer possible.
 */
static int mount_view(const Confinement *c)
{
    _cleanup_free_ char *options = NULL;
    size_t n = 0, size = (c->layers->n_lower + 2) * 24 + 64;
    int r = 0;

    if (mkdir("view", 0755) < 0 || mkdir("empty", 0755) < 0)
        return -errno;
    options = malloc(size);
    if (!options)
        return -ENOMEM;
    n = (size_t)snprintf(options, size, "lowerdir=");
    for (size_t i = 0; i <= c->layers->n_lower; i++) {
        const char *path = i == 0 ? (c->with_upper ? c->layers->upper : NULL) : c->layers->lower[i - 1];
        int fd;

        if (!path)
            continue;
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        n += (size_t)snprintf(options + n, size - n, "/proc/self/fd/%i:", fd);
    }
    snprintf(options + n, size - n, "empty");
    if (mount("overlay", "view", "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
        r = -errno;
    return r;
}

/* A root of its own: a small tmpfs with view, program and output, and nothing else of the host. The files are
 * opened in the new mount namespace, since a bind cannot take them from another, and before the tmpfs may
 * hide them. */
static int make_root(const Confinement *c)
{
    _cleanup_close_ int program = -EBADF, out = -EBADF;
    int r;

    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    program = open(c->program, O_PATH | O_CLOEXEC);
    out = open(c->out, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (program < 0 || out < 0)
        return -errno;
    if (mount("tmpfs", c->place, "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=755") < 0 ||
        chdir(c->place) < 0 || mkdir("tmp", 0755) < 0 || chmod("tmp", 01777) < 0)
        return -errno;
    if ((r = bind_file(program, "mkfs.erofs", true)) < 0 || (r = bind_file(out, "out", false)) < 0 ||
        (r = mount_view(c)) < 0)
        return r;
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return -errno;
    return 0;
}

static int prepare_mkfs_erofs(void *userdata)
{
    const Confinement *c = userdata;
    int r;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    if ((r = make_root(c)) < 0 || (r = set_limits(c->limits)) < 0 ||
        (r = drop_privileges(c->limits->uid, CAP_DAC_READ_SEARCH)) < 0)
        return r;
    /* Changing the uid has reset it. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}

static int prepare_mke2fs(void *userdata)
{
    const Confinement *c = userdata;
    int r;

    if (unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0)
        return -errno;
    if ((r = set_limits(c->limits)) < 0 || (r = drop_privileges(c->limits->uid, -1)) < 0)
        return r;
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
}

/* Waits for the end, collecting at most ERRORS_MAX bytes of what is written to the pipe. */
static int wait_for(int pidfd, int pipe_fd, uint64_t timeout_usec, char text[static ERRORS_MAX],
                    int *ret_status)
{
    uint64_t deadline = loop_now() + timeout_usec;
    struct pollfd fds[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = pipe_fd, .events = POLLIN}};
    size_t n = 0;

    for (;;) {
        uint64_t now = loop_now();
        char drain[512];
        ssize_t k;

        if (now >= deadline)
            return -ETIMEDOUT;
        if (poll(fds, 2, (int)((deadline - now) / USEC_PER_MSEC) + 1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents) {
            k = n < ERRORS_MAX - 1 ? read(pipe_fd, text + n, ERRORS_MAX - 1 - n)
                                   : read(pipe_fd, drain, sizeof(drain));
            if (k > 0 && n < ERRORS_MAX - 1)
                n += (size_t)k;
            if (k <= 0)
                fds[1].fd = -1;
            text[n] = 0;
            continue;
        }
        if (fds[0].revents)
            return process_reap(pidfd, ret_status) == 1 ? 0 : -ECHILD;
    }
}

/* The last line that says something. */
static const char *last_line(char *text)
{
    size_t n = strlen(text);
    char *line;

    while (n > 0 && strchr(" \t\r\n", text[n - 1]))
        text[--n] = 0;
    line = strrchr(text, '\n');
    return line ? line + 1 : text;
}

static int run(const char *what, const ProcessSpec *spec, int pipe_fds[static 2],
               const ConfinedLimits *limits, Error *e)
{
    _cleanup_close_ int pidfd = -EBADF, read_end = pipe_fds[0];
    char text[ERRORS_MAX] = "";
    int status = 0, r;
    pid_t pid;

    r = process_spawn(spec, &pid, &pidfd, e);
    fd_close(pipe_fds[1]);
    if (r < 0)
        return error_prefix(e, "%s", what);
    r = wait_for(pidfd, read_end, limits->timeout_usec, text, &status);
    if (r < 0) {
        (void)process_kill(pidfd, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        if (r == -ETIMEDOUT)
            return error_set(e, r, "%s did not end within %llu seconds", what,
                             (unsigned long long)(limits->timeout_usec / USEC_PER_SEC));
        return error_set_errno(e, r, "cannot wait for %s", what);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ)
        return error_set(e, -EFBIG, "%s: the result would be larger than %llu MiB", what,
                         (unsigned long long)limits->file_size >> 20);
    {
        _cleanup_free_ char *how = process_status_string(status);

        return error_set(e, strstr(text, "No space left on device") ? -ENOSPC : -EIO, "%s failed with %s: %s",
                         what, how ?: "an error", last_line(text));
    }
}

int confined_mkfs_erofs(const char *program, const Layers *layers, bool with_upper, const char *out,
                        const char *place, const ConfinedLimits *limits, Error *e)
{
    static const char *const argv[] = {"/mkfs.erofs", "--quiet",       "-T0",
                                       "--mkfs-time", "-U" IMAGE_UUID, "--exclude-path=" SCRATCH_FILE_NAME,
                                       "/out",        "/view",         NULL};
    static const char *const environment[] = {"TMPDIR=/tmp", NULL};
    Confinement c = {.limits = limits,
                     .layers = layers,
                     .with_upper = with_upper,
                     .program = program,
                     .out = out,
                     .place = place};
    int pipe_fds[2];

    if (access(program, X_OK) < 0)
        return error_set_errno(e, -errno, "cannot execute %s (mkfs_erofs_binary)", program);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot run mkfs.erofs");
    return run("mkfs.erofs",
               &(ProcessSpec){.argv = argv,
                              .environment = environment,
                              .stdin_fd = -1,
                              .stdout_fd = -1,
                              .stderr_fd = pipe_fds[1],
                              .prepare = prepare_mkfs_erofs,
                              .userdata = &c},
               pipe_fds, limits, e);
}

int confined_mke2fs(const char *program, int fd, const ConfinedLimits *limits, Error *e)
{
    char path[64];
    /* No journal: the file system ends with its VM, there is nothing to recover. */
    const char *const argv[] = {program,
                                "-q",
                                "-F",
                                "-t",
                                "ext4",
                                "-b",
                                "4096",
                                "-m",
                                "0",
                                "-O",
                                "^has_journal,^resize_inode",
                                "-E",
                                "lazy_itable_init=1,nodiscard,root_owner=0:0",
                                "-U",
                                SCRATCH_UUID,
                                path,
                                NULL};
    Confinement c = {.limits = limits};
    int pipe_fds[2];

    snprintf(path, sizeof(path), "/proc/self/fd/%i", fd);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_set_errno(e, -errno, "cannot run mke2fs");
    return run("mke2fs",
               &(ProcessSpec){.argv = argv,
                              .stdin_fd = -1,
                              .stdout_fd = -1,
                              .stderr_fd = pipe_fds[1],
                              .pass_fds = &fd,
                              .n_pass_fds = 1,
                              .prepare = prepare_mke2fs,
                              .userdata = &c},
               pipe_fds, limits, e);
}
