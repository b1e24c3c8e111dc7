/* SPDX-License-Identifier: MIT */

/* For a program that boots VMs beside its real work, and is there once per pod. */

#include "vmm/qemu.h"

const VmmDriver *const vmm_drivers[] = {&vmm_driver_qemu, NULL};
const QemuTemplateOps *const qemu_template_ops = NULL;
