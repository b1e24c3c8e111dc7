/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <linux/magic.h>
#include <linux/pkt_cls.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "ctl/check.h"
#include "ctl/command.h"
#include "net/netns.h"
#include "net/tap.h"
#include "net/tc.h"

enum { MESSAGE_MAX = 1024 };

static void check_kvm(CheckContext *context)
{
    const SandboxSettings *settings = &context->settings;

    if (!context->has_settings)
        return;
    if (settings->emulate)
        report_add(context->report, FINDING_NOTE, "kvm", NULL,
                   "VMs are emulated, which is slow and no security boundary: %s", settings->no_kvm_reason);
    else if (settings->no_kvm_reason)
        report_add(context->report, FINDING_FAIL, "kvm",
                   access("/dev/kvm", F_OK) < 0
                       ? "switch on virtualisation in the firmware, or nested virtualisation of the machine "
                         "that this one runs in, and load kvm_intel or kvm_amd"
                       : "run this host on other hardware or another type of machine; for tests, "
                         "\"allow_emulation\": true does without",
                   "%s", settings->no_kvm_reason);
    else if (settings->no_vmm_reason)
        report_add(context->report, FINDING_FAIL, "kvm", "set \"vmm\" in the configuration", "%s",
                   settings->no_vmm_reason);
    else
        report_add(context->report, FINDING_OK, "kvm", NULL, "/dev/kvm runs a guest");
}

/* mount_setattr(2), which confines VMMs, came last of what is needed. */
static void check_kernel(CheckContext *context)
{
    struct utsname name;
    unsigned major, minor;

    if (uname(&name) < 0 || version_parse(name.release, &major, &minor) < 0)
        return;
    if (major > 5 || (major == 5 && minor >= 12))
        report_add(context->report, FINDING_OK, "kernel", NULL, "Linux %s", name.release);
    else
        report_add(context->report, FINDING_FAIL, "kernel", "use Linux 5.12 or later", "Linux %s is too old",
                   name.release);
}

/* fsopen(2) loads the module, as a mount does. */
static void check_filesystem(CheckContext *context, const char *name, Finding missing, const char *remedy)
{
    _cleanup_close_ int fd = fsopen(name, FSOPEN_CLOEXEC);

    if (fd >= 0)
        report_add(context->report, FINDING_OK, name, NULL, "the kernel has the file system");
    else
        report_add(context->report, missing, name, remedy, "the kernel does not give the file system %s: %s",
                   name, strerror(errno));
}

/* What a pod's network needs, made in a network namespace of its own, which ends with this process. */
static int try_network(Error *e)
{
    const struct sock_filter pass[] = {BPF_STMT(BPF_RET | BPF_K, (uint32_t)-1)};
    _cleanup_rtnl_ Rtnl *rtnl = NULL;
    _cleanup_close_ int fd = -EBADF;
    char name[NET_NAME_SIZE];
    unsigned index;
    int r;

    r = netns_new(e);
    if (r < 0)
        return r;
    r = rtnl_new(&rtnl, e);
    if (r < 0)
        return r;
    tap_name("check", 0, name);
    r = tap_new(rtnl, name, 0, &fd, &index, e);
    if (r < 0)
        return r;
    return tc_redirect(rtnl, index, name, 1, pass, ELEMENTSOF(pass), 1 /* lo */, e);
}

/* In a child, since there is no way back from another network namespace. Gives the child's message. */
static int try_network_apart(char message[static MESSAGE_MAX])
{
    _cleanup_close_ int reader = -EBADF;
    int fds[2], status;
    ssize_t n;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    reader = fds[0];
    pid = fork();
    if (pid < 0) {
        close(fds[1]);
        return -errno;
    }
    if (pid == 0) {
        _cleanup_error_ Error e = ERROR_INIT;
        int r = try_network(&e);

        if (r < 0)
            (void)fd_write_full(fds[1], error_message(&e), strlen(error_message(&e)));
        _exit(r < 0);
    }
    close(fds[1]);
    n = fd_read_full(reader, message, MESSAGE_MAX - 1);
    message[n > 0 ? n : 0] = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return status == 0 ? 0 : -EIO;
}

static void check_network(CheckContext *context)
{
    char message[MESSAGE_MAX];

    if (try_network_apart(message) >= 0)
        report_add(context->report, FINDING_OK, "network", NULL,
                   "a TAP can be made and redirected (tun, clsact, cls_bpf, act_mirred)");
    else
        report_add(
            context->report, FINDING_FAIL, "network",
            "load the modules tun, sch_ingress, cls_bpf and act_mirred (modules-load.d/cloudhv.conf names "
            "them), or use a kernel that has them",
            "%s", *message ? message : "a TAP with a redirect cannot be made");
}

static void check_cgroups(CheckContext *context)
{
    struct statfs s;

    if (statfs("/sys/fs/cgroup", &s) < 0)
        report_add(context->report, FINDING_FAIL, "cgroups", "mount the cgroup file system at /sys/fs/cgroup",
                   "/sys/fs/cgroup: %s", strerror(errno));
    else if ((unsigned long)s.f_type == CGROUP2_SUPER_MAGIC)
        report_add(context->report, FINDING_OK, "cgroups", NULL, "version 2");
    else if (access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) >= 0)
        report_add(context->report, FINDING_OK, "cgroups", NULL, "hybrid of versions 1 and 2");
    else
        report_add(context->report, FINDING_OK, "cgroups", NULL, "version 1");
}

void check_host(CheckContext *context)
{
    check_kernel(context);
    check_kvm(context);
    check_network(context);
    check_filesystem(context, "overlay", FINDING_FAIL,
                     "load the module overlay, or use a kernel that has it");
    check_filesystem(context, "erofs", FINDING_NOTE,
                     "the system extension and containerd's erofs snapshotter need it, pods do not");
    check_cgroups(context);
}
