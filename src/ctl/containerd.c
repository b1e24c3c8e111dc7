/* SPDX-License-Identifier: MIT */

#include "ctl/containerd.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "ctl/command.h"

#define RUNTIME_TYPE "io.containerd.cloudhv.v1"
#define ANNOTATIONS "io.cloudhv."

enum {
    PROC_MAX = 1 << 20,
    DUMP_MAX = 4 << 20,
};

void containerd_clear(Containerd *containerd)
{
    free(containerd->binary);
    free(containerd->config);
    free(containerd->path);
    *containerd = (Containerd){0};
}

const char *containerd_config_argument(const char *cmdline, size_t n)
{
    static const char *const names[] = {"--config", "-config", "-c", "--c"};
    const char *found = NULL;

    for (const char *p = cmdline, *end = cmdline + n; p < end; p += strlen(p) + 1)
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
            size_t k = strlen(names[i]);

            if (strncmp(p, names[i], k) != 0)
                continue;
            /* The last one counts. */
            if (p[k] == '=')
                found = p + k + 1;
            else if (p[k] == 0 && p + k + 1 < end)
                found = p + k + 1;
        }
    return found && *found ? found : NULL;
}

/* The value of a variable in an environment as /proc has it. */
static const char *environment_get(const char *environment, size_t n, const char *name)
{
    size_t k = strlen(name);

    for (const char *p = environment, *end = environment + n; p < end; p += strlen(p) + 1)
        if (strncmp(p, name, k) == 0 && p[k] == '=')
            return p + k + 1;
    return NULL;
}

static int read_process_file(pid_t pid, const char *name, char **ret, size_t *ret_size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%i/%s", pid, name);
    return fs_read_file(path, PROC_MAX, ret, ret_size);
}

static int read_process(Containerd *c)
{
    _cleanup_free_ char *cmdline = NULL, *environment = NULL;
    size_t n_cmdline, n_environment;
    char path[64], exe[PATH_MAX];
    const char *value;
    ssize_t k;
    int r;

    snprintf(path, sizeof(path), "/proc/%i/exe", c->pid);
    k = readlink(path, exe, sizeof(exe) - 1);
    if (k < 0)
        return -errno;
    exe[k] = 0;
    r = read_process_file(c->pid, "cmdline", &cmdline, &n_cmdline);
    if (r >= 0)
        r = read_process_file(c->pid, "environ", &environment, &n_environment);
    if (r < 0)
        return r;
    c->binary = strdup(exe);
    value = containerd_config_argument(cmdline, n_cmdline);
    c->config = value ? strdup(value) : NULL;
    if (value && !c->config)
        return -ENOMEM;
    c->path = strdup(environment_get(environment, n_environment, "PATH") ?: "");
    c->has_dropin = environment_get(environment, n_environment, "CLOUDHV_CONTAINERD_CONFIG") != NULL;
    return c->binary && c->path ? 0 : -ENOMEM;
}

int containerd_find(const char *socket, Containerd *ret, Error *e)
{
    _cleanup_containerd_ Containerd c = {0};
    _cleanup_close_ int fd = fd_connect_unix(socket);
    struct ucred peer;
    socklen_t n = sizeof(peer);
    int r;

    if (fd < 0)
        return error_set_errno(e, fd, "cannot reach containerd at %s", socket);
    /* Of a listening socket's other side: the process that called listen(2). */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return error_set_errno(e, -errno, "cannot tell who listens on %s", socket);
    c.pid = peer.pid;
    r = read_process(&c);
    if (r < 0)
        return error_set_errno(e, r, "cannot look at process %i, which listens on %s", peer.pid, socket);
    *ret = c;
    c = (Containerd){0};
    return 0;
}

/* Whether a line is the header of the runtime's table: "[plugins.….containerd.runtimes.NAME]", where the name
 * may be quoted. */
static bool is_runtime_header(const char *line, size_t n, const char *name)
{
    static const char before[] = ".containerd.runtimes.";
    const char *p = memmem(line, n, before, strlen(before));
    size_t k = strlen(name);

    if (!p)
        return false;
    p += strlen(before);
    if (p < line + n && (*p == '"' || *p == '\''))
        p++;
    if ((size_t)(line + n - p) <= k || strncmp(p, name, k) != 0)
        return false;
    p += k;
    if (*p == '"' || *p == '\'')
        p++;
    return p < line + n && *p == ']';
}

static bool line_has(const char *line, size_t n, const char *key, const char *value)
{
    return strncmp(line, key, strlen(key)) == 0 && memmem(line, n, value, strlen(value));
}

ContainerdRuntime containerd_dump_runtime(const char *dump, const char *name)
{
    ContainerdRuntime found = {0};
    bool inside = false;

    for (const char *line = dump; *line;) {
        size_t n = strcspn(line, "\n"), blank = strspn(line, " \t");
        const char *next = line + n + (line[n] == '\n');

        line += blank;
        n -= blank;
        if (*line == '[') {
            inside = is_runtime_header(line, n, name);
            found.found = found.found || inside;
            if (memmem(line, n, "io.containerd.cri.v1.runtime", 28) ||
                memmem(line, n, "io.containerd.grpc.v1.cri", 25))
                found.cri = true;
        } else if (inside) {
            found.type_ours = found.type_ours || line_has(line, n, "runtime_type", RUNTIME_TYPE);
            found.annotations = found.annotations || line_has(line, n, "pod_annotations", ANNOTATIONS);
        }
        line = next;
    }
    return found;
}

int containerd_dump(const Containerd *containerd, char **ret, Error *e)
{
    const char *argv[] = {containerd->binary, "--config", containerd->config ?: "/etc/containerd/config.toml",
                          "config",           "dump",     NULL};

    /* Release 1.x dumps nothing where the default file is missing. */
    if (!containerd->config && access(argv[2], F_OK) < 0) {
        argv[1] = "config";
        argv[2] = "default";
        argv[3] = NULL;
    }
    return command_output(argv, DUMP_MAX, 20 * USEC_PER_SEC, ret, e);
}
