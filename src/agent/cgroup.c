/* SPDX-License-Identifier: MIT */

#include "agent/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/names.h"
#include "base/fd.h"
#include "base/fs.h"

enum {
    CGROUP_FILE_MAX = 16 * 1024,
    CGROUP_PROCS_MAX = 1024 * 1024,
    CGROUP_DEPTH_MAX = 32, /* a container may nest its own; deeper ones are killed but not listed */
    CGROUP_SIGNAL_MAX = 65536,
};

struct CgroupWatch {
    int fd;
    LoopSource *source;
    LoopFn callback;
    void *userdata;
};

/* Enables every controller that the kernel has for the children of a cgroup, one by one: one that cannot be
 * (a realtime task in the way, say) does not cost the others. */
static int enable_controllers(const char *directory, Error *e)
{
    _cleanup_free_ char *available = fs_join(directory, "cgroup.controllers"),
                        *control = fs_join(directory, "cgroup.subtree_control"), *text = NULL;
    char *save = NULL;
    int r;

    if (!available || !control)
        return error_set(e, -ENOMEM, "out of memory");
    r = fs_read_file(available, CGROUP_FILE_MAX, &text, NULL);
    if (r < 0)
        return error_set_errno(e, r, "cannot read %s", available);
    for (char *name = strtok_r(text, " \n", &save); name; name = strtok_r(NULL, " \n", &save)) {
        _cleanup_free_ char *plus = string_printf("+%s", name);

        if (!plus)
            return error_set(e, -ENOMEM, "out of memory");
        r = fs_write_existing(control, plus);
        if (r < 0)
            return error_set_errno(e, r, "cannot enable the controller %s in %s", name, control);
    }
    return 0;
}

int cgroup_setup(Error *e)
{
    int r;

    r = enable_controllers(AGENT_CGROUP_MOUNT, e);
    if (r < 0)
        return r;
    if (mkdir(AGENT_CGROUP_MOUNT AGENT_CGROUP_PARENT, 0755) < 0 && errno != EEXIST)
        return error_set_errno(e, -errno, "cannot make the cgroup %s", AGENT_CGROUP_PARENT);
    return enable_controllers(AGENT_CGROUP_MOUNT AGENT_CGROUP_PARENT, e);
}

/* With a prefix, since an id might read "cgroup.procs". */
char *cgroup_spec_path(const char *id)
{
    return string_printf("%s/ctr-%s", AGENT_CGROUP_PARENT, id);
}

char *cgroup_directory(const char *id)
{
    return string_printf("%s%s/ctr-%s", AGENT_CGROUP_MOUNT, AGENT_CGROUP_PARENT, id);
}

int cgroup_kill(const char *directory)
{
    _cleanup_free_ char *path = fs_join(directory, "cgroup.kill");
    int r;

    if (!path)
        return -ENOMEM;
    r = fs_write_existing(path, "1");
    return r == -ENOENT || r == -ENODEV ? 0 : r;
}

typedef struct PidList {
    pid_t *pids;
    size_t n, allocated, max;
} PidList;

static int pid_list_add(PidList *list, pid_t pid)
{
    if (list->n >= list->max)
        return -E2BIG;
    if (list->n == list->allocated) {
        size_t want = list->allocated ? list->allocated * 2 : 16;
        pid_t *p = realloc(list->pids, want * sizeof(*p));

        if (!p)
            return -ENOMEM;
        list->pids = p;
        list->allocated = want;
    }
    list->pids[list->n++] = pid;
    return 0;
}

static int collect_procs(int dir_fd, PidList *list)
{
    _cleanup_close_ int fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    _cleanup_free_ char *text = NULL;
    char *save = NULL;
    int r;

    if (fd < 0)
        return -errno;
    r = fd_read_all(fd, CGROUP_PROCS_MAX, &text, NULL);
    /* A threaded cgroup lists its processes in the one above it. */
    if (r == -EOPNOTSUPP)
        return 0;
    if (r < 0)
        return r;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(line, NULL, 10);

        if (pid <= 0)
            continue;
        r = pid_list_add(list, (pid_t)pid);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Visits a cgroup and those below it; takes the descriptor. */
static int collect_tree(int dir_fd, unsigned depth, PidList *list)
{
    _cleanup_closedir_ DIR *dir = NULL;
    struct dirent *de;
    int r;

    r = collect_procs(dir_fd, list);
    if (r < 0 || depth == CGROUP_DEPTH_MAX) {
        close(dir_fd);
        return r;
    }
    dir = fdopendir(dir_fd);
    if (!dir) {
        r = -errno;
        close(dir_fd);
        return r;
    }
    while ((de = readdir(dir))) {
        int child;

        if (de->d_type != DT_DIR || de->d_name[0] == '.')
            continue;
        child = openat(dirfd(dir), de->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (child < 0)
            continue; /* removed meanwhile */
        r = collect_tree(child, depth + 1, list);
        if (r < 0 && r != -ENODEV && r != -ENOENT)
            return r;
    }
    return 0;
}

int cgroup_processes(const char *directory, size_t max, pid_t **ret, size_t *ret_n)
{
    PidList list = {.max = max};
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    r = collect_tree(fd, 0, &list);
    if (r < 0 && r != -E2BIG) {
        free(list.pids);
        return r;
    }
    *ret = list.pids;
    *ret_n = list.n;
    return 0;
}

int cgroup_signal(const char *directory, int signal)
{
    _cleanup_free_ pid_t *pids = NULL;
    size_t n;
    int r;

    r = cgroup_processes(directory, CGROUP_SIGNAL_MAX, &pids, &n);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    /* A number could be reused between the list and the signal; it would have to be by another container,
     * since all else in the guest is PID 1. */
    for (size_t i = 0; i < n; i++)
        if (pids[i] > 1 && kill(pids[i], signal) < 0 && errno != ESRCH)
            r = r ?: -errno;
    return r;
}

int cgroup_event_value(const char *text, const char *key, uint64_t *ret)
{
    size_t n = strlen(key);

    for (const char *line = text; line && *line;) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            unsigned long long value;
            char *end;

            errno = 0;
            value = strtoull(line + n + 1, &end, 10);
            if (errno || end == line + n + 1)
                return -EBADMSG;
            *ret = value;
            return 0;
        }
        line = strchr(line, '\n');
        if (line)
            line++;
    }
    return -ENOENT;
}

