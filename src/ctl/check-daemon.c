/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "ctl/check.h"
#include "ctl/daemon-status.h"

#define STATUS_TIMEOUT_USEC (30 * USEC_PER_SEC) /* the first call starts the daemon, which probes KVM */

void check_daemon(CheckContext *context)
{
    _cleanup_daemon_status_ DaemonStatus *status = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    if (context->shim && !*context->shim->daemon_socket)
        return;
    if (!context->daemon)
        return;
    if (daemon_status_get(context->daemon->socket_path, STATUS_TIMEOUT_USEC, &status, &e) < 0) {
        report_add(context->report, FINDING_FAIL, "daemon",
                   e.number == -ENOENT || e.number == -ECONNREFUSED
                       ? "systemctl start cloudhv-sandbox-daemon.socket"
                       : "journalctl -u cloudhv-sandbox-daemon.service",
                   "%s", error_message(&e));
        return;
    }
    if (strcmp(status->daemon_version, CLOUDHV_VERSION) != 0)
        report_add(context->report, FINDING_NOTE, "daemon",
                   "systemctl restart cloudhv-sandbox-daemon.service (pods go on)",
                   "version %s answers, this is %s", status->daemon_version, CLOUDHV_VERSION);
    else
        report_add(context->report, FINDING_OK, "daemon", NULL, "version %s answers, %zu sandboxes",
                   status->daemon_version, status->n_sandboxes);
}
