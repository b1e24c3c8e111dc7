/* SPDX-License-Identifier: MIT */

/* Decides for each mount of a specification what becomes of it in the guest. */

#include <errno.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "oci/ids.h"
#include "oci/mount.h"
#include "oci/rebuild.h"
#include "oci/source.h"

#define MOUNTS_MAX 512

typedef struct Mounts {
    const OciSettings *settings;
    OciPlan *plan;
    json_t *out;
    Error *e;
} Mounts;

static int no_memory(Error *e)
{
    return error_set_errno(e, -ENOMEM, "cannot rebuild the container's mounts");
}

static int refuse(Mounts *m, const Mount *mount, const char *reason)
{
    return error_set(m->e, -EOPNOTSUPP, "mount %s: the node's %.256s cannot be served: %s",
                     mount->destination, mount->source, reason);
}

/* Adds a mount to the guest's specification. `source` NULL: the type's name. */
static int emit(Mounts *m, Mount *mount, const char *source, bool read_only)
{
    json_t *entry = json_object();
    int r = spec_append(m->out, entry, m->e);

    if (r >= 0)
        r = spec_set(entry, "destination", json_string_nocheck(mount->destination), m->e);
    if (r >= 0)
        r = spec_set(entry, "type", json_string(mount_type_name(mount->type)), m->e);
    if (r >= 0)
        r = spec_set(entry, "source", json_string_nocheck(source ?: mount_type_name(mount->type)), m->e);
    if (r >= 0 && mount->type == MOUNT_BIND)
        r = spec_append(mount->options, json_string("rbind"), m->e);
    if (r >= 0)
        r = spec_append(mount->options, json_string(read_only ? "ro" : "rw"), m->e);
    if (r >= 0)
        r = spec_set(entry, "options", json_incref(mount->options), m->e);
    return r;
}

static int add_tree(Mounts *m, Mount *mount, bool read_only, bool copy_back)
{
    OciPlan *plan = m->plan;
    OciTree *trees = realloc(plan->trees, (plan->n_trees + 1) * sizeof(*trees)), *tree;
    _cleanup_free_ char *source = NULL;

    if (!trees)
        return no_memory(m->e);
    plan->trees = trees;
    tree = &trees[plan->n_trees];
    *tree = (OciTree){.read_only = read_only, .copy_back = copy_back};
    tree->name = string_printf("%s-%zu", m->settings->container_id, plan->n_trees);
    plan->n_trees++;
    tree->source = strdup(mount->source);
    tree->destination = strdup(mount->destination);
    source = tree->name ? string_printf("%s/%s", OCI_GUEST_TREES, tree->name) : NULL;
    if (!source || !tree->source || !tree->destination)
        return no_memory(m->e);
    return emit(m, mount, source, read_only);
}

/* Gives the volume of that name (taken), new or, for one of the pod that is mounted twice, the one there is.
 */
static int add_volume(Mounts *m, Mount *mount, char *name, const OciVolume *as)
{
    _cleanup_free_ char *owned = name, *source = NULL;
    OciPlan *plan = m->plan;
    OciVolume *volumes, *volume;

    if (!owned)
        return no_memory(m->e);
    source = string_printf("%s/%s", OCI_GUEST_VOLUMES, owned);
    if (!source)
        return no_memory(m->e);
    for (size_t i = 0; i < plan->n_volumes; i++)
        if (strcmp(plan->volumes[i].name, owned) == 0)
            return emit(m, mount, source, mount->read_only);
    volumes = realloc(plan->volumes, (plan->n_volumes + 1) * sizeof(*volumes));
    if (!volumes)
        return no_memory(m->e);
    plan->volumes = volumes;
    volume = &volumes[plan->n_volumes++];
    *volume = *as;
    volume->name = TAKE_PTR(owned);
    volume->container_path = strdup(mount->destination);
    if (!volume->container_path)
        return no_memory(m->e);
    return emit(m, mount, source, mount->read_only);
}

static int inspect(Mounts *m, const Mount *mount, OciHostFile *ret)
{
    OciInspectFn f = m->settings->inspect ?: oci_host_inspect;
    int r;

    *ret = (OciHostFile){};
    r = f(mount->source, ret, m->settings->inspect_userdata, m->e);
    return r < 0 ? (error_prefix(m->e, "mount %s", mount->destination), r) : 0;
}

/* The memory that the containers of a pod share: a tmpfs of the size that containerd gave its own. */
static int plan_shm(Mounts *m, Mount *mount)
{
    OciVolume as = {.pod = true, .memory = true, .mode = 01777};
    OciHostFile host;
    int r = inspect(m, mount, &host);

    if (r < 0)
        return r;
    as.size_limit = host.memory ? host.memory_size : 0;
    return add_volume(m, mount, strdup("pod-shm"), &as);
}

/* A volume for what the image declares VOLUME: in the guest, filled there with what the image has at that
 * place. */
