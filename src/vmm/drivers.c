/* SPDX-License-Identifier: MIT */

#include "vmm/qemu.h"

const VmmDriver *const vmm_drivers[] = {&vmm_driver_qemu, &vmm_driver_cloud_hypervisor, NULL};
const QemuTemplateOps *const qemu_template_ops = &qemu_template_ops_all;
