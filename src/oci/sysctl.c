/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/rebuild.h"

#define SYSCTLS_MAX 64
#define VALUE_MAX 256

/* What belongs to a network or IPC namespace, and so to a pod; the rest of a kernel's settings is the node's,
 * where other runtimes refuse them too. A name that ends with "." stands for all below it. */
static const char *const namespaced[] = {
    "net.",          "fs.mqueue.",    "kernel.sem",    "kernel.shmall",          "kernel.shmmax",
    "kernel.shmmni", "kernel.msgmax", "kernel.msgmnb", "kernel.shm_rmid_forced", "kernel.msgmni",
};

static bool is_namespaced(const char *name)
{
    for (size_t i = 0; i < ELEMENTSOF(namespaced); i++) {
        size_t n = strlen(namespaced[i]);

        if (namespaced[i][n - 1] == '.' ? strncmp(name, namespaced[i], n) == 0 && name[n]
                                        : strcmp(name, namespaced[i]) == 0)
            return true;
    }
    return false;
}

static bool is_name(const char *name)
{
    static const char characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

    return *name && *name != '.' && !strstr(name, "..") && !name[strspn(name, characters)] &&
           strlen(name) <= 128;
}

static bool is_value(const char *value)
{
    size_t n = strlen(value);

    for (size_t i = 0; i < n; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || (unsigned char)value[i] > 0x7e)
            return false;
    return n <= VALUE_MAX;
}

int rebuild_sysctls(json_t *sysctls, json_t **ret, Error *e)
{
    _cleanup_json_ json_t *out = json_object();
    const char *name;
    json_t *value;

    if (!out)
        return error_set_errno(e, -ENOMEM, "cannot read the pod's sysctls");
    if (json_object_size(sysctls) > SYSCTLS_MAX)
        return error_set(e, -E2BIG, "linux.sysctl: there are more than %i sysctls", SYSCTLS_MAX);
    json_object_foreach (sysctls, name, value) {
        int r;

        if (!is_name(name))
            return error_set(e, -EINVAL, "linux.sysctl: \"%.128s\" is not a sysctl's name", name);
        if (!is_namespaced(name))
            return error_set(
                e, -EOPNOTSUPP,
                "linux.sysctl: \"%s\" is not a pod's: only net.*, fs.mqueue.* and System V IPC are", name);
        if (!json_is_string(value) || !is_value(json_string_value(value)))
            return error_set(e, -EINVAL, "linux.sysctl: the value of \"%s\" must be a line of text", name);
        r = spec_set(out, name, json_string(json_string_value(value)), e);
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(out);
    return 0;
}