static int plan_image_volume(Mounts *m, Mount *mount)
{
    const OciVolume as = {.copy_up = true, .mode = 0755};

    return add_volume(m, mount,
                      string_printf("container-%s-%zu", m->settings->container_id, m->plan->n_volumes), &as);
}

static int plan_empty_dir(Mounts *m, Mount *mount, const char *name, size_t name_size,
                          const OciHostFile *host)
{
    _cleanup_free_ char *copy = strndup(name, name_size);
    OciVolume as = {.pod = true,
                    .memory = host->memory,
                    .size_limit = host->memory ? host->memory_size : 0,
                    .mode = host->mode & 07777,
                    .uid = host->uid,
                    .gid = host->gid};

    if (!copy)
        return no_memory(m->e);
    if (id_check(copy, "volume name", m->e) < 0)
        return error_prefix(m->e, "mount %s", mount->destination);
    if (!host->empty)
        return refuse(m, mount, "this emptyDir has content on the node, which would be hidden");
    return add_volume(m, mount, string_printf("pod-emptydir-%s", copy), &as);
}

/* Files that are the pod's or the container's own, so that nobody on the node waits for what is written
 * there. */
static bool is_pod_file(const char *destination)
{
    static const char *const files[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"};

    for (size_t i = 0; i < ELEMENTSOF(files); i++)
        if (strcmp(destination, files[i]) == 0)
            return true;
    return false;
}

static int plan_file(Mounts *m, Mount *mount, SourceKind kind)
{
    bool copy_back = !mount->read_only && !is_pod_file(mount->destination) && kind != SOURCE_CONFIG;

    if (kind == SOURCE_SUBPATH && copy_back)
        return refuse(m, mount, "a file of a volume (subPath) can only be mounted read-only");
    return add_tree(m, mount, mount->read_only || kind == SOURCE_CONFIG, copy_back);
}

static int plan_directory(Mounts *m, Mount *mount, SourceKind kind)
{
    if (kind == SOURCE_CONFIG)
        return add_tree(m, mount, true, false);
    if (kind == SOURCE_SUBPATH)
        return refuse(m, mount, "directories of a volume (subPath) are not supported yet");
    if (!mount->read_only)
        return refuse(m, mount,
                      "directories of the node that are shared for writing (hostPath, persistent volumes) "
                      "are not supported yet; mounted read-only, small ones are copied");
    return add_tree(m, mount, true, false);
}

static int plan_bind(Mounts *m, Mount *mount)
{
    const char *name = NULL;
    size_t name_size = 0;
    SourceKind kind =
        source_kind(mount->source, m->settings->sandbox_id, m->settings->container_id, &name, &name_size);
    OciHostFile host;
    int r;

    if (mount->propagation)
        return error_set(
            m->e, -EOPNOTSUPP,
            "mount %s: mounts of the node's %.256s cannot appear in a VM (mount propagation \"%s\")",
            mount->destination, mount->source, mount->propagation);
    if (kind == SOURCE_SHM)
        return plan_shm(m, mount);
    if (kind == SOURCE_IMAGE_VOLUME)
        return plan_image_volume(m, mount);
    if (kind == SOURCE_SYSTEM)
        return refuse(m, mount, "it belongs to the node's system");
    r = inspect(m, mount, &host);
    if (r < 0)
        return r;
    switch (host.type) {
    case OCI_HOST_MISSING:
        return error_set(m->e, -ENOENT, "mount %s: the node has no %.256s", mount->destination,
                         mount->source);
    case OCI_HOST_REGULAR:
        return plan_file(m, mount, kind);
    case OCI_HOST_DIRECTORY:
        if (kind == SOURCE_EMPTY_DIR)
            return plan_empty_dir(m, mount, name, name_size, &host);
        return plan_directory(m, mount, kind);
    case OCI_HOST_OTHER:
        break;
    }
    return error_set(m->e, -EOPNOTSUPP, "mount %s: the node's %.256s is %s, which a VM cannot share",
                     mount->destination, mount->source, host.type_name ?: "something else");
}

static int plan_mount(Mounts *m, json_t *entry)
{
    _cleanup_mount_ Mount mount = {};
    int r = mount_read(entry, m->settings->ignore_lsm, &mount, m->e);

    if (r < 0)
        return r;
    return mount.type == MOUNT_BIND ? plan_bind(m, &mount) : emit(m, &mount, NULL, mount.read_only);
}

int rebuild_mounts(json_t *mounts, const OciSettings *settings, OciPlan *plan, json_t **ret, Error *e)
{
    _cleanup_json_ json_t *out = json_array();
    Mounts m = {.settings = settings, .plan = plan, .out = out, .e = e};
    json_t *entry;
    size_t i;

    if (!out)
        return no_memory(e);
    if (json_array_size(mounts) > MOUNTS_MAX)
        return error_set(e, -E2BIG, "mounts: there are more than %i", MOUNTS_MAX);
    json_array_foreach (mounts, i, entry) {
        int r = plan_mount(&m, entry);

        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(out);
    return 0;
}
