/* SPDX-License-Identifier: MIT */

#include "shim/start.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/process.h"
#include "base/trace.h"
#include "oci/bundle.h"
#include "shim/address.h"
#include "shim/bootstrap.h"
#include "shim/containerd-version.h"
#include "shim/server.h"

#define VERSION_CACHE_DIR "/run/cloudhv/containerd-version"

static int read_input(const ShimOptions *o, Bootstrap *ret, Error *e)
{
    _cleanup_free_ char *data = NULL;
    size_t n = 0;
    int r;

    r = fd_read_all(STDIN_FILENO, BOOTSTRAP_INPUT_MAX, &data, &n);
    if (r < 0)
        return error_set_errno(e, r, "cannot read containerd's parameters from standard input");
    return bootstrap_parse(data, n, o->id, o->namespace, ret, e);
}

/* Whose shim serves this bundle's container. */
static int find_group(const ShimOptions *o, char **ret, bool *ret_own, Error *e)
{
    _cleanup_bundle_ Bundle *bundle = NULL;
    const char *group;
    int r;

    r = bundle_load(".", &bundle, e);
    if (r < 0)
        return r;
    *ret_own = bundle->kind != BUNDLE_CONTAINER;
    group = *ret_own ? o->id : bundle->sandbox_id;
    *ret = strdup(group);
    return *ret ? 0 : error_set_errno(e, -ENOMEM, "cannot read the bundle");
}

/* Under 1.6 containerd finds the shim again by this file; later releases write a file of their own. */
static int write_address(const char *address, Error *e)
{
    int r = fs_write_file_atomic("address", address, strlen(address), 0600);

    return r < 0 ? error_set_errno(e, r, "cannot write the file \"address\" of the bundle") : 0;
}

static int print_answer(const ShimOptions *o, const Bootstrap *b, const char *address, Error *e)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_error_ Error version_error = ERROR_INIT;
    unsigned major = 0;
    size_t n = 0;
    int r;

    /* 1.6, which sets no such variable, needs not be asked. What can't be found out means the bare address, which
     * every release before 2.3 takes; nothing may be printed about it. */
    if (!b->params && getenv("MAX_SHIM_VERSION"))
        major = containerd_version_major(VERSION_CACHE_DIR, o->publish_binary, &version_error);
    r = bootstrap_answer(bootstrap_choose(b, major), address, &text, &n);
    if (r >= 0)
        r = fd_write_full(STDOUT_FILENO, text, n);
    return r < 0 ? error_set_errno(e, r, "cannot print the shim's address") : 0;
}

static bool is_served(const char *socket_path)
{
    _cleanup_close_ int fd = fd_connect_unix(socket_path);

    return fd >= 0;
}

/* A shim is killed later than its containers, but before containerd, as runc's does. */
static void adjust_oom_score(pid_t parent)
{
    _cleanup_free_ char *path = string_printf("/proc/%i/oom_score_adj", (int)parent), *text = NULL;
    char value[32];
    long score;

    if (!path || fs_read_file(path, 64, &text, NULL) < 0)
        return;
    score = strtol(text, NULL, 10);
    snprintf(value, sizeof(value), "%li", score >= 1000 ? 1000 : score + 1);
    (void)fs_write_existing("/proc/self/oom_score_adj", value);
}

/* Leaves the child with nothing of containerd's but its working directory: standard descriptors on /dev/null, the
 * pipe to the parent on 3, a session of its own: in a mere process group, which the parent's end would leave an orphan,
 * a server that is just stopped would get SIGHUP. */
