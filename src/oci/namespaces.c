/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "oci/rebuild.h"

typedef enum NamespaceKind {
    NS_CGROUP,
    NS_IPC,
    NS_MOUNT,
    NS_NETWORK,
    NS_PID,
    NS_UTS,
    _NS_SUPPORTED,
    NS_TIME = _NS_SUPPORTED,
    NS_USER,
    _NS_MAX,
} NamespaceKind;

static const char *const names[_NS_MAX] = {
    [NS_CGROUP] = "cgroup", [NS_IPC] = "ipc", [NS_MOUNT] = "mount", [NS_NETWORK] = "network",
    [NS_PID] = "pid",       [NS_UTS] = "uts", [NS_TIME] = "time",   [NS_USER] = "user",
};

/* What the specification says of each kind. */
typedef struct Namespaces {
    bool present[_NS_MAX];
    const char *path[_NS_MAX]; /* NULL: a new one */
} Namespaces;

static int read_one(json_t *entry, Namespaces *n, Error *e)
{
    const char *type = NULL, *path = NULL;
    size_t kind = 0;
    int r = -EINVAL;

    if (!json_is_object(entry))
        return error_set(e, -EINVAL, "linux.namespaces must be an array of objects");
    r = json_get_string(entry, "type", "linux.namespaces", &type, e);
    if (r >= 0)
        r = json_get_string(entry, "path", "linux.namespaces", &path, e);
    if (r < 0)
        return r;
    while (kind < _NS_MAX && strcmp(type ?: "", names[kind]) != 0)
        kind++;
    if (kind == _NS_MAX)
        return error_set(e, -EOPNOTSUPP, "linux.namespaces: a namespace of type \"%.32s\" is not supported",
                         type ?: "");
    if (kind >= _NS_SUPPORTED)
        return error_set(e, -EOPNOTSUPP, "linux.namespaces: %s namespaces are not supported", names[kind]);
    if (n->present[kind])
        return error_set(e, -EINVAL, "linux.namespaces: there are two entries for \"%s\"", names[kind]);
    n->present[kind] = true;
    n->path[kind] = path && *path ? path : NULL;
    return 0;
}

static int read_all(json_t *namespaces, Namespaces *n, Error *e)
{
    json_t *entry;
    size_t i;

    json_array_foreach (namespaces, i, entry) {
        int r = read_one(entry, n, e);

        if (r < 0)
            return r;
    }
    return 0;
}

/* A namespace that is not named is the node's. */
static int check_present(const Namespaces *n, Error *e)
{
    static const struct {
        NamespaceKind kind;
        const char *what;
    } needed[] = {
        {NS_NETWORK, "the node's network (hostNetwork, --net-host)"},
        {NS_PID, "the node's processes (hostPID)"},
        {NS_IPC, "the node's inter-process communication (hostIPC)"},
        {NS_UTS, "the node's host name"},
        {NS_MOUNT, "the node's mounts"},
    };

    for (size_t i = 0; i < ELEMENTSOF(needed); i++)
        if (!n->present[needed[i].kind])
            return error_set(e, -EOPNOTSUPP,
                             "linux.namespaces: the container asks for %s: what runs in a VM cannot share it",
                             needed[i].what);
    if (n->path[NS_MOUNT])
        return error_set(e, -EOPNOTSUPP,
                         "linux.namespaces: the mounts of another process (%.128s) cannot be shared",
                         n->path[NS_MOUNT]);
    return 0;
}

int check_pod_namespaces(json_t *namespaces, Error *e)
{
    static const NamespaceKind own[] = {NS_CGROUP, NS_IPC, NS_PID, NS_UTS};
    Namespaces n = {};
    int r = read_all(namespaces, &n, e);

    if (r >= 0)
        r = check_present(&n, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTSOF(own); i++)
        if (n.path[own[i]])
            return error_set(e, -EOPNOTSUPP,
                             "linux.namespaces: the %s namespace %.128s is on the node: a VM cannot share it",
                             names[own[i]], n.path[own[i]]);
    return 0;
}

/* Whether a path is the pod's: containerd names it by the PID that it knows for the sandbox, which is the
 * shim's. */
static bool is_of_pod(const char *path, NamespaceKind kind, const OciSettings *settings)
{
    char expected[64];

    if (kind == NS_NETWORK && settings->netns && strcmp(path, settings->netns) == 0)
        return true;
    if (settings->pod_pid <= 0)
        return false;
    snprintf(expected, sizeof(expected), "/proc/%ld/ns/%s", (long)settings->pod_pid,
             kind == NS_NETWORK ? "net" : names[kind]);
    return strcmp(path, expected) == 0;
}

static int check_shared(const Namespaces *n, const OciSettings *settings, Error *e)
{
    for (NamespaceKind kind = 0; kind < _NS_SUPPORTED; kind++)
        if (n->path[kind] && !is_of_pod(n->path[kind], kind, settings))
            return error_set(
                e, -EOPNOTSUPP,
                "linux.namespaces: the %s namespace %.128s is not the pod's: a VM cannot share it",
                names[kind], n->path[kind]);
    return 0;
}

static int add(json_t *out, NamespaceKind kind, Error *e)
{
    json_t *entry = json_object();
    int r = spec_append(out, entry, e);

    return r < 0 ? r : spec_set(entry, "type", json_string(names[kind]), e);
}

/* The VM itself is the pod's network, IPC and UTS namespace. A container that shares the pod's has none of
 * its own; nor has a plain container, which is the only one in its pod. */
int rebuild_namespaces(json_t *namespaces, const Bundle *bundle, const OciSettings *settings, OciPlan *plan,
                       json_t **ret, bool *ret_own_uts, Error *e)
{
    bool plain = bundle->kind == BUNDLE_PLAIN, own_uts;
    _cleanup_json_ json_t *out = json_array();
    Namespaces n = {};
    int r = read_all(namespaces, &n, e);

    if (r >= 0)
        r = check_present(&n, e);
    if (r < 0)
        return r;
    if (plain) {
        r = check_pod_namespaces(namespaces, e);
    } else {
        r = check_shared(&n, settings, e);
        if (r >= 0 && !n.path[NS_NETWORK])
            r = error_set(
                e, -EOPNOTSUPP,
                "linux.namespaces: a container in a pod cannot have a network namespace of its own");
    }
    own_uts = !plain && !n.path[NS_UTS];
    if (r >= 0)
        r = add(out, NS_MOUNT, e);
    if (r >= 0)
        r = add(out, NS_CGROUP, e);
    if (r >= 0)
        r = add(out, NS_PID, e);
    if (r >= 0 && !plain && !n.path[NS_IPC])
        r = add(out, NS_IPC, e);
    if (r >= 0 && own_uts)
        r = add(out, NS_UTS, e);
    if (r < 0)
        return r;
    plan->share_pod_pid = n.path[NS_PID];
    *ret_own_uts = own_uts;
    *ret = TAKE_PTR(out);
    return 0;
}
