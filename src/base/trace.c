/* SPDX-License-Identifier: MIT */

#include "base/trace.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/loop.h"

#if CLOUDHV_FAULT_INJECTION
static void inject_fault(const char *name)
{
    const char *point = getenv("CLOUDHV_FAULT_POINT"), *action = getenv("CLOUDHV_FAULT_ACTION");

    if (!point || !action || strcmp(point, name) != 0)
        return;
    if (strcmp(action, "kill") == 0)
        (void)raise(SIGKILL);
    else if (strcmp(action, "stop") == 0)
        (void)raise(SIGSTOP);
}
#endif

void trace_reached(const char *name)
{
    log_debug("trace %s %llu", name, (unsigned long long)loop_now());
#if CLOUDHV_FAULT_INJECTION
    inject_fault(name);
#endif
}
