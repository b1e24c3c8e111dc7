/* SPDX-License-Identifier: MIT */
#pragma once

/* Lets go of a disk in a slot of PCI Express's own hot-plug (arm64's). When the host asks for it, that is a press of
 * the slot's button, and Linux waits for 5 s in case it is pressed once more; power that the guest itself turns off
 * goes at once, and the host sees the device gone. */

#include <sys/types.h>

/* Powers the slot off that the block device is in; takes a second or so, in the kernel. 1 when done, 0 when it is in no
 * such slot. The device must not be in use. `sysfs` is "/sys". */
int slot_power_off(const char *sysfs, dev_t device);
