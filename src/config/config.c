/* SPDX-License-Identifier: MIT */

#include "config/config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "config/field.h"

#define CONFIG_FILE_MAX (1U << 20)
/* What differs by architecture: the name of the first serial port, as the original has it, and of the VMM. */
#if defined(__aarch64__)
#define HOST_CONSOLE "ttyAMA0"
#define HOST_QEMU "qemu-system-aarch64"
#else
#define HOST_CONSOLE "ttyS0"
#define HOST_QEMU "qemu-system-x86_64"
#endif
#define EMBEDDED_QEMU "/usr/lib/cloudhv/" HOST_QEMU
#define CONSOLE_VARIABLE "${KERNEL_CONSOLE}"

static int set_string(char **target, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*target);
    *target = copy;
    return 0;
}

static int expand_kernel_args(VmmConfig *config)
{
    char *found;

    while ((found = strstr(config->kernel_args, CONSOLE_VARIABLE))) {
        char *expanded = string_printf("%.*s%s%s", (int)(found - config->kernel_args), config->kernel_args,
                                       HOST_CONSOLE, found + strlen(CONSOLE_VARIABLE));

        if (!expanded)
            return -ENOMEM;
        free(config->kernel_args);
        config->kernel_args = expanded;
    }
    return 0;
}

static const char *default_qemu(void)
{
    if (access(EMBEDDED_QEMU, X_OK) == 0)
        return EMBEDDED_QEMU;
    return HOST_QEMU;
}

/* What depends on the machine, and what concerns two fields. */
static int complete_vmm(VmmConfig *config, const char *name, Error *e)
{
    int r = expand_kernel_args(config);

    if (r >= 0 && !*config->qemu_binary)
        r = set_string(&config->qemu_binary, default_qemu());
    if (r < 0)
        return error_set_errno(e, r, "cannot complete the configuration %s", name);
    for (const char *p = config->kernel_args; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return error_set(e, -EINVAL, "%s: \"kernel_args\" has a control character", name);
    if (config->max_default_vcpus && config->max_default_vcpus < config->default_vcpus)
        return error_set(
            e, -ERANGE, "%s: \"max_default_vcpus\" is %llu, less than the %llu of \"default_vcpus\"", name,
            (unsigned long long)config->max_default_vcpus, (unsigned long long)config->default_vcpus);
    if (config->vmm_uid_base + config->vmm_uid_count > UINT32_MAX)
        return error_set(e, -ERANGE, "%s: \"vmm_uid_base\" and \"vmm_uid_count\" go beyond the highest uid",
                         name);
    return 0;
}

static int apply_file(const ConfigField *fields, void *object, const char *file, Error *e)
{
    _cleanup_json_ json_t *json = NULL;
    int r = json_read_file(file, CONFIG_FILE_MAX, &json, e);

    return r < 0 ? r : config_apply(fields, object, json, file, e);
}

/* An explicit place whose file is missing is fine too: tests and packages may leave one of the two files out.
 */
static int apply_layers(const ConfigField *fields, void *object, const char *name, Error *e)
{
    const char *const places[] = {"/usr/share/cloudhv", "/opt/cloudhv", "/etc/cloudhv"};
    const char *replaced = getenv("CLOUDHV_CONFIG_DIR");
    size_t n = replaced && *replaced ? 1 : ELEMENTSOF(places);

    for (size_t i = 0; i < n; i++) {
        _cleanup_free_ char *file = fs_join(n == 1 ? replaced : places[i], name);
        _cleanup_error_ Error failure = ERROR_INIT;
        int r;

        if (!file)
            return error_set_errno(e, -ENOMEM, "cannot read %s", name);
        r = apply_file(fields, object, file, &failure);
        if (r < 0 && r != -ENOENT)
            return error_move(e, &failure);
    }
    return 0;
}

int shim_config_load(ShimConfig **ret, Error *e)
{
    _cleanup_shim_config_ ShimConfig *config = calloc(1, sizeof(*config));
    int r;

    if (!config || config_set_defaults(config_shim_fields, config) < 0)
        return error_set_errno(e, -ENOMEM, "cannot read config.json");
    r = apply_layers(config_shim_fields, config, "config.json", e);
    if (r < 0)
        return r;
    r = complete_vmm(&config->vmm, "config.json", e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(config);
    return 0;
}

int daemon_config_load(const char *file, DaemonConfig **ret, Error *e)
{
    _cleanup_daemon_config_ DaemonConfig *config = calloc(1, sizeof(*config));
    const char *name = file ?: "daemon.json";
    int r;

    if (!config || config_set_defaults(config_daemon_fields, config) < 0)
        return error_set_errno(e, -ENOMEM, "cannot read %s", name);
    if (file)
        r = apply_file(config_daemon_fields, config, file, e);
    else
        r = apply_layers(config_daemon_fields, config, "daemon.json", e);
    if (r < 0)
        return r;
    r = complete_vmm(&config->vmm, name, e);
    if (r < 0)
        return r;
    if (config->max_pool_size < config->pool_size)
        return error_set(e, -ERANGE, "%s: \"max_pool_size\" is %llu, less than the %llu of \"pool_size\"",
                         name, (unsigned long long)config->max_pool_size,
                         (unsigned long long)config->pool_size);
    *ret = TAKE_PTR(config);
    return 0;
}

ShimConfig *shim_config_free(ShimConfig *config)
{
    if (config)
        config_release(config_shim_fields, config);
    free(config);
    return NULL;
}

DaemonConfig *daemon_config_free(DaemonConfig *config)
{
    if (config)
        config_release(config_daemon_fields, config);
    free(config);
    return NULL;
}

int config_log_priority(const char *level)
{
    static const struct {
        const char *name;
        int priority;
    } levels[] = {
        {"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE},
        {"info", LOG_INFO}, {"debug", LOG_DEBUG},
    };

    for (size_t i = 0; i < ELEMENTSOF(levels); i++)
        if (strcmp(levels[i].name, level) == 0)
            return levels[i].priority;
    return LOG_INFO;
}
