/* SPDX-License-Identifier: MIT */
#pragma once

/* The guest that the probe of KVM runs, which differs by architecture: probe-x86-64.c and probe-arm64.c. All but
 * probe_guest_likely_cause() is called in the probe's child only. */

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#define PROBE_MEMORY_SIZE (256 * 1024) /* from address 0 */

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

/* "cannot do it: the errno's text". Returns the errno. */
int probe_verdict(Verdict *v, int number, const char *what);
/* Runs the guest until it exits; a reason other than the wanted one is a verdict. */
int probe_run_until(Guest *g, uint32_t wanted, Verdict *v);

/* The kind of VM for KVM_CREATE_VM. */
unsigned long probe_guest_type(int kvm);
/* Program and registers. */
int probe_guest_prepare(Guest *g, Verdict *v);
/* Runs it, and looks at what it did. */
int probe_guest_run(Guest *g, Verdict *v);
/* Of a KVM that does not work: what an administrator can look at, as the end of a sentence. */
const char *probe_guest_likely_cause(void);
