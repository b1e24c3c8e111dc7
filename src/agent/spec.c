/* SPDX-License-Identifier: MIT */

#include "agent/spec.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"

static const char what[] = "the container's spec";

/* Gets a member that must be an object, making an empty one where it is missing. */
static int object_member(json_t *object, const char *key, json_t **ret, Error *e)
{
    json_t *member = NULL;
    int r;

    r = json_get_object(object, key, what, &member, e);
    if (r < 0)
        return r;
    if (!member) {
        member = json_object();
        if (!member || json_object_set_new(object, key, member) < 0)
            return error_set(e, -ENOMEM, "out of memory");
    }
    *ret = member;
    return 0;
}

static int set_string(json_t *object, const char *key, const char *value, Error *e)
{
    if (json_object_set_new(object, key, json_string(value)) < 0)
        return error_set(e, -ENOMEM, "cannot set \"%s\" in %s", key, what);
    return 0;
}

static int join_pid_namespace(json_t *linux_object, const char *path, Error *e)
{
    json_t *namespaces = NULL, *entry;
    size_t i;
    int r;

    r = json_get_array(linux_object, "namespaces", what, &namespaces, e);
    if (r < 0)
        return r;
    if (!namespaces) {
        namespaces = json_array();
        if (!namespaces || json_object_set_new(linux_object, "namespaces", namespaces) < 0)
            return error_set(e, -ENOMEM, "out of memory");
    }
    json_array_foreach(namespaces, i, entry)
    {
        const char *type = json_string_value(json_object_get(entry, "type"));

        if (type && strcmp(type, "pid") == 0)
            return set_string(entry, "path", path, e);
    }
    if (json_array_append_new(namespaces, json_pack("{s:s, s:s}", "type", "pid", "path", path)) < 0)
        return error_set(e, -ENOMEM, "out of memory");
    return 0;
}

static int refuse_terminal(json_t *process, Error *e)
{
    bool terminal = false;
    int r;

    r = json_get_bool(process, "terminal", what, &terminal, e);
    if (r < 0)
        return r;
    return terminal ? error_set(e, -EOPNOTSUPP, "a terminal for the container is not implemented") : 0;
}

int spec_check_process(const void *text, size_t n, Error *e)
{
    _cleanup_json_ json_t *process = NULL;
    int r;

    if (n > AGENT_SPEC_MAX)
        return error_set(e, -EINVAL, "the process has %zu bytes, more than %i", n, AGENT_SPEC_MAX);
    r = json_parse(text, n, "the process", &process, e);
    if (r < 0)
        return r;
    if (!json_is_object(process))
        return error_set(e, -EINVAL, "the process is not an object");
    return refuse_terminal(process, e);
}

int spec_place(const void *text, size_t n, const SpecPlaces *places, char **ret, Error *e)
{
    _cleanup_json_ json_t *spec = NULL;
    json_t *process = NULL, *root, *linux_object;
    char *out;
    int r;

    if (n > AGENT_SPEC_MAX)
        return error_set(e, -EINVAL, "%s has %zu bytes, more than %i", what, n, AGENT_SPEC_MAX);
    r = json_parse(text, n, what, &spec, e);
    if (r < 0)
        return r;
    if (!json_is_object(spec))
        return error_set(e, -EINVAL, "%s is not an object", what);
    r = json_get_object(spec, "process", what, &process, e);
    if (r >= 0 && !process)
        r = error_set(e, -EINVAL, "%s has no \"process\"", what);
    if (r >= 0)
        r = refuse_terminal(process, e);
    if (r < 0)
        return r;
    r = object_member(spec, "root", &root, e);
    if (r >= 0)
        r = set_string(root, "path", places->root_path, e);
    if (r >= 0)
        r = object_member(spec, "linux", &linux_object, e);
    if (r >= 0)
        r = set_string(linux_object, "cgroupsPath", places->cgroups_path, e);
    if (r >= 0 && places->pid_namespace)
        r = join_pid_namespace(linux_object, places->pid_namespace, e);
    if (r < 0)
        return r;
    out = json_dumps(spec, JSON_COMPACT);
    if (!out)
        return error_set(e, -ENOMEM, "cannot write %s", what);
    *ret = out;
    return 0;
}