static int read_event(const char *directory, const char *file, const char *key, uint64_t *ret)
{
    _cleanup_free_ char *path = fs_join(directory, file), *text = NULL;
    int r;

    if (!path)
        return -ENOMEM;
    r = fs_read_file(path, CGROUP_FILE_MAX, &text, NULL);
    if (r < 0)
        return r;
    return cgroup_event_value(text, key, ret);
}

int cgroup_is_populated(const char *directory)
{
    uint64_t value = 0;
    int r = read_event(directory, "cgroup.events", "populated", &value);

    if (r == -ENOENT || r == -ENODEV)
        return 0;
    return r < 0 ? r : value != 0;
}

int cgroup_freeze(const char *directory, bool frozen)
{
    _cleanup_free_ char *path = fs_join(directory, "cgroup.freeze");

    return path ? fs_write_existing(path, frozen ? "1" : "0") : -ENOMEM;
}

bool cgroup_is_frozen(const char *directory)
{
    uint64_t value = 0;

    return read_event(directory, "cgroup.events", "frozen", &value) >= 0 && value != 0;
}

uint64_t cgroup_oom_kills(const char *directory)
{
    uint64_t value = 0;

    return read_event(directory, "memory.events", "oom_kill", &value) < 0 ? 0 : value;
}

/* Removes the cgroups below an open one; takes the descriptor. */
static int remove_below(int dir_fd, unsigned depth)
{
    _cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
    struct dirent *de;
    int r = 0;

    if (!dir) {
        r = -errno;
        close(dir_fd);
        return r;
    }
    while ((de = readdir(dir))) {
        int child;

        if (de->d_type != DT_DIR || de->d_name[0] == '.')
            continue;
        child = openat(dirfd(dir), de->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (child < 0)
            continue;
        if (depth < 256)
            (void)remove_below(child, depth + 1);
        else
            close(child);
        if (unlinkat(dirfd(dir), de->d_name, AT_REMOVEDIR) < 0 && errno != ENOENT)
            r = r ?: -errno;
    }
    return r;
}

int cgroup_remove(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    (void)remove_below(fd, 0);
    return rmdir(directory) < 0 && errno != ENOENT ? -errno : 0;
}

static void on_event(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    CgroupWatch *watch = userdata;
    char buffer[256];

    /* Reading arms the next event (kernfs). Of a cgroup that is gone it would report an error for ever, hence
     * edge-triggered. */
    (void)!pread(fd, buffer, sizeof(buffer), 0);
    watch->callback(source, watch->userdata);
}

int cgroup_watch_new(Loop *loop, const char *directory, LoopFn callback, void *userdata, CgroupWatch **ret)
{
    _cleanup_free_ char *path = fs_join(directory, "cgroup.events");
    _cleanup_free_ CgroupWatch *watch = malloc(sizeof(*watch));
    _cleanup_close_ int fd = -EBADF;
    char buffer[256];
    int r;

    if (!path || !watch)
        return -ENOMEM;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (pread(fd, buffer, sizeof(buffer), 0) < 0)
        return -errno;
    *watch = (CgroupWatch){.callback = callback, .userdata = userdata};
    r = loop_add_io(loop, fd, EPOLLPRI | EPOLLET, on_event, watch, &watch->source);
    if (r < 0)
        return r;
    watch->fd = TAKE_FD(fd);
    *ret = TAKE_PTR(watch);
    return 0;
}

CgroupWatch *cgroup_watch_free(CgroupWatch *watch)
{
    if (!watch)
        return NULL;
    loop_source_free(watch->source);
    fd_close(watch->fd);
    free(watch);
    return NULL;
}
