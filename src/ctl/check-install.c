/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "ctl/check.h"
#include "ctl/command.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define CONFIG_PLACES "/etc/cloudhv, /opt/cloudhv, /usr/share/cloudhv"
#define VERSION_TIMEOUT_USEC (10 * USEC_PER_SEC)

/* Probes KVM, which may take the configured time. */
static void find_settings(CheckContext *context)
{
    _cleanup_error_ Error e = ERROR_INIT;
    const VmmConfig *config = NULL;

    if (context->shim && !*context->shim->daemon_socket)
        config = &context->shim->vmm;
    else if (context->daemon)
        config = &context->daemon->vmm;
    if (!config)
        return;
    if (sandbox_settings_init(&context->settings, config, "", &e) < 0)
        report_add(context->report, FINDING_FAIL, "vmm", NULL, "%s", error_message(&e));
    else
        context->has_settings = true;
}

void check_configuration(CheckContext *context)
{
    _cleanup_error_ Error shim_error = ERROR_INIT, daemon_error = ERROR_INIT;
    Report *report = context->report;

    if (shim_config_load(&context->shim, &shim_error) < 0)
        report_add(report, FINDING_FAIL, "config.json",
                   "correct it (" CONFIG_PLACES "); cloudhv-config(5) has all keys", "%s",
                   error_message(&shim_error));
    else
        report_add(report, FINDING_OK, "config.json", NULL, "shims %s%s",
                   *context->shim->daemon_socket ? "use the daemon at " : "boot their VMs themselves",
                   context->shim->daemon_socket);
    if (daemon_config_load(NULL, &context->daemon, &daemon_error) < 0)
        report_add(report, FINDING_FAIL, "daemon.json",
                   "correct it (" CONFIG_PLACES "); cloudhv-config(5) has all keys", "%s",
                   error_message(&daemon_error));
    else
        report_add(report, FINDING_OK, "daemon.json", NULL, "\"vmm\" is %s", context->daemon->vmm.vmm);
    if (context->shim && context->daemon && *context->shim->daemon_socket &&
        strcmp(context->shim->daemon_socket, context->daemon->socket_path) != 0)
        report_add(report, FINDING_FAIL, "sockets", "give both the same path",
                   "\"daemon_socket\" of config.json is %s, but \"socket_path\" of daemon.json is %s",
                   context->shim->daemon_socket, context->daemon->socket_path);
    find_settings(context);
}

/* The first bytes of a file at an offset say what it is. */
static void check_magic(CheckContext *context, const char *name, const char *path, off_t offset,
                        const char *magic, size_t n, const char *kind)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char found[8];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        report_add(context->report, FINDING_FAIL, name, "install it, or say in the configuration where it is",
                   "%s: %s", path, strerror(errno));
    else if (pread(fd, found, n, offset) != (ssize_t)n || memcmp(found, magic, n) != 0)
        report_add(context->report, FINDING_FAIL, name, "install the guest's files again", "%s is no %s",
                   path, kind);
    else
        report_add(context->report, FINDING_OK, name, NULL, "%s, %llu KiB", path,
                   (unsigned long long)st.st_size / 1024);
}

typedef struct Tool {
    const char *name;    /* in the report */
    const char *program; /* path or name */
    const char *option;  /* prints the version */
    unsigned major, minor;
    const char *remedy;
} Tool;

static void check_tool(CheckContext *context, const Tool *tool)
{
    _cleanup_free_ char *path = command_find(tool->program, PATH_DEFAULT), *text = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned major, minor;

    if (!path) {
        report_add(context->report, FINDING_FAIL, tool->name, tool->remedy, "%s is not there", tool->program);
        return;
    }
    if (tool->option) {
        const char *argv[] = {path, tool->option, NULL};

        if (command_output(argv, 65536, VERSION_TIMEOUT_USEC, &text, &e) < 0) {
            report_add(context->report, FINDING_FAIL, tool->name, tool->remedy, "%s", error_message(&e));
            return;
        }
        if (version_parse(text, &major, &minor) < 0) {
            report_add(context->report, FINDING_NOTE, tool->name, NULL, "%s names no version", path);
            return;
        }
        if (major < tool->major || (major == tool->major && minor < tool->minor)) {
            report_add(context->report, FINDING_FAIL, tool->name, tool->remedy,
                       "%s is version %u.%u, %u.%u or later is needed", path, major, minor, tool->major,
                       tool->minor);
            return;
        }
        report_add(context->report, FINDING_OK, tool->name, NULL, "%s, version %u.%u", path, major, minor);
        return;
    }
    report_add(context->report, FINDING_OK, tool->name, NULL, "%s", path);
}

void check_installation(CheckContext *context)
{
    const SandboxSettings *settings = &context->settings;

    if (context->has_settings) {
        bool qemu = !settings->driver || strcmp(vmm_driver_name(settings->driver), "qemu") == 0;

        check_tool(context,
                   &(Tool){.name = "vmm",
                           .program = settings->vmm_binary,
                           .option = "--version",
                           .major = qemu ? 7 : 51,
                           .minor = qemu ? 2 : 0,
                           .remedy = qemu ? "install QEMU 7.2 or later, or name one by \"qemu_binary\""
                                          : "install Cloud Hypervisor 51 or later, or name one by "
                                            "\"cloud_hypervisor_binary\""});
        check_magic(context, "guest kernel", settings->kernel, 0, "\177ELF", 4,
                    "ELF file, as a VMM starts it");
        check_magic(context, "guest rootfs", settings->rootfs, 1024, "\xe2\xe1\xf5\xe0", 4, "erofs image");
    }
    if (context->shim) {
        check_tool(context, &(Tool){.name = "mkfs.erofs",
                                    .program = context->shim->mkfs_erofs_binary,
                                    .option = "-V",
                                    .major = 1,
                                    .minor = 8,
                                    .remedy = "install erofs-utils 1.8 or later, or name one by "
                                              "\"mkfs_erofs_binary\""});
        if (strcmp(context->shim->writable_layer, "disk") == 0)
            check_tool(context, &(Tool){.name = "mke2fs",
                                        .program = context->shim->mke2fs_binary,
                                        .remedy = "install e2fsprogs, name one by \"mke2fs_binary\", or set "
                                                  "\"writable_layer\": \"memory\""});
    }
}
