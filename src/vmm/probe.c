/* SPDX-License-Identifier: MIT */

#include "vmm/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"

#define MEMORY_SIZE (256 * 1024)
#define PAGE_TABLES 0x1000 /* PML4, PDPT and PD in a page each */
#define STACK_TOP 0x7000
#define CODE 0x8000
#define DATA 0x9000
#define CPUID_ENTRIES 256
#define GUEST_USEC 500000 /* a working KVM needs some 100 us */
#define PORT 0xf4
#define VALUE 0x2a

/* cmpxchg16b is what tells real KVM from one that emulates part of the kernel's instructions, such as PVM:
 * those stop with an internal error there, while I/O, HLT and control registers work. Linux executes it
 * early. */
static const uint8_t guest_code[] = {
    0xbf, 0x00, 0x90,  0x00, 0x00, /* mov edi, DATA */
    0x31, 0xc0,                    /* xor eax, eax */
    0x31, 0xd2,                    /* xor edx, edx */
    0x31, 0xc9,                    /* xor ecx, ecx */
    0xbb, 0x01, 0x00,  0x00, 0x00, /* mov ebx, 1 */
    0xf0, 0x48, 0x0f,  0xc7, 0x0f, /* lock cmpxchg16b [rdi] */
    0x0f, 0x94, 0xc0,              /* sete al */
    0x0f, 0xb6, 0xc0,              /* movzx eax, al */
    0x6b, 0xc0, VALUE,             /* imul eax, eax, VALUE */
    0xe7, PORT,                    /* out PORT, eax */
    0xf4,                          /* hlt */
};

/* What the child tells its parent: 0 and nothing, or an errno and a sentence. */
typedef struct Verdict {
    int number;
    char text[256];
} Verdict;

typedef struct Guest {
    int kvm, vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
} Guest;

/* The signal handler's; there is no other way to reach it. Only in the child. */
static struct kvm_run *volatile running;

static void on_alarm(int signal)
{
    if (running)
        running->immediate_exit = 1;
}

static int verdict(Verdict *v, int number, const char *what)
{
    v->number = number;
    snprintf(v->text, sizeof(v->text), "%s: %s", what, strerrordesc_np(-number) ?: "unknown error");
    return number;
}

static int make_vm(const char *device, Guest *g, Verdict *v)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_SIZE};
    int version, run_size;

    g->kvm = open(device, O_RDWR | O_CLOEXEC);
    if (g->kvm < 0)
        return verdict(v, -errno, "cannot open it");
    version = ioctl(g->kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return verdict(v, version < 0 ? -errno : -EPROTO, "it does not speak KVM's API");
    g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
    if (g->vm < 0)
        return verdict(v, -errno, "cannot create a VM");
    g->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (g->memory == MAP_FAILED)
        return verdict(v, -errno, "cannot get memory for a VM");
    region.userspace_addr = (uintptr_t)g->memory;
    if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return verdict(v, -errno, "cannot give memory to a VM");
    g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
    if (g->vcpu < 0)
        return verdict(v, -errno, "cannot create a vCPU");
    run_size = ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < (int)sizeof(*g->run))
        return verdict(v, run_size < 0 ? -errno : -EPROTO, "cannot map a vCPU");
    g->run_size = (size_t)run_size;
    g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
    if (g->run == MAP_FAILED)
        return verdict(v, -errno, "cannot map a vCPU");
    return 0;
}

static int set_cpuid(Guest *g, Verdict *v)
{
    _cleanup_free_ struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));

    if (!cpuid)
        return verdict(v, -ENOMEM, "cannot set CPUID");
    cpuid->nent = CPUID_ENTRIES;
    if (ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 || ioctl(g->vcpu, KVM_SET_CPUID2, cpuid) < 0)
        return verdict(v, -errno, "cannot set CPUID");
    return 0;
}

/* Long mode, one 2 MiB page mapped at its own address (Intel SDM vol. 3, 4.5: bit 0 present, 1 writable, 7
 * large).
 */
