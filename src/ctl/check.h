/* SPDX-License-Identifier: MIT */
#pragma once

/* The checks behind `cloudhvctl check`, by what they look at. Each adds to the report what it finds and never
 * ends early because of another's result. */

#include "config/config.h"
#include "ctl/report.h"
#include "sandbox/sandbox.h"

/* What the checks share. */
typedef struct CheckContext {
    Report *report;
    const char *containerd_socket;
    /* NULL where they cannot be read. */
    ShimConfig *shim;
    DaemonConfig *daemon;
    /* How VMs are run here, found out as the daemon does, or the shim where there is no daemon. */
    SandboxSettings settings;
    bool has_settings;
} CheckContext;

void check_configuration(CheckContext *context); /* fills in configurations and settings: first */
void check_host(CheckContext *context);
void check_installation(CheckContext *context);
void check_containerd(CheckContext *context);
void check_daemon(CheckContext *context);
void check_image(CheckContext *context);

/* All of them, in a good order. Returns 0 or a negative errno when there is no memory to report with. */
int check_all(const char *containerd_socket, Report **ret);
