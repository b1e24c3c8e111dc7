/* SPDX-License-Identifier: MIT */

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "ctl/check.h"
#include "ctl/command.h"
#include "ctl/containerd.h"

#define SHIM "containerd-shim-cloudhv-v1"
#define HANDLER "cloudhv"
#define DELETED " (deleted)"
#define ANNOTATIONS_REMEDY                                                                                   \
    "add pod_annotations = [\"io.cloudhv.*\", \"io.katacontainers.*\"] to the runtime in containerd's "      \
    "configuration"

/* Where generator and ExecStartPre= say why there is no configuration of ours. */
static const char *const reason_files[] = {
    "/run/cloudhv/containerd/reason",
    "/run/systemd/generator/containerd.service.d/cloudhv.reason",
};

static char *read_reason(void)
{
    for (size_t i = 0; i < ELEMENTSOF(reason_files); i++) {
        char *text;
        size_t n;

        if (fs_read_file(reason_files[i], 65536, &text, &n) < 0)
            continue;
        while (n > 0 && isspace((unsigned char)text[n - 1]))
            text[--n] = 0;
        if (n > 0)
            return text;
        free(text);
    }
    return NULL;
}

static void check_version(CheckContext *context, const Containerd *containerd)
{
    const char *argv[] = {containerd->binary, "--version", NULL};
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *text = NULL;
    unsigned major, minor;

    if (command_output(argv, 4096, 10 * USEC_PER_SEC, &text, &e) < 0)
        report_add(context->report, FINDING_NOTE, "containerd", NULL, "%s", error_message(&e));
    else if (version_parse(text, &major, &minor) < 0)
        report_add(context->report, FINDING_NOTE, "containerd", NULL, "%s names no version",
                   containerd->binary);
    else if (major < 1 || (major == 1 && minor < 6))
        report_add(context->report, FINDING_FAIL, "containerd", "install containerd 1.6 or later",
                   "version %u.%u is too old", major, minor);
    else
        report_add(context->report, FINDING_OK, "containerd", NULL, "version %u.%u, process %i", major, minor,
                   containerd->pid);
}

static void report_missing_runtime(CheckContext *context, const Containerd *containerd)
{
    _cleanup_free_ char *reason = read_reason();

    if (reason)
        report_add(context->report, FINDING_FAIL, "runtime",
                   "correct that and restart containerd, or configure the runtime by hand: docs/install.md",
                   "containerd has no runtime " HANDLER ": %s", reason);
    else if (!containerd->has_dropin)
        report_add(context->report, FINDING_FAIL, "runtime",
                   "systemctl restart containerd.service (no pod is ended by that)",
                   "containerd has no runtime " HANDLER
                   ": it was started without the drop-in of cloudhv-containerd-generator");
    else
        report_add(context->report, FINDING_FAIL, "runtime", "journalctl -u containerd.service",
                   "containerd has no runtime " HANDLER " in its configuration %s",
                   containerd->config ?: "/etc/containerd/config.toml");
}

static void check_runtime(CheckContext *context, const Containerd *containerd)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *dump = NULL;
    ContainerdRuntime runtime;

    if (containerd_dump(containerd, &dump, &e) < 0) {
        report_add(context->report, FINDING_FAIL, "runtime", "correct containerd's configuration", "%s",
                   error_message(&e));
        return;
    }
    runtime = containerd_dump_runtime(dump, HANDLER);
    if (!runtime.cri)
        report_add(context->report, FINDING_NOTE, "runtime",
                   "for Kubernetes and crictl take it out of disabled_plugins",
                   "containerd's CRI plugin is disabled: pods can be run with ctr only");
    else if (!runtime.found)
        report_missing_runtime(context, containerd);
    else if (!runtime.type_ours)
        report_add(context->report, FINDING_FAIL, "runtime",
                   "remove it, or give it runtime_type = \"io.containerd.cloudhv.v1\"",
                   "the runtime " HANDLER " of containerd's configuration is of another type");
    else if (!runtime.annotations)
        report_add(context->report, FINDING_NOTE, "runtime", ANNOTATIONS_REMEDY,
                   "the runtime " HANDLER " is there, but annotations of pods do not reach it");
    else
        report_add(context->report, FINDING_OK, "runtime", NULL,
                   "the runtime " HANDLER " is in containerd's configuration %s",
                   containerd->config ?: "/etc/containerd/config.toml");
}

static void check_shim(CheckContext *context, const Containerd *containerd)
{
    _cleanup_free_ char *path = command_find(SHIM, containerd->path), *beside = NULL;
    const char *slash = strrchr(containerd->binary, '/');

    if (!path && slash) {
        beside = string_printf("%.*s/" SHIM, (int)(slash - containerd->binary), containerd->binary);
        if (beside)
            path = command_find(beside, "");
    }
    if (path)
        report_add(context->report, FINDING_OK, "shim", NULL, "%s", path);
    else
        report_add(context->report, FINDING_FAIL, "shim", "install it there",
                   SHIM " is neither in containerd's PATH (%s) nor beside %s", containerd->path,
                   containerd->binary);
}

void check_containerd(CheckContext *context)
{
    _cleanup_containerd_ Containerd containerd = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    char *deleted, running[64];

    if (containerd_find(context->containerd_socket, &containerd, &e) < 0) {
        report_add(context->report, FINDING_FAIL, "containerd",
                   "install containerd and start it (systemctl start containerd.service), or give its socket "
                   "by --containerd",
                   "%s", error_message(&e));
        return;
    }
    deleted = strstr(containerd.binary, DELETED);
    if (deleted && !deleted[strlen(DELETED)]) {
        report_add(context->report, FINDING_NOTE, "containerd", "systemctl restart containerd.service",
                   "its program was replaced since it was started");
        snprintf(running, sizeof(running), "/proc/%i/exe", containerd.pid);
        free(containerd.binary);
        containerd.binary = strdup(running);
        if (!containerd.binary)
            return;
    }
    check_version(context, &containerd);
    check_shim(context, &containerd);
    check_runtime(context, &containerd);
}
