/* SPDX-License-Identifier: MIT */

#include "vmm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "vmm/probe-guest.h"

#define GUEST_USEC 500000 /* a working KVM needs some 100 us */

/* The signal handler's; there is no other way to reach it. Only in the child. */
static struct kvm_run *volatile running;

static void on_alarm(int signal)
{
    if (running)
        running->immediate_exit = 1;
}

int probe_verdict(Verdict *v, int number, const char *what)
{
    v->number = number;
    snprintf(v->text, sizeof(v->text), "%s: %s", what, strerrordesc_np(-number) ?: "unknown error");
    return number;
}

static int make_vm(const char *device, Guest *g, Verdict *v)
{
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_MEMORY_SIZE};
    int version, run_size;

    g->kvm = open(device, O_RDWR | O_CLOEXEC);
    if (g->kvm < 0)
        return probe_verdict(v, -errno, "cannot open it");
    version = ioctl(g->kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return probe_verdict(v, version < 0 ? -errno : -EPROTO, "it does not speak KVM's API");
    g->vm = ioctl(g->kvm, KVM_CREATE_VM, probe_guest_type(g->kvm));
    if (g->vm < 0)
        return probe_verdict(v, -errno, "cannot create a VM");
    g->memory = mmap(NULL, PROBE_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (g->memory == MAP_FAILED)
        return probe_verdict(v, -errno, "cannot get memory for a VM");
    region.userspace_addr = (uintptr_t)g->memory;
    if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return probe_verdict(v, -errno, "cannot give memory to a VM");
    g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
    if (g->vcpu < 0)
        return probe_verdict(v, -errno, "cannot create a vCPU");
    run_size = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(*g->run))
        return probe_verdict(v, run_size < 0 ? -errno : -EPROTO, "cannot map a vCPU");
    g->run_size = (size_t)run_size;
    g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
    if (g->run == MAP_FAILED)
        return probe_verdict(v, -errno, "cannot map a vCPU");
    return 0;
}

int probe_run_until(Guest *g, uint32_t wanted, Verdict *v)
{
    if (ioctl(g->vcpu, KVM_RUN, 0) < 0) {
        if (errno == EINTR)
            return probe_verdict(v, -ETIMEDOUT, "a test guest hangs");
        return probe_verdict(v, -errno, "cannot run a test guest");
    }
    if (g->run->exit_reason == wanted)
        return 0;
    v->number = -ENODEV;
    if (g->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        snprintf(v->text, sizeof(v->text), "a test guest failed with KVM's internal error %u",
                 g->run->internal.suberror);
    else
        snprintf(v->text, sizeof(v->text), "a test guest ended with KVM exit reason %u instead of %u",
                 g->run->exit_reason, wanted);
    return v->number;
}

static int limit_time(Guest *g, Verdict *v)
{
    struct sigaction sa = {.sa_handler = on_alarm};
    struct itimerval limit = {.it_value = {.tv_usec = GUEST_USEC}};

    running = g->run;
    if (sigaction(SIGALRM, &sa, NULL) < 0 || setitimer(ITIMER_REAL, &limit, NULL) < 0)
        return probe_verdict(v, -errno, "cannot set a timer");
    return 0;
}

_Noreturn static void child_main(const char *device, int fd)
{
    Guest g = {.kvm = -EBADF, .vm = -EBADF, .vcpu = -EBADF};
    Verdict v = {0};

    /* Nothing of this may outlive a parent that is killed. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (make_vm(device, &g, &v) >= 0 && probe_guest_prepare(&g, &v) >= 0 && limit_time(&g, &v) >= 0)
        (void)probe_guest_run(&g, &v);
    (void)fd_write_full(fd, &v, sizeof(v));
    _exit(0);
}

/* Waits for the verdict: its size in bytes, 0 when the child died or hangs, or a negative errno. */
static ssize_t await_verdict(int fd, uint64_t timeout_usec, Verdict *v)
{
    uint64_t deadline = loop_now() + timeout_usec;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        uint64_t now = loop_now(), left = now < deadline ? deadline - now : 0;
        int r = poll(&p, 1, (int)(left / USEC_PER_MSEC));

        if (r < 0 && errno != EINTR)
            return -errno;
        if (r > 0)
            return fd_read_full(fd, v, sizeof(*v));
        if (left < USEC_PER_MSEC)
            return 0;
    }
}

int probe_kvm(const char *device, uint64_t timeout_usec, Error *reason)
{
    Verdict v = {0};
    int fds[2];
    ssize_t k;
    pid_t pid;

    if (access(device, F_OK) < 0)
        return (void)error_set_errno(reason, -errno, "KVM is not usable: %s", device), 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set_errno(reason, -errno, "cannot probe %s", device);
    pid = fork();
    if (pid < 0) {
        int r = -errno;

        close(fds[0]);
        close(fds[1]);
        return error_set_errno(reason, r, "cannot probe %s", device);
    }
    if (pid == 0)
        child_main(device, fds[1]);
    close(fds[1]);
    k = await_verdict(fds[0], timeout_usec, &v);
    close(fds[0]);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (k < 0)
        return error_set_errno(reason, (int)k, "cannot probe %s", device);
    if (k != (ssize_t)sizeof(v))
        return (void)error_set(reason, -ENODEV,
                               "KVM is not usable: %s: a test guest neither ran nor failed in %llu ms%s",
                               device, (unsigned long long)(timeout_usec / USEC_PER_MSEC),
                               probe_guest_likely_cause()),
               0;
    if (v.number == 0)
        return 1;
    v.text[sizeof(v.text) - 1] = 0;
    return (void)error_set(reason, v.number, "KVM is not usable: %s: %s%s", device, v.text,
                           probe_guest_likely_cause()),
           0;
}
