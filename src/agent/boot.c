/* SPDX-License-Identifier: MIT */

#include "agent/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "agent/cgroup.h"
#include "agent/names.h"
#include "base/fs.h"
#include "base/log.h"

enum {
    /* Five descriptors for each container and four for each exec, at their most. crun gets less. */
    FILES_SOFT = 65536,
    FILES_HARD = 524288,
    /* Larger allocations (messages, pieces of streams) go back to the kernel when they are freed. */
    MALLOC_THRESHOLD = 32 * 1024,
    CMDLINE_MAX = 16 * 1024,
};

typedef struct BootMount {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
} BootMount;

static const BootMount boot_mounts[] = {
    {"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"},
    {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666,gid=5"},
    {"tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=32m"},
    {"cgroup2", AGENT_CGROUP_MOUNT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
     "nsdelegate,memory_recursiveprot"},
    /* Containers may write to trees that are mounted writable: the size bounds them all together. */
    {"cloudhv-trees", AGENT_TREES_DIR, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=25%,nr_inodes=32k"},
};

static bool is_mount_point(const char *path)
{
    _cleanup_free_ char *parent = fs_join(path, "..");
    struct stat here, above;

    return parent && stat(path, &here) >= 0 && stat(parent, &above) >= 0 && here.st_dev != above.st_dev;
}

static int boot_mount_one(const BootMount *m, Error *e)
{
    int r = fs_mkdir_p(m->target, 0755);

    if (r < 0)
        return error_set_errno(e, r, "cannot make %s", m->target);
    if (is_mount_point(m->target))
        return 0;
    if (mount(m->source, m->target, m->type, m->flags, m->options) < 0)
        return error_set_errno(e, -errno, "cannot mount %s on %s", m->type, m->target);
    return 0;
}

int boot_mount(Error *e)
{
    static const char *const directories[] = {AGENT_VOLUMES_DIR, AGENT_CONTAINERS_DIR, AGENT_CRUN_DIR};
    int r;

    for (size_t i = 0; i < ELEMENTSOF(boot_mounts); i++) {
        r = boot_mount_one(&boot_mounts[i], e);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < ELEMENTSOF(directories); i++) {
        r = fs_mkdir_p(directories[i], 0711);
        if (r < 0)
            return error_set_errno(e, r, "cannot make %s", directories[i]);
    }
    /* Mounts of a container must not come back to the agent. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_set_errno(e, -errno, "cannot make mounts private");
    return cgroup_setup(e);
}

static int standard_descriptors(void)
{
    int fd = open("/dev/null", O_RDWR | O_NOCTTY);

    if (fd < 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        if (fd != i && dup2(fd, i) < 0)
            return -errno;
    if (fd > 2)
        close(fd);
    return 0;
}

int boot_prepare_process(Error *e)
{
    const struct rlimit files = {.rlim_cur = FILES_SOFT, .rlim_max = FILES_HARD};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    int r;

    r = standard_descriptors();
    if (r < 0)
        return error_set_errno(e, r, "cannot open /dev/null");
    umask(0022);
    if (chdir("/") < 0 || sigaction(SIGPIPE, &ignore, NULL) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0 ||
        prctl(PR_SET_DUMPABLE, 0) < 0)
        return error_set_errno(e, -errno, "cannot set up the agent's process");
    r = fs_write_existing("/proc/self/oom_score_adj", "-1000");
    if (r < 0)
        return error_set_errno(e, r, "cannot protect the agent from the OOM killer");
    (void)mallopt(M_MMAP_THRESHOLD, MALLOC_THRESHOLD);
    (void)mallopt(M_TRIM_THRESHOLD, MALLOC_THRESHOLD);
    (void)reboot(RB_DISABLE_CAD);
    return 0;
}

bool boot_has_word(const char *cmdline, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = cmdline; *p;) {
        size_t k = strcspn(p, " \n");

        if (k == n && strncmp(p, word, n) == 0)
            return true;
        p += k;
        p += strspn(p, " \n");
    }
    return false;
}

void boot_setup_log(void)
{
    _cleanup_free_ char *cmdline = NULL;
    bool debug = fs_read_file("/proc/cmdline", CMDLINE_MAX, &cmdline, NULL) >= 0 &&
                 boot_has_word(cmdline, "cloudhv.debug");
    int fd = -EBADF;

    /* The kernel would drop more than ten messages in five seconds; there never are many. */
    (void)fs_write_existing("/proc/sys/kernel/printk_devkmsg", "on\n");
    if (!debug)
        fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) {
        log_setup(fd, LOG_INFO, true, "cloudhv-agent");
        return;
    }
    fd = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    log_setup(fd >= 0 ? fd : STDERR_FILENO, debug ? LOG_DEBUG : LOG_INFO, false, "cloudhv-agent");
}

_Noreturn void boot_end(bool restart)
{
    sync();
    (void)reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
    /* The kernel could not: the end of the first process ends the machine in any case. */
    _exit(0);
}
