/* SPDX-License-Identifier: MIT */
#pragma once

/* Child processes and the identity of processes over time. */

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* How to start a program. Descriptors that are not named here are closed in the child. */
typedef struct ProcessSpec {
    const char *const *argv;        /* NULL-terminated; argv[0] is an absolute path or is looked up in PATH */
    const char *const *environment; /* NULL: a fixed PATH and nothing else */
    int stdin_fd, stdout_fd, stderr_fd; /* negative: /dev/null */
    const int *pass_fds;                /* keep their numbers in the child */
    size_t n_pass_fds;
    /* Runs in the child after the descriptors are set up and before exec; a negative errno aborts. NULL:
     * none. */
    int (*prepare)(void *userdata);
    void *userdata;
} ProcessSpec;

/* Starts a program. On success gives its pid and a pidfd (CLOEXEC) that the caller closes; the caller reaps
 * it with process_reap(). A program that cannot be executed is an error here, not an exit later. */
int process_spawn(const ProcessSpec *spec, pid_t *ret_pid, int *ret_pidfd, Error *e);

/* Collects a child that has ended. Returns 1 and its wait status (as WIFEXITED() and so on read it), 0 if it
 * is still running, or a negative errno: -ECHILD when it is not our child. */
int process_reap(int pidfd, int *ret_status);

/* Sends a signal through a pidfd; a process that has ended already is not an error. */
int process_kill(int pidfd, int signal);

/* Opens another process. `start_time` is field 22 of /proc/PID/stat, from process_start_time(): when it is
 * not 0 and differs, the number was reused and -ESRCH is returned. Gives a CLOEXEC pidfd. */
int process_open(pid_t pid, uint64_t start_time, int *ret_pidfd);
int process_start_time(pid_t pid, uint64_t *ret);

/* "exit status 3", "signal 9 (Killed)": for messages. The caller frees it. */
char *process_status_string(int status);
