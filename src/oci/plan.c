/* SPDX-License-Identifier: MIT */

#include "oci/plan.h"

#include <errno.h>
#include <string.h>

#include "base/fs.h"
#include "oci/bigint.h"
#include "oci/rebuild.h"

/* The agent takes no more, and a message of ttrpc has at most 4 MiB. */
#define GUEST_SPEC_MAX (2U << 20)

static int rebuild_root(const Bundle *bundle, json_t *out, Error *e)
{
    json_t *root = json_object();
    int r = spec_set(out, "root", root, e);

    if (r >= 0)
        r = spec_set(root, "path", json_string("rootfs"), e);
    if (r >= 0)
        r = spec_set(root, "readonly", json_boolean(bundle->root_readonly), e);
    return r;
}

static int check_propagation(json_t *lin, Error *e)
{
    const char *propagation = json_string_value(json_object_get(lin, "rootfsPropagation"));

    if (propagation && (strcmp(propagation, "shared") == 0 || strcmp(propagation, "rshared") == 0))
        return error_set(
            e, -EOPNOTSUPP,
            "linux.rootfsPropagation: mounts of a container in a VM cannot appear on the node (\"%s\")",
            propagation);
    return 0;
}

/* Parts of `linux` that are the same for a pod and for a container. */
static int check_linux(json_t *lin, const OciSettings *settings, Error *e)
{
    static const SpecRefusal refusals[] = {
        {"uidMappings", "user namespaces are not supported"},
        {"gidMappings", "user namespaces are not supported"},
        {"timeOffsets", "time namespaces are not supported"},
        {"intelRdt", "the node's caches cannot be divided from a VM"},
        {"personality", "it cannot be chosen in a VM"},
        {"memoryPolicy", "the node's memory banks are not the VM's"},
        {"netDevices", "the node's network devices cannot be moved into a VM"},
        {NULL},
    };
    const char *label = json_string_value(json_object_get(lin, "mountLabel"));
    int r = spec_refuse(lin, "linux", refusals, e);

    if (r < 0)
        return r;
    if (label && *label && !settings->ignore_lsm)
        return error_set(
            e, -EOPNOTSUPP,
            "linux.mountLabel: the SELinux label \"%.128s\" cannot be enforced in a VM "
            "(\"ignore_lsm\": true in config.json ignores it)",
            label);
    return check_propagation(lin, e);
}

static int check_hooks(json_t *spec, Error *e)
{
    json_t *hooks, *list;
    const char *name;
    int r = spec_object(spec, "config.json", "hooks", &hooks, e);

    if (r < 0)
        return r;
    json_object_foreach (hooks, name, list) {
        if (json_array_size(list) > 0 || !(json_is_array(list) || json_is_null(list)))
            return error_set(
                e, -EOPNOTSUPP,
                "hooks.%.32s is not supported: the node's hooks know nothing of a VM's containers", name);
    }
    return 0;
}

static int rebuild_devices_of(json_t *lin, json_t *resources, json_t *out, Error *e)
{
    json_t *devices, *copy = NULL;
    int r = spec_array(lin, "linux", "devices", &devices, e);

    if (r >= 0)
        r = rebuild_devices(devices, device_rules_allow_all(json_object_get(resources, "devices")), &copy, e);
    if (r >= 0 && copy)
        r = spec_set(out, "devices", copy, e);
    return r;
}

static int rebuild_seccomp_of(json_t *lin, json_t *out, Error *e)
{
    json_t *seccomp, *copy;
    int r = spec_object(lin, "linux", "seccomp", &seccomp, e);

    if (r < 0 || !seccomp)
        return r;
    r = rebuild_seccomp(seccomp, &copy, e);
    return r < 0 ? r : spec_set(out, "seccomp", copy, e);
}

