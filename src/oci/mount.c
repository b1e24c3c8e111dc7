/* SPDX-License-Identifier: MIT */

#include "oci/mount.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/field.h"

static const char *const type_names[] = {
    [MOUNT_BIND] = "bind", [MOUNT_CGROUP] = "cgroup", [MOUNT_DEVPTS] = "devpts", [MOUNT_MQUEUE] = "mqueue",
    [MOUNT_PROC] = "proc", [MOUNT_SYSFS] = "sysfs",   [MOUNT_TMPFS] = "tmpfs",
};

/* Flags of any mount, passed on. */
static const char *const flags[] = {
    "async",      "atime",       "defaults",      "dev",       "diratime",    "dirsync",    "exec",
    "iversion",   "lazytime",    "noatime",       "nodev",     "nodiratime",  "noexec",     "noiversion",
    "nolazytime", "norelatime",  "nostrictatime", "nosuid",    "nosymfollow", "private",    "relatime",
    "rprivate",   "strictatime", "suid",          "symfollow", "sync",        "unbindable", "runbindable",
};

/* What a file system is given as data: the option's name with "=", and the characters its value may have. */
static const struct {
    MountType type;
    const char *name;
} data[] = {
    {MOUNT_TMPFS, "size="},     {MOUNT_TMPFS, "mode="},        {MOUNT_TMPFS, "uid="},
    {MOUNT_TMPFS, "gid="},      {MOUNT_TMPFS, "nr_inodes="},   {MOUNT_TMPFS, "nr_blocks="},
    {MOUNT_TMPFS, "tmpcopyup"}, {MOUNT_DEVPTS, "newinstance"}, {MOUNT_DEVPTS, "ptmxmode="},
    {MOUNT_DEVPTS, "mode="},    {MOUNT_DEVPTS, "gid="},        {MOUNT_DEVPTS, "uid="},
    {MOUNT_DEVPTS, "max="},     {MOUNT_PROC, "hidepid="},      {MOUNT_PROC, "subset="},
    {MOUNT_PROC, "gid="},       {MOUNT_CGROUP, "nsdelegate"},  {MOUNT_CGROUP, "memory_recursiveprot"},
};

#define DATA_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%"

const char *mount_type_name(MountType type)
{
    return type_names[type];
}

static bool in_list(const char *option, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(option, list[i]) == 0)
            return true;
    return false;
}

static bool is_data(const char *option, MountType type)
{
    for (size_t i = 0; i < ELEMENTSOF(data); i++) {
        size_t n = strlen(data[i].name);

        if (data[i].type != type)
            continue;
        if (data[i].name[n - 1] != '=') {
            if (strcmp(option, data[i].name) == 0)
                return true;
        } else if (strncmp(option, data[i].name, n) == 0) {
            return option[n] && strlen(option + n) <= 32 && !option[n + strspn(option + n, DATA_CHARACTERS)];
        }
    }
    return false;
}

static bool is_label(const char *option)
{
    return strncmp(option, "context=", 8) == 0 || strncmp(option, "fscontext=", 10) == 0 ||
           strncmp(option, "defcontext=", 11) == 0 || strncmp(option, "rootcontext=", 12) == 0;
}

static int read_option(Mount *m, const char *option, bool ignore_lsm, Error *e)
{
    static const char *const read_only[] = {"ro", "rro"}, *const read_write[] = {"rw", "rrw"};
    static const char *const bind[] = {"bind", "rbind"};
    static const char *const propagation[] = {"shared", "rshared", "slave", "rslave"};

    if (in_list(option, read_only, ELEMENTSOF(read_only)))
        m->read_only = true;
    else if (in_list(option, read_write, ELEMENTSOF(read_write)))
        m->read_only = false;
    else if (in_list(option, bind, ELEMENTSOF(bind)))
        m->type = MOUNT_BIND;
    else if (in_list(option, propagation, ELEMENTSOF(propagation)))
        m->propagation = option;
    else if (is_label(option) && ignore_lsm)
        return 0;
    else if (in_list(option, flags, ELEMENTSOF(flags)) || is_data(option, m->type))
        return spec_append(m->options, json_string_nocheck(option), e);
    else
        return error_set(e, -EOPNOTSUPP, "mount %s: the option \"%.128s\" is not supported for %s",
                         m->destination, option, mount_type_name(m->type));
    return 0;
}

static int read_type(Mount *m, const char *type, json_t *options, Error *e)
{
    json_t *option;
    size_t i;

    json_array_foreach (options, i, option) {
        const char *s = json_string_value(option);

        if (s && (strcmp(s, "bind") == 0 || strcmp(s, "rbind") == 0)) {
            m->type = MOUNT_BIND;
            return 0;
        }
    }
    if (strcmp(type, "cgroup2") == 0)
        type = "cgroup";
    for (size_t t = 0; t < ELEMENTSOF(type_names); t++) {
        if (strcmp(type, type_names[t]) == 0) {
            m->type = (MountType)t;
            return 0;
        }
    }
    return error_set(e, -EOPNOTSUPP, "mount %s: the file system \"%.64s\" (source %.256s) is not supported",
                     m->destination, type, m->source);
}

static int read_strings(Mount *m, json_t *entry, json_t **ret_options, Error *e)
{
    static const SpecRefusal refusals[] = {
        {"uidMappings", "idmapped mounts need a user namespace"},
        {"gidMappings", "idmapped mounts need a user namespace"},
        {NULL},
    };
    const char *type = "";
    int r;

    m->source = "";
    r = json_get_string(entry, "destination", "mounts", &m->destination, e);
    if (r == 0)
        r = error_set(e, -EINVAL, "mounts: an entry has no \"destination\"");
    if (r >= 0)
        r = spec_check_path(m->destination, "mounts.destination", e);
    if (r >= 0 && strspn(m->destination, "/") == strlen(m->destination))
        r = error_set(e, -EINVAL, "mounts: the root of a container cannot be mounted over");
    if (r >= 0)
        r = json_get_string(entry, "source", "mounts", &m->source, e);
    if (r >= 0)
        r = json_get_string(entry, "type", "mounts", &type, e);
    if (r >= 0)
        r = spec_array(entry, "mounts", "options", ret_options, e);
    if (r >= 0)
        r = spec_refuse(entry, "mounts", refusals, e);
    return r < 0 ? r : read_type(m, type, *ret_options, e);
}

int mount_read(json_t *entry, bool ignore_lsm, Mount *ret, Error *e)
{
    _cleanup_mount_ Mount m = {.options = json_array()};
    json_t *options, *option;
    size_t i;
    int r;

    if (!json_is_object(entry))
        return error_set(e, -EINVAL, "mounts must be an array of objects");
    r = read_strings(&m, entry, &options, e);
    if (r < 0)
        return r;
    json_array_foreach (options, i, option) {
        if (!json_is_string(option))
            return error_set(e, -EINVAL, "mount %s: options must be strings", m.destination);
        r = read_option(&m, json_string_value(option), ignore_lsm, e);
        if (r < 0)
            return r;
    }
    if (m.type == MOUNT_BIND) {
        r = spec_check_path(m.source, "mounts.source", e);
        if (r < 0)
            return error_prefix(e, "mount %s", m.destination);
    }
    *ret = m;
    m.options = NULL;
    return 0;
}

void mount_clear(Mount *mount)
{
    json_decref(mount->options);
    mount->options = NULL;
}
