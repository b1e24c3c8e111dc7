/* SPDX-License-Identifier: MIT */

#include "vmm/probe-guest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define CODE 0x8000
#define DATA 0x9000
#define MMIO 0x10000000 /* no memory is there */
#define VALUE 0x2a

/* At EL1, with the MMU off: a system register is written and read, memory too; what comes of it is stored where a
 * device would be, and PSCI turns the machine off. That is what a kernel starts with, and each of the three is
 * another way out of the guest. */
static const uint32_t guest_code[] = {
    0xd5384240, /* mrs x0, CurrentEL */
    0xd342fc00, /* lsr x0, x0, #2 */
    0xd518d080, /* msr tpidr_el1, x0 */
    0xd5033fdf, /* isb */
    0xd538d081, /* mrs x1, tpidr_el1 */
    0xd2920002, /* mov x2, #DATA */
    0xf9000041, /* str x1, [x2] */
    0xf9400043, /* ldr x3, [x2] */
    0xd2800544, /* mov x4, #VALUE */
    0x9b047c63, /* mul x3, x3, x4 */
    0xd2a20005, /* mov x5, #MMIO */
    0xb90000a3, /* str w3, [x5] */
    0x52b08000, /* mov w0, #0x84000000 */
    0x72800100, /* movk w0, #8: SYSTEM_OFF (Arm DEN0022) */
    0xd4000002, /* hvc #0 */
};

/* Zero means 40 bits of guest-physical addresses, which a CPU may lack. */
unsigned long probe_guest_type(int kvm)
{
    int bits = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);

    return bits > 0 && bits < 40 ? KVM_VM_TYPE_ARM_IPA_SIZE((unsigned long)bits) : 0;
}

int probe_guest_prepare(Guest *g, Verdict *v)
{
    struct kvm_vcpu_init init;
    uint64_t pc = CODE;
    struct kvm_one_reg reg = {.id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE |
                                    KVM_REG_ARM_CORE_REG(regs.pc),
                              .addr = (uintptr_t)&pc};

    memcpy(g->memory + CODE, guest_code, sizeof(guest_code));
    if (ioctl(g->vm, KVM_ARM_PREFERRED_TARGET, &init) < 0)
        return probe_verdict(v, -errno, "cannot choose a CPU model");
    init.features[0] |= 1U << KVM_ARM_VCPU_PSCI_0_2;
    if (ioctl(g->vcpu, KVM_ARM_VCPU_INIT, &init) < 0)
        return probe_verdict(v, -errno, "cannot set up a vCPU");
    if (ioctl(g->vcpu, KVM_SET_ONE_REG, &reg) < 0)
        return probe_verdict(v, -errno, "cannot set a vCPU's registers");
    return 0;
}

int probe_guest_run(Guest *g, Verdict *v)
{
    uint32_t value;
    int r;

    r = probe_run_until(g, KVM_EXIT_MMIO, v);
    if (r < 0)
        return r;
    memcpy(&value, g->run->mmio.data, sizeof(value));
    if (!g->run->mmio.is_write || g->run->mmio.phys_addr != MMIO || g->run->mmio.len != sizeof(value) ||
        value != VALUE) {
        v->number = -ENODEV;
        snprintf(v->text, sizeof(v->text), "a test guest computed %#x instead of %#x", value, VALUE);
        return v->number;
    }
    r = probe_run_until(g, KVM_EXIT_SYSTEM_EVENT, v);
    if (r < 0)
        return r;
    if (g->run->system_event.type != KVM_SYSTEM_EVENT_SHUTDOWN) {
        v->number = -ENODEV;
        snprintf(v->text, sizeof(v->text), "a test guest ended with event %u instead of a shutdown",
                 g->run->system_event.type);
        return v->number;
    }
    return 0;
}

const char *probe_guest_likely_cause(void)
{
    return "";
}
