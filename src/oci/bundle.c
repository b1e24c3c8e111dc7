/* SPDX-License-Identifier: MIT */

#include "oci/bundle.h"

#include <errno.h>
#include <string.h>

#include "base/fs.h"
#include "oci/bigint.h"
#include "oci/ids.h"

#define CONTAINER_TYPE "io.kubernetes.cri.container-type"
#define SANDBOX_ID "io.kubernetes.cri.sandbox-id"

const char *bundle_annotation(const Bundle *bundle, const char *name)
{
    return json_string_value(json_object_get(bundle->annotations, name));
}

static int read_kind(Bundle *b, const char *what, Error *e)
{
    const char *type = bundle_annotation(b, CONTAINER_TYPE);

    if (!type) {
        b->kind = BUNDLE_PLAIN;
        return 0;
    }
    if (strcmp(type, "sandbox") == 0)
        b->kind = BUNDLE_SANDBOX;
    else if (strcmp(type, "container") == 0)
        b->kind = BUNDLE_CONTAINER;
    else
        return error_set(e, -EINVAL, "%s: annotation %s is \"%.64s\", but must be sandbox or container", what,
                         CONTAINER_TYPE, type);
    b->sandbox_id = bundle_annotation(b, SANDBOX_ID);
    if (!b->sandbox_id)
        return error_set(e, -EINVAL, "%s: annotation %s is missing beside %s", what, SANDBOX_ID,
                         CONTAINER_TYPE);
    if (id_check(b->sandbox_id, SANDBOX_ID, e) < 0)
        return error_prefix(e, "%s", what);
    return 0;
}

static int check_annotations(Bundle *b, const char *what, Error *e)
{
    const char *key;
    json_t *value;

    json_object_foreach (b->annotations, key, value) {
        if (!json_is_string(value))
            return error_set(e, -EINVAL, "%s: annotation \"%.128s\" must be a string", what, key);
    }
    return 0;
}

static int read_netns(Bundle *b, json_t *namespaces, const char *what, Error *e)
{
    size_t i;
    json_t *ns;

    json_array_foreach (namespaces, i, ns) {
        const char *type = json_string_value(json_object_get(ns, "type"));
        const char *path = NULL;
        int r;

        if (!type || strcmp(type, "network") != 0)
            continue;
        r = json_get_string(ns, "path", what, &path, e);
        if (r < 0)
            return r;
        if (path && *path && *path != '/')
            return error_set(e, -EINVAL, "%s: the network namespace's path \"%.128s\" is not absolute", what,
                             path);
        b->own_netns = true;
        b->netns_path = path && *path ? path : NULL;
    }
    return 0;
}

static int read_linux(Bundle *b, const char *what, Error *e)
{
    json_t *lin = NULL, *namespaces = NULL;
    int r = json_get_object(b->spec, "linux", what, &lin, e);

    if (r < 0)
        return r;
    if (r == 0)
        return error_set(e, -EINVAL, "%s: \"linux\" is missing: only Linux containers can be run", what);
    r = json_get_object(lin, "resources", what, &b->resources, e);
    if (r >= 0)
        r = json_get_string(lin, "cgroupsPath", what, &b->cgroups_path, e);
    if (r >= 0)
        r = json_get_array(lin, "namespaces", what, &namespaces, e);
    if (r < 0)
        return r;
    return read_netns(b, namespaces, what, e);
}

static int read_fields(Bundle *b, const char *what, Error *e)
{
    json_t *process = NULL, *root = NULL;
    int r;

    b->hostname = b->domainname = b->cgroups_path = "";
    if (!json_is_object(b->spec))
        return error_set(e, -EINVAL, "%s: must be a JSON object", what);
    r = json_get_object(b->spec, "annotations", what, &b->annotations, e);
    if (r >= 0)
        r = check_annotations(b, what, e);
    if (r >= 0)
        r = read_kind(b, what, e);
    if (r >= 0)
        r = json_get_string(b->spec, "hostname", what, &b->hostname, e);
    if (r >= 0)
        r = json_get_string(b->spec, "domainname", what, &b->domainname, e);
    if (r >= 0)
        r = json_get_object(b->spec, "process", what, &process, e);
    if (r > 0)
        r = json_get_bool(process, "terminal", what, &b->terminal, e);
    if (r >= 0)
        r = json_get_object(b->spec, "root", what, &root, e);
    if (r > 0)
        r = json_get_bool(root, "readonly", what, &b->root_readonly, e);
    if (r >= 0)
        r = read_linux(b, what, e);
    return r < 0 ? r : 0;
}

int bundle_parse(const char *text, size_t n, const char *what, Bundle **ret, Error *e)
{
    _cleanup_bundle_ Bundle *b = NULL;
    _cleanup_free_ char *wide = NULL;
    size_t wide_size;
    int r;

    if (n > BUNDLE_CONFIG_MAX)
        return error_set(e, -EFBIG, "%s: has more than %u bytes", what, BUNDLE_CONFIG_MAX);
    b = calloc(1, sizeof(*b));
    if (!b || bigint_widen(text, n, &wide, &wide_size) < 0)
        return error_set_errno(e, -ENOMEM, "cannot read %s", what);
    r = json_parse(wide, wide_size, what, &b->spec, e);
    if (r < 0)
        return r;
    r = read_fields(b, what, e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(b);
    return 0;
}

int bundle_load(const char *directory, Bundle **ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, "config.json"), *text = NULL;
    size_t n;
    int r;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot read the bundle %s", directory);
    r = fs_read_file(path, BUNDLE_CONFIG_MAX, &text, &n);
    if (r < 0)
        return error_set_errno(e, r, "cannot read %s", path);
    return bundle_parse(text, n, path, ret, e);
}

Bundle *bundle_free(Bundle *bundle)
{
    if (bundle)
        json_decref(bundle->spec);
    free(bundle);
    return NULL;
}
