/* SPDX-License-Identifier: MIT */

#include "sandbox/uid.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/process.h"

#define KILL_TIMEOUT_USEC (5 * USEC_PER_SEC)

static void link_path(uid_t uid, char ret[static PATH_MAX])
{
    snprintf(ret, PATH_MAX, "%s/%u", UID_REGISTRY, uid);
}

int uid_take(uid_t base, unsigned count, const char *owner, uid_t *ret, Error *e)
{
    int r = fs_mkdir_p(UID_REGISTRY, 0700);

    if (r < 0)
        return error_set_errno(e, r, "cannot make %s", UID_REGISTRY);
    for (unsigned i = 0; i < count; i++) {
        char path[PATH_MAX];

        link_path(base + i, path);
        if (symlink(owner, path) >= 0) {
            *ret = base + i;
            return 0;
        }
        if (errno != EEXIST)
            return error_set_errno(e, -errno, "cannot make %s", path);
    }
    return error_set(e, -EUSERS, "all %u uids for VMs, from %u on, are taken (%s)", count, base,
                     UID_REGISTRY);
}

bool uid_belongs(uid_t uid, const char *owner)
{
    char path[PATH_MAX], target[PATH_MAX];
    ssize_t n;

    link_path(uid, path);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0)
        return false;
    target[n] = 0;
    return strcmp(target, owner) == 0;
}

void uid_give(uid_t uid, const char *owner)
{
    char path[PATH_MAX];

    link_path(uid, path);
    if (uid_belongs(uid, owner))
        (void)unlink(path);
}

int uid_move(uid_t uid, const char *from, const char *to)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    int r;

    if (!uid_belongs(uid, from))
        return -ESTALE;
    link_path(uid, path);
    /* Not a number, so that nobody takes it for a uid's. One that is left by a crash is replaced. */
    snprintf(temporary, sizeof(temporary), UID_REGISTRY "/.%u", uid);
    (void)unlink(temporary);
    if (symlink(to, temporary) < 0)
        return -errno;
    if (rename(temporary, path) >= 0)
        return 0;
    r = -errno;
    (void)unlink(temporary);
    return r;
}

int uid_find(const char *owner, uid_t *ret)
{
    _cleanup_closedir_ DIR *dir = opendir(UID_REGISTRY);
    struct dirent *de;

    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((de = readdir(dir))) {
        char *end;
        unsigned long uid = strtoul(de->d_name, &end, 10);

        if (*end || end == de->d_name || !uid_belongs((uid_t)uid, owner))
            continue;
        *ret = (uid_t)uid;
        return 1;
    }
    return 0;
}

/* Whether /proc/PID belongs to `uid`: the directory's owner is the process's effective uid unless the process
 * is not dumpable, so the status file is asked. */
static bool process_has_uid(pid_t pid, uid_t uid)
{
    _cleanup_free_ char *text = NULL;
    char path[64];
    const char *line;
    unsigned real;

    snprintf(path, sizeof(path), "/proc/%i/status", pid);
    if (fs_read_file(path, 16384, &text, NULL) < 0)
        return false;
    line = strstr(text, "\nUid:");
    return line && sscanf(line, "\nUid: %u", &real) == 1 && real == uid;
}

static int kill_all(uid_t uid, uint64_t timeout_usec)
{
    _cleanup_closedir_ DIR *dir = opendir("/proc");
    uint64_t deadline = loop_now() + timeout_usec;
    struct dirent *de;
    int n = 0;

    if (!dir)
        return -errno;
    while ((de = readdir(dir))) {
        _cleanup_close_ int pidfd = -EBADF;
        char *end;
        long pid = strtol(de->d_name, &end, 10);
        struct pollfd p;
        uint64_t now;

        if (*end || pid <= 1 || process_open((pid_t)pid, 0, &pidfd) < 0 || !process_has_uid((pid_t)pid, uid))
            continue;
        n++;
        (void)process_kill(pidfd, SIGKILL);
        p = (struct pollfd){.fd = pidfd, .events = POLLIN};
        now = loop_now();
        if (poll(&p, 1, now < deadline ? (int)((deadline - now) / USEC_PER_MSEC) : 0) <= 0)
            return -ETIMEDOUT;
    }
    return n;
}

int uid_kill(uid_t uid, const char *owner, uint64_t timeout_usec)
{
    return uid_belongs(uid, owner) ? kill_all(uid, timeout_usec) : 0;
}

int uid_reclaim(const char *state_dir)
{
    _cleanup_closedir_ DIR *dir = opendir(UID_REGISTRY);
    size_t n_dir = strlen(state_dir);
    struct dirent *de;

    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((de = readdir(dir))) {
        char target[PATH_MAX], *end;
        unsigned long uid = strtoul(de->d_name, &end, 10);
        ssize_t n;

        if (*end || end == de->d_name)
            continue;
        n = readlinkat(dirfd(dir), de->d_name, target, sizeof(target) - 1);
        if (n < 0)
            continue;
        target[n] = 0;
        if (strncmp(target, state_dir, n_dir) != 0 || target[n_dir] != '/' || access(target, F_OK) >= 0)
            continue;
        (void)kill_all((uid_t)uid, KILL_TIMEOUT_USEC);
        (void)unlinkat(dirfd(dir), de->d_name, 0);
    }
    return 0;
}