static int set_registers(Guest *g, Verdict *v)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK_TOP, .rflags = 2};
    uint64_t *tables = (uint64_t *)(void *)(g->memory + PAGE_TABLES);
    struct kvm_sregs sregs;

    tables[0] = (PAGE_TABLES + 0x1000) | 3;
    tables[512] = (PAGE_TABLES + 0x2000) | 3;
    tables[1024] = 0x83;
    memcpy(g->memory + CODE, guest_code, sizeof(guest_code));
    if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
        return verdict(v, -errno, "cannot read a vCPU's registers");
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 0x20;       /* PAE */
    sregs.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
    sregs.efer = 0x500;     /* LMA, LME */
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0)
        return verdict(v, -errno, "cannot set a vCPU's registers");
    return 0;
}

static int run_once(Guest *g, uint32_t wanted, Verdict *v)
{
    if (ioctl(g->vcpu, KVM_RUN, 0) < 0) {
        if (errno == EINTR)
            return verdict(v, -ETIMEDOUT, "a test guest hangs");
        return verdict(v, -errno, "cannot run a test guest");
    }
    if (g->run->exit_reason == wanted)
        return 0;
    v->number = -ENODEV;
    if (g->run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
        snprintf(v->text, sizeof(v->text), "a test guest failed with KVM's internal error %u at cmpxchg16b",
                 g->run->internal.suberror);
    else
        snprintf(v->text, sizeof(v->text), "a test guest ended with KVM exit reason %u instead of %u",
                 g->run->exit_reason, wanted);
    return v->number;
}

static int run_guest(Guest *g, Verdict *v)
{
    struct sigaction sa = {.sa_handler = on_alarm};
    struct itimerval limit = {.it_value = {.tv_usec = GUEST_USEC}};
    uint32_t value;
    int r;

    running = g->run;
    if (sigaction(SIGALRM, &sa, NULL) < 0 || setitimer(ITIMER_REAL, &limit, NULL) < 0)
        return verdict(v, -errno, "cannot set a timer");
    r = run_once(g, KVM_EXIT_IO, v);
    if (r < 0)
        return r;
    memcpy(&value, (uint8_t *)g->run + g->run->io.data_offset, sizeof(value));
    if (g->run->io.port != PORT || value != VALUE) {
        v->number = -ENODEV;
        snprintf(v->text, sizeof(v->text), "a test guest computed %#x instead of %#x", value, VALUE);
        return v->number;
    }
    return run_once(g, KVM_EXIT_HLT, v);
}

_Noreturn static void child_main(const char *device, int fd)
{
    Guest g = {.kvm = -EBADF, .vm = -EBADF, .vcpu = -EBADF};
    Verdict v = {0};

    /* Nothing of this may outlive a parent that is killed. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (make_vm(device, &g, &v) >= 0 && set_cpuid(&g, &v) >= 0 && set_registers(&g, &v) >= 0)
        (void)run_guest(&g, &v);
    (void)fd_write_full(fd, &v, sizeof(v));
    _exit(0);
}

/* Why it might be so: what an administrator can look at. */
static const char *likely_cause(void)
{
    _cleanup_free_ char *cpuinfo = NULL;
    const char *flags;

    if (access("/sys/module/kvm_pvm", F_OK) >= 0)
        return "; module kvm_pvm is loaded: this is a paravirtual KVM, which does not run ordinary guests";
    if (fs_read_file("/proc/cpuinfo", 1024 * 1024, &cpuinfo, NULL) < 0)
        return "";
    flags = strstr(cpuinfo, "\nflags");
    for (const char *p = flags; p && *p && *p != '\n'; p = strchr(p + 1, ' ')) {
        /* `p` is before a word. */
        if (strncmp(p, " svm", 4) == 0 || strncmp(p, " vmx", 4) == 0)
            return "";
        if (p == flags)
            p++;
    }
    return "; the CPU has neither flag vmx nor svm: virtualization is disabled in the firmware, or this is a "
           "VM "
           "without nested virtualization";
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
                               device, (unsigned long long)(timeout_usec / USEC_PER_MSEC), likely_cause()),
               0;
    if (v.number == 0)
        return 1;
    v.text[sizeof(v.text) - 1] = 0;
    return (void)error_set(reason, v.number, "KVM is not usable: %s: %s%s", device, v.text, likely_cause()),
           0;
}
