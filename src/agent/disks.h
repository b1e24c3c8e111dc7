/* SPDX-License-Identifier: MIT */
#pragma once

/* Finds the host's disks by their serial, and waits for those that are not plugged yet. */

#include <stdint.h>

#include "agent/uevent.h"

typedef struct Disks Disks;
typedef struct DiskWait DiskWait;

/* `number` is 0 with `path`, the device node, or -ETIMEDOUT. The wait is gone before the call. */
typedef void (*DiskFn)(int number, const char *path, void *userdata);

int disks_new(Loop *loop, UeventMonitor *monitor, Disks **ret);
Disks *disks_free(Disks *disks);
DEFINE_CLEANUP_FUNC(Disks *, disks_free)

/* Calls back, from the loop, when a disk with the serial is there and can be opened, at the latest after
 * `timeout_usec`. */
int disks_wait(Disks *disks, const char *serial, uint64_t timeout_usec, DiskFn callback, void *userdata,
               DiskWait **ret);
/* Gives a wait up; NULL is fine. */
DiskWait *disk_wait_cancel(DiskWait *wait);

/* Looks a serial up in a directory like /sys/block. The caller frees the name; -ENOENT. */
int disk_find(const char *sysfs_block, const char *serial, char **ret_name);
