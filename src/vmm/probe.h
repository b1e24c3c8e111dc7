/* SPDX-License-Identifier: MIT */
#pragma once

/* Does /dev/kvm really run a guest? A nested or paravirtual KVM may open, create VMs and then hang or abort
 * in them, so a tiny guest is run that executes what real kernels need (docs/architecture.md, Probe). */

#include <stdint.h>

#include "base/error.h"

/* Runs the probe in a child process, killed after `timeout_usec`. Returns 1 when KVM is usable, 0 when not,
 * with the reason in `reason` (its number is then -ENODEV or the like), or a negative errno when the probe
 * itself could not run. */
int probe_kvm(const char *device, uint64_t timeout_usec, Error *reason);
