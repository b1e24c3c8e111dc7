/* SPDX-License-Identifier: MIT */
#pragma once

/* What the first process of a machine has to do before anything else can work. */

#include <stdbool.h>

#include "base/error.h"

/* Mounts the kernel's file systems, /run and the agent's places below it, and turns on the cgroup
 * controllers. What is mounted already (the kernel may have mounted /dev) is left as it is. */
int boot_mount(Error *e);

/* Gives the agent sane descriptors 0 to 2, limits, signals and protection: not killed when memory is short,
 * not to be looked into by containers. */
int boot_prepare_process(Error *e);

/* Logs to the kernel's log, whose errors appear on the console; with "cloudhv.debug" on the kernel's command
 * line everything to the console. */
void boot_setup_log(void);

/* Whether a word is on a kernel command line. Pure. */
bool boot_has_word(const char *cmdline, const char *word);

/* Writes back all file systems and turns the machine off, or restarts it. */
_Noreturn void boot_end(bool restart);