static int rebuild_linux(const Bundle *bundle, const OciSettings *settings, OciPlan *plan, json_t *out,
                         bool *ret_own_uts, Error *e)
{
    static const SpecField fields[] = {{"maskedPaths", SPEC_PATHS}, {"readonlyPaths", SPEC_PATHS}, {NULL}};
    json_t *lin = json_object_get(bundle->spec, "linux"), *copy = json_object(), *part, *namespaces;
    _cleanup_free_ char *cgroup = string_printf("/containers/%s", settings->container_id);
    int r = spec_set(out, "linux", copy, e);

    if (r >= 0 && !cgroup)
        r = error_set_errno(e, -ENOMEM, "cannot rebuild the container's specification");
    if (r >= 0)
        r = check_linux(lin, settings, e);
    if (r >= 0)
        r = spec_array(lin, "linux", "namespaces", &namespaces, e);
    if (r >= 0)
        r = rebuild_namespaces(namespaces, bundle, settings, plan, &part, ret_own_uts, e);
    if (r >= 0)
        r = spec_set(copy, "namespaces", part, e);
    if (r >= 0)
        r = spec_set(copy, "cgroupsPath", json_string(cgroup), e);
    if (r >= 0)
        r = rebuild_resources(bundle->resources, true, &part, e);
    if (r >= 0)
        r = spec_set(copy, "resources", part, e);
    if (r >= 0)
        r = rebuild_devices_of(lin, bundle->resources, copy, e);
    if (r >= 0)
        r = rebuild_seccomp_of(lin, copy, e);
    if (r >= 0)
        r = spec_copy(lin, "linux", fields, copy, e);
    if (r >= 0 && bundle->kind == BUNDLE_CONTAINER && json_object_size(json_object_get(lin, "sysctl")) > 0)
        r = error_set(e, -EOPNOTSUPP,
                      "linux.sysctl: sysctls are set for a whole pod, not for one of its containers");
    return r;
}

static int rebuild_all(const Bundle *bundle, const OciSettings *settings, OciPlan *plan, json_t *out,
                       Error *e)
{
    json_t *part, *mounts;
    bool own_uts = false;
    int r = check_hooks(bundle->spec, e);

    /* 1.0.2 is what any crun of the guest knows; newer fields are not in what is built here. */
    if (r >= 0)
        r = spec_set(out, "ociVersion", json_string("1.0.2"), e);
    if (r >= 0)
        r = rebuild_process(json_object_get(bundle->spec, "process"), settings, &part, e);
    if (r >= 0)
        r = spec_set(out, "process", part, e);
    if (r >= 0)
        r = rebuild_root(bundle, out, e);
    if (r >= 0)
        r = spec_array(bundle->spec, "config.json", "mounts", &mounts, e);
    if (r >= 0)
        r = rebuild_mounts(mounts, settings, plan, &part, e);
    if (r >= 0)
        r = spec_set(out, "mounts", part, e);
    if (r >= 0)
        r = rebuild_linux(bundle, settings, plan, out, &own_uts, e);
    if (r >= 0 && own_uts && *bundle->hostname)
        r = spec_set(out, "hostname", json_string_nocheck(bundle->hostname), e);
    return r;
}

static int dump(json_t *json, char **ret, size_t *ret_size, Error *e)
{
    _cleanup_free_ char *text = json_dumps(json, JSON_COMPACT);
    size_t n;

    if (!text)
        return error_set_errno(e, -ENOMEM, "cannot write the guest's specification");
    n = strlen(text);
    if (n > GUEST_SPEC_MAX)
        return error_set(e, -E2BIG,
                         "the container's specification has %zu bytes, more than the %u that the guest takes",
                         n, GUEST_SPEC_MAX);
    *ret = TAKE_PTR(text);
    if (ret_size)
        *ret_size = n;
    return 0;
}

