/* SPDX-License-Identifier: MIT */
#pragma once

/* Runs crun(1), asynchronously and within a deadline, and brings back what it has to say when it fails. */

#include <stdint.h>

#include "agent/reaper.h"
#include "base/error.h"

typedef struct CrunCommand {
    const char *const *arguments; /* after the global options; NULL-terminated */
    const char *log_path;         /* file for crun's messages; replaced */
    int stdin_fd, stdout_fd, stderr_fd; /* negative: /dev/null */
    uint64_t timeout_usec;
} CrunCommand;

/* `number` is 0, -ETIMEDOUT, or -EIO with crun's message. */
typedef void (*CrunDoneFn)(int number, const char *message, void *userdata);

/* Descriptors and strings are only needed during the call. */
int crun_run(Reaper *reaper, const CrunCommand *command, CrunDoneFn done, void *userdata, Error *e);

/* The last message in a log of crun, cleaned for one line of text; "" if there is none. `text` is changed. */
const char *crun_log_message(char *text);
