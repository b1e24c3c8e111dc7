/* SPDX-License-Identifier: MIT */

#include "vmm/probe-guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fs.h"

#define PAGE_TABLES 0x1000 /* PML4, PDPT and PD in a page each */
#define STACK_TOP 0x7000
#define CODE 0x8000
#define DATA 0x9000
#define CPUID_ENTRIES 256
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

unsigned long probe_guest_type(int kvm)
{
    return 0;
}

static int set_cpuid(Guest *g, Verdict *v)
{
    _cleanup_free_ struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));

    if (!cpuid)
        return probe_verdict(v, -ENOMEM, "cannot set CPUID");
    cpuid->nent = CPUID_ENTRIES;
    if (ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 || ioctl(g->vcpu, KVM_SET_CPUID2, cpuid) < 0)
        return probe_verdict(v, -errno, "cannot set CPUID");
    return 0;
}

/* Long mode, one 2 MiB page mapped at its own address (Intel SDM vol. 3, 4.5: bit 0 present, 1 writable, 7
 * large). */
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
        return probe_verdict(v, -errno, "cannot read a vCPU's registers");
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 0x20;       /* PAE */
    sregs.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
    sregs.efer = 0x500;     /* LMA, LME */
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0)
        return probe_verdict(v, -errno, "cannot set a vCPU's registers");
    return 0;
}

int probe_guest_prepare(Guest *g, Verdict *v)
{
    int r = set_cpuid(g, v);

    return r < 0 ? r : set_registers(g, v);
}

int probe_guest_run(Guest *g, Verdict *v)
{
    uint32_t value;
    int r;

    r = probe_run_until(g, KVM_EXIT_IO, v);
    if (r < 0)
        return r;
    memcpy(&value, (uint8_t *)g->run + g->run->io.data_offset, sizeof(value));
    if (g->run->io.port != PORT || value != VALUE) {
        v->number = -ENODEV;
        snprintf(v->text, sizeof(v->text), "a test guest computed %#x instead of %#x", value, VALUE);
        return v->number;
    }
    return probe_run_until(g, KVM_EXIT_HLT, v);
}

const char *probe_guest_likely_cause(void)
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
           "VM without nested virtualization";
}
