/* SPDX-License-Identifier: MIT */
#pragma once

/* Collects ended processes. The agent is PID 1: besides the programs it starts, the first processes of
 * containers (whose parent, crun, is gone) and every orphan of the guest become its children. Those that
 * somebody watches are reported once; the rest is only collected. */

#include <stdint.h>
#include <sys/types.h>

#include "base/loop.h"

typedef struct Reaper Reaper;

/* `status` is a wait status; `ended_nsec` the realtime clock when the process was collected. The watch is
 * gone before the call. */
typedef void (*ReaperFn)(pid_t pid, int status, uint64_t ended_nsec, void *userdata);

int reaper_new(Loop *loop, Reaper **ret);
Reaper *reaper_free(Reaper *reaper);
DEFINE_CLEANUP_FUNC(Reaper *, reaper_free)

/* Watches a child, which may have ended already as long as nobody collected it. The callback runs from the
 * loop, never from here. */
int reaper_watch(Reaper *reaper, pid_t pid, ReaperFn callback, void *userdata);
/* Drops a watch: the process is then collected silently. */
void reaper_forget(Reaper *reaper, pid_t pid);

/* While held, processes that nobody watches stay uncollected: for as long as crun makes a container, since
 * its process might end before its number is known. Each hold needs one release. */
void reaper_hold(Reaper *reaper);
void reaper_release(Reaper *reaper);

Loop *reaper_loop(Reaper *reaper);

/* Nanoseconds of CLOCK_REALTIME. */
uint64_t reaper_realtime(void);
