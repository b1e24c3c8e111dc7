/* SPDX-License-Identifier: MIT */

#include "ctl/check.h"

#include <errno.h>

int check_all(const char *containerd_socket, Report **ret)
{
    CheckContext context = {.report = report_new(), .containerd_socket = containerd_socket};

    if (!context.report)
        return -ENOMEM;
    check_configuration(&context);
    check_host(&context);
    check_installation(&context);
    check_image(&context);
    check_daemon(&context);
    check_containerd(&context);
    if (context.has_settings)
        sandbox_settings_clear(&context.settings);
    shim_config_free(context.shim);
    daemon_config_free(context.daemon);
    *ret = context.report;
    return 0;
}