int oci_plan_new(const Bundle *bundle, const OciSettings *settings, OciPlan **ret, Error *e)
{
    _cleanup_oci_plan_ OciPlan *plan = calloc(1, sizeof(*plan));
    _cleanup_json_ json_t *out = json_object();
    int r;

    if (!plan || !out)
        return error_set_errno(e, -ENOMEM, "cannot rebuild the container's specification");
    if (bundle->kind == BUNDLE_SANDBOX)
        return error_set(e, -EINVAL, "the sandbox container has no process in the guest");
    plan->terminal = bundle->terminal;
    plan->root_readonly = bundle->root_readonly;
    r = rebuild_all(bundle, settings, plan, out, e);
    if (r >= 0)
        r = dump(out, &plan->spec, &plan->spec_size, e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(plan);
    return 0;
}

int oci_plan_collect(OciPlan *plan, uint64_t inline_max, Error *e)
{
    FileTreeLimits left = {.bytes = inline_max, .entries = FILE_TREE_ENTRIES_MAX};

    for (size_t i = 0; i < plan->n_trees; i++) {
        OciTree *tree = &plan->trees[i];
        _cleanup_file_tree_ FileTree *files = NULL;
        int r = file_tree_read(tree->source, &left, &files, e);

        if (r == -EFBIG) {
            error_prefix(e,
                         "mount %s: too much to be copied into the guest (all such mounts of a container: "
                         "\"inline_max_kb\" %llu, %i files)",
                         tree->destination, (unsigned long long)(inline_max >> 10), FILE_TREE_ENTRIES_MAX);
            return r;
        }
        if (r < 0) {
            error_prefix(e, "mount %s", tree->destination);
            return r;
        }
        left.bytes -= files->bytes;
        left.entries -= files->n_entries;
        file_tree_free(tree->files);
        tree->files = TAKE_PTR(files);
    }
    return 0;
}

OciPlan *oci_plan_free(OciPlan *plan)
{
    if (!plan)
        return NULL;
    for (size_t i = 0; i < plan->n_trees; i++) {
        free(plan->trees[i].name);
        free(plan->trees[i].source);
        free(plan->trees[i].destination);
        file_tree_free(plan->trees[i].files);
    }
    for (size_t i = 0; i < plan->n_volumes; i++) {
        free(plan->volumes[i].name);
        free(plan->volumes[i].container_path);
    }
    free(plan->trees);
    free(plan->volumes);
    free(plan->spec);
    free(plan);
    return NULL;
}

int oci_pod_check(const Bundle *bundle, const OciSettings *settings, json_t **ret_sysctls, Error *e)
{
    json_t *lin = json_object_get(bundle->spec, "linux"), *namespaces, *sysctls;
    int r = check_hooks(bundle->spec, e);

    if (r >= 0)
        r = check_linux(lin, settings, e);
    if (r >= 0)
        r = spec_array(lin, "linux", "namespaces", &namespaces, e);
    if (r >= 0)
        r = check_pod_namespaces(namespaces, e);
    if (r >= 0)
        r = spec_object(lin, "linux", "sysctl", &sysctls, e);
    return r < 0 ? r : rebuild_sysctls(sysctls, ret_sysctls, e);
}

/* Text of an object that came with a call. */
static int parse_object(const void *text, size_t n, const char *what, json_t **ret, Error *e)
{
    _cleanup_json_ json_t *json = NULL;
    _cleanup_free_ char *wide = NULL;
    size_t size;
    int r;

    if (n > BUNDLE_CONFIG_MAX)
        return error_set(e, -EFBIG, "%s has more than %u bytes", what, BUNDLE_CONFIG_MAX);
    if (bigint_widen(text, n, &wide, &size) < 0)
        return error_set_errno(e, -ENOMEM, "cannot read %s", what);
    r = json_parse(wide, size, what, &json, e);
    if (r < 0)
        return r;
    if (!json_is_object(json))
        return error_set(e, -EINVAL, "%s must be a JSON object", what);
    *ret = TAKE_PTR(json);
    return 0;
}

int oci_exec_rebuild(const void *text, size_t n, const OciSettings *settings, char **ret, bool *ret_terminal,
                     Error *e)
{
    _cleanup_json_ json_t *json = NULL, *out = NULL;
    int r = parse_object(text, n, "process of an exec", &json, e);

    if (r >= 0)
        r = rebuild_process(json, settings, &out, e);
    if (r >= 0)
        r = dump(out, ret, NULL, e);
    if (r < 0)
        return r;
    if (ret_terminal)
        *ret_terminal = json_is_true(json_object_get(out, "terminal"));
    return 0;
}

int oci_resources_rebuild(const void *text, size_t n, char **ret, Error *e)
{
    _cleanup_json_ json_t *json = NULL, *out = NULL;
    int r = parse_object(text, n, "resources of an update", &json, e);

    if (r >= 0)
        r = rebuild_resources(json, false, &out, e);
    return r < 0 ? r : dump(out, ret, NULL, e);
}
