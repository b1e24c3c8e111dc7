/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "sandbox/sandbox.h"
#include "vmm/probe.h"

#define KVM_DEVICE "/dev/kvm"

static void use_vmm(SandboxSettings *settings, const VmmConfig *config, const char *name)
{
    settings->driver = vmm_driver_by_name(name);
    settings->vmm_binary = strcmp(name, "qemu") == 0 ? config->qemu_binary : config->cloud_hypervisor_binary;
}

static int check_kvm(SandboxSettings *settings, const VmmConfig *config, Error *e)
{
    _cleanup_error_ Error reason = ERROR_INIT;
    bool can_emulate;
    int r = probe_kvm(KVM_DEVICE, config->probe_timeout_msecs * USEC_PER_MSEC, &reason);

    if (r > 0)
        return 0;
    settings->no_kvm_reason = strdup(error_message(&reason));
    if (!settings->no_kvm_reason)
        return error_set_errno(e, -ENOMEM, "cannot probe KVM");
    if (config->allow_emulation && strcmp(config->vmm, "auto") == 0)
        use_vmm(settings, config, "qemu");
    can_emulate = strcmp(vmm_driver_name(settings->driver), "qemu") == 0;
    if (config->allow_emulation && can_emulate) {
        settings->emulate = true;
        return 0;
    }
    settings->no_vmm_reason =
        string_printf("no VM can be run: %s, and %s", settings->no_kvm_reason,
                      can_emulate
                          ? "emulation is not allowed (\"allow_emulation\" in the configuration)"
                          : "this VMM cannot emulate");
    return settings->no_vmm_reason ? 0 : error_set_errno(e, -ENOMEM, "cannot probe KVM");
}

/* "auto" takes the first that the program has a driver for and that is installed; QEMU, the last, may be found in
 * PATH, and can emulate where there is no KVM. */
static const char *choose_vmm(const VmmConfig *config)
{
    if (strcmp(config->vmm, "auto") != 0)
        return config->vmm;
    if (vmm_driver_by_name("cloud-hypervisor") && access(config->cloud_hypervisor_binary, X_OK) == 0)
        return "cloud-hypervisor";
    return "qemu";
}

int sandbox_settings_init(SandboxSettings *settings, const VmmConfig *config, const char *state_dir, Error *e)
{
    const char *vmm = choose_vmm(config);

    *settings = (SandboxSettings){
        .state_dir = state_dir,
        .kernel = config->kernel_path,
        .rootfs = config->rootfs_path,
        .kernel_args = config->kernel_args,
        .default_vcpus = (unsigned)config->default_vcpus,
        .default_memory_mb = config->default_memory_mb,
        .uid_base = (uid_t)config->vmm_uid_base,
        .uid_count = (unsigned)config->vmm_uid_count,
        .gid = (gid_t)config->vmm_gid,
        .boot_timeout_usec = config->boot_timeout_secs * USEC_PER_SEC,
        .operation_timeout_usec = config->operation_timeout_secs * USEC_PER_SEC,
        .max_containers = (unsigned)config->max_containers_per_vm,
    };
    use_vmm(settings, config, vmm);
    if (!settings->driver) {
        settings->no_vmm_reason =
            string_printf("no VM can be run: there is no driver for the VMM \"%s\" here; without the daemon, "
                          "there is QEMU's only",
                          vmm);
        return settings->no_vmm_reason ? 0 : error_set_errno(e, -ENOMEM, "cannot read the settings");
    }
    return check_kvm(settings, config, e);
}

void sandbox_settings_clear(SandboxSettings *settings)
{
    free(settings->no_kvm_reason);
    free(settings->no_vmm_reason);
    *settings = (SandboxSettings){0};
}
