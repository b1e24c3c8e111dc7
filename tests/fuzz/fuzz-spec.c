/* SPDX-License-Identifier: MIT */

/* OCI specifications, as a bundle's config.json, as the process of an exec and as the resources of an update.
 * What is built must be JSON that holds nothing outside of what the rules allow. */

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "oci/plan.h"

/* A made-up host: what a path is follows from its last character. */
static int inspect(const char *path, OciHostFile *ret, void *userdata, Error *e)
{
    size_t n = strlen(path);

    *ret = (OciHostFile){
        .type = (OciHostType)((unsigned char)path[n - 1] % (OCI_HOST_OTHER + 1)),
        .type_name = "something",
        .mode = 0755,
        .empty = n & 1,
        .memory = n & 2,
        .memory_size = n,
    };
    return 0;
}

/* Bind mounts of the guest come from its own places only. */
static void check_mounts(json_t *spec)
{
    json_t *mount;
    size_t i;

    json_array_foreach (json_object_get(spec, "mounts"), i, mount) {
        const char *type = json_string_value(json_object_get(mount, "type"));
        const char *source = json_string_value(json_object_get(mount, "source"));

        if (!type || !source || json_string_value(json_object_get(mount, "destination"))[0] != '/')
            abort();
        if (strcmp(type, "bind") == 0 &&
            strncmp(source, OCI_GUEST_TREES "/", strlen(OCI_GUEST_TREES) + 1) != 0 &&
            strncmp(source, OCI_GUEST_VOLUMES "/", strlen(OCI_GUEST_VOLUMES) + 1) != 0)
            abort();
    }
}

static void check_plan(const OciPlan *plan)
{
    static const char *const known[] = {"ociVersion", "process", "root", "mounts", "linux", "hostname"};
    json_t *spec = json_loadb(plan->spec, plan->spec_size, JSON_REJECT_DUPLICATES, NULL), *value;
    const char *key;

    if (!spec)
        abort();
    json_object_foreach (spec, key, value) {
        size_t i = 0;

        while (i < ELEMENTSOF(known) && strcmp(key, known[i]) != 0)
            i++;
        if (i == ELEMENTSOF(known))
            abort();
    }
    check_mounts(spec);
    for (size_t i = 0; i < plan->n_trees; i++)
        if (strchr(plan->trees[i].name, '/'))
            abort();
    for (size_t i = 0; i < plan->n_volumes; i++)
        if (strchr(plan->volumes[i].name, '/'))
            abort();
    json_decref(spec);
}

static void as_bundle(const char *text, size_t n, const OciSettings *settings)
{
    _cleanup_json_ json_t *sysctls = NULL;
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    if (bundle_parse(text, n, "config.json", &bundle, &e) < 0) {
        if (!e.message)
            abort();
        return;
    }
    (void)oci_pod_check(bundle, settings, &sysctls, &e);
    error_clear(&e);
    if (oci_plan_new(bundle, settings, &plan, &e) < 0) {
        if (!e.message)
            abort();
        return;
    }
    check_plan(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const OciSettings settings = {
        .container_id = "container",
        .sandbox_id = "sandbox",
        .netns = "/run/netns/pod",
        .pod_pid = 4242,
        .ignore_lsm = size & 1,
        .inspect = inspect,
    };
    _cleanup_free_ char *process = NULL, *resources = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    bool terminal;

    as_bundle((const char *)data, size, &settings);
    (void)oci_exec_rebuild(data, size, &settings, &process, &terminal, &e);
    (void)oci_resources_rebuild(data, size, &resources, &e);
    return 0;
}
