/* SPDX-License-Identifier: MIT */

#include "oci/source.h"

#include <string.h>

#define COMPONENTS_MAX 64

/* A path taken apart, without empty components. */
typedef struct Components {
    struct {
        const char *text;
        size_t size;
    } items[COMPONENTS_MAX];
    size_t n;
} Components;

static bool split(const char *path, Components *c)
{
    c->n = 0;
    for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
        size_t n = strcspn(path, "/");

        if (c->n == COMPONENTS_MAX)
            return false;
        c->items[c->n].text = path;
        c->items[c->n++].size = n;
        path += n;
    }
    return true;
}

/* Whether component `i`, counted from the end (0 is the last), is `text`. */
static bool is_at(const Components *c, size_t i, const char *text)
{
    return i < c->n && c->items[c->n - 1 - i].size == strlen(text) &&
           memcmp(c->items[c->n - 1 - i].text, text, strlen(text)) == 0;
}

static bool begins_at(const Components *c, size_t i, const char *text)
{
    return i < c->n && c->items[c->n - 1 - i].size >= strlen(text) &&
           memcmp(c->items[c->n - 1 - i].text, text, strlen(text)) == 0;
}

static bool is_system(const Components *c)
{
    static const char *const places[] = {"dev", "proc", "sys"};

    if (c->n == 0)
        return true;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        if (is_at(c, c->n - 1, places[i]))
            return true;
    return false;
}

/* …/pods/UID/volumes/kubernetes.io~KIND/NAME, and whatever below it for configuration. */
static SourceKind kubelet_kind(const Components *c, const char **ret_name, size_t *ret_size)
{
    static const char *const configuration[] = {"configmap", "secret", "projected", "downward-api"};
    char plugin[64];

    if (is_at(c, 2, "volumes") && is_at(c, 4, "pods") && is_at(c, 1, "kubernetes.io~empty-dir")) {
        *ret_name = c->items[c->n - 1].text;
        *ret_size = c->items[c->n - 1].size;
        return SOURCE_EMPTY_DIR;
    }
    for (size_t i = 0; i + 4 < c->n; i++) {
        if (is_at(c, i + 2, "volume-subpaths") && is_at(c, i + 4, "pods"))
            return SOURCE_SUBPATH;
        if (!is_at(c, i + 2, "volumes") || !is_at(c, i + 4, "pods") || !begins_at(c, i + 1, "kubernetes.io~"))
            continue;
        for (size_t k = 0; k < sizeof(configuration) / sizeof(configuration[0]); k++) {
            strcpy(plugin, "kubernetes.io~");
            strcat(plugin, configuration[k]);
            if (is_at(c, i + 1, plugin))
                return SOURCE_CONFIG;
        }
    }
    return SOURCE_OTHER;
}

SourceKind source_kind(const char *path, const char *sandbox_id, const char *container_id,
                       const char **ret_name, size_t *ret_size)
{
    Components c;

    if (!split(path, &c))
        return SOURCE_OTHER;
    if (is_system(&c))
        return SOURCE_SYSTEM;
    /* …/io.containerd.grpc.v1.cri/sandboxes/ID/shm */
    if (is_at(&c, 0, "shm") && is_at(&c, 1, sandbox_id) && is_at(&c, 2, "sandboxes") &&
        begins_at(&c, 3, "io.containerd."))
        return SOURCE_SHM;
    /* …/io.containerd.grpc.v1.cri/containers/ID/volumes/VOLUME */
    if (is_at(&c, 1, "volumes") && is_at(&c, 2, container_id) && is_at(&c, 3, "containers") &&
        begins_at(&c, 4, "io.containerd."))
        return SOURCE_IMAGE_VOLUME;
    return kubelet_kind(&c, ret_name, ret_size);
}
