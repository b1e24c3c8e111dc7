/* SPDX-License-Identifier: MIT */
#pragma once

/* Work that takes long and only computes, done in a child so that the loop is not held up: digests of large
 * files, questions to other programs. */

#include "base/error.h"
#include "base/json.h"
#include "base/loop.h"

typedef struct Job Job;

/* Runs in the child. What it returns is an object for the parent, or NULL and `e`. */
typedef json_t *(*JobFn)(const void *argument, Error *e);

/* Called once, from the loop; the job is gone afterwards. `e` when there is no result. */
typedef void (*JobDoneFn)(json_t *result, const Error *e, void *userdata);

/* `argument` is used before this returns only, since the child has its copy. `what` is static and begins
 * messages. */
int job_start(Loop *loop, const char *what, JobFn function, const void *argument, JobDoneFn done,
              void *userdata, Job **ret, Error *e);

/* Ends it without a call; NULL is fine. */
Job *job_free(Job *job);
