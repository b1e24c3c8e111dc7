/* SPDX-License-Identifier: MIT */
#pragma once

/* Runs one blocking job (mounting a disk, copying a tree, parsing a large spec) in a forked child, so that the
 * event loop never waits for a disk and what the job allocates goes away with it. The child shares the mount
 * namespace and has no descriptor of the agent. */

#include "agent/reaper.h"
#include "base/error.h"

/* The job. Returns 0 or a negative errno with `e` set. Runs in the child. */
typedef int (*WorkerFn)(void *userdata, Error *e);

/* The end of the job, in the agent. `number` is 0 or the job's negative errno; `message` says why. */
typedef void (*WorkerDoneFn)(int number, const char *message, void *userdata);

/* Starts a job. `userdata` is given to both functions. */
int worker_run(Reaper *reaper, WorkerFn job, WorkerDoneFn done, void *userdata, Error *e);