static int detach(int pipe_fd)
{
    int null_fd = open("/dev/null", O_RDWR | O_NOCTTY);

    if (null_fd < 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        if (dup2(null_fd, i) < 0)
            return -errno;
    if (pipe_fd != 3 && dup2(pipe_fd, 3) < 0)
        return -errno;
    if (syscall(SYS_close_range, 4U, ~0U, 0U) < 0)
        return -errno;
    (void)fd_set_cloexec(3, true);
    if (setsid() < 0)
        return -errno;
    return 3;
}

_Noreturn static void child_main(const ServerSpec *spec, int pipe_fd, pid_t containerd)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ServerSpec s = *spec;
    int r = detach(pipe_fd);

    if (r < 0) {
        dprintf(pipe_fd, "cannot detach from containerd: %s", strerrordesc_np(-r));
        _exit(1);
    }
    s.starter_fd = r;
    adjust_oom_score(containerd);
    _exit(server_run(&s) < 0 ? 1 : 0);
}

/* Reads what the child says: one NUL byte when it listens, or the text of an error. */
static int await_child(int fd, Error *e)
{
    char text[2048];
    ssize_t n = fd_read_full(fd, text, 1);

    if (n == 1 && text[0] == 0)
        return 0;
    if (n == 1) {
        n = fd_read_full(fd, text + 1, sizeof(text) - 2);
        text[1 + (n > 0 ? n : 0)] = 0;
        return error_set(e, -EIO, "%s", text);
    }
    return error_set(e, -EIO, "the shim's server ended before it listened");
}

static int start_server(const ShimOptions *o, const Bootstrap *b, const ServerSpec *spec, const char *address, Error *e)
{
    _cleanup_close_ int pipe_fd = -EBADF;
    pid_t containerd = getppid(), pid;
    int fds[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return error_set_errno(e, -errno, "cannot make a socket pair");
    pid = fork();
    if (pid < 0) {
        r = -errno;
        close(fds[0]);
        close(fds[1]);
        return error_set_errno(e, r, "cannot fork the shim's server");
    }
    if (pid == 0) {
        close(fds[0]);
        child_main(spec, fds[1], containerd);
    }
    close(fds[1]);
    pipe_fd = fds[0];
    TRACE("shim.start.forked");
    r = await_child(pipe_fd, e);
    if (r >= 0)
        r = write_address(address, e);
    if (r >= 0)
        r = print_answer(o, b, address, e);
    TRACE("shim.start.address-printed");
    /* The word that lets the child go on. */
    if (r >= 0 && send(pipe_fd, "", 1, MSG_NOSIGNAL) != 1)
        r = error_set(e, -EPIPE, "the shim's server ended while it was started");
    TRACE("shim.start.released");
    if (r >= 0)
        return 0;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    (void)unlink(spec->socket);
    return r;
}

int start_run(const ShimOptions *o, Error *e)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    _cleanup_free_ char *group = NULL, *socket_path = NULL, *address = NULL, *directory = NULL, *ttrpc = NULL;
    bool own = false;
    int r;

    r = read_input(o, &b, e);
    if (r >= 0)
        r = find_group(o, &group, &own, e);
    if (r >= 0)
        r = address_socket_path(b.socket_dir, o->address, o->namespace, group, &socket_path, e);
    if (r < 0)
        return r;
    address = string_printf("unix://%s", socket_path);
    directory = getcwd(NULL, 0);
    ttrpc = b.ttrpc_address || getenv("TTRPC_ADDRESS") ? strdup(b.ttrpc_address ?: getenv("TTRPC_ADDRESS"))
                                                       : string_printf("%s.ttrpc", o->address ?: "");
    if (!address || !directory || !ttrpc)
        return error_set_errno(e, -ENOMEM, "cannot start the shim");
    if (is_served(socket_path)) {
        r = write_address(address, e);
        return r < 0 ? r : print_answer(o, &b, address, e);
    }
    if (!own)
        return error_set(e, -ESRCH, "the shim of the sandbox %s, which container %s belongs to, does not run", group,
                         o->id);
    ServerSpec spec = {
        .namespace = o->namespace,
        .id = o->id,
        .bundle = directory,
        .socket = socket_path,
        .ttrpc_address = ttrpc,
        .debug = o->debug || b.debug,
    };
    return start_server(o, &b, &spec, address, e);
}
