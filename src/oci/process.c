/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/bigint.h"
#include "oci/rebuild.h"

#define ID_NUMBER_MAX 4294967294LL /* the one above means "unchanged" to the kernel */

/* The agent has -1000, which no container may share: the kernel then kills workload first. */
#define OOM_SCORE_MIN -999

static const char *const limits[] = {
    "RLIMIT_AS",      "RLIMIT_CORE",     "RLIMIT_CPU",        "RLIMIT_DATA",   "RLIMIT_FSIZE", "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE",       "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS",
    "RLIMIT_RTPRIO",  "RLIMIT_RTTIME",   "RLIMIT_SIGPENDING", "RLIMIT_STACK",
};

static int rebuild_user(json_t *process, json_t *out, Error *e)
{
    static const SpecField fields[] = {
        {"uid", SPEC_NUMBER, 0, ID_NUMBER_MAX},
        {"gid", SPEC_NUMBER, 0, ID_NUMBER_MAX},
        {"umask", SPEC_NUMBER, 0, 0777},
        {NULL},
    };
    json_t *user, *groups, *group, *new_user = json_object(), *new_groups;
    size_t i;
    int r = spec_set(out, "user", new_user, e);

    if (r >= 0)
        r = spec_object(process, "process", "user", &user, e);
    if (r >= 0)
        r = spec_copy(user, "process.user", fields, new_user, e);
    if (r >= 0)
        r = spec_array(user, "process.user", "additionalGids", &groups, e);
    if (r < 0 || !groups)
        return r;
    new_groups = json_array();
    r = spec_set(new_user, "additionalGids", new_groups, e);
    if (r < 0)
        return r;
    json_array_foreach (groups, i, group) {
        if (!json_is_integer(group) || json_integer_value(group) < 0 ||
            json_integer_value(group) > ID_NUMBER_MAX)
            return error_set(e, -EINVAL, "process.user.additionalGids must be an array of group ids");
        r = spec_append(new_groups, json_integer(json_integer_value(group)), e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_capability(const char *name, const char *set, Error *e)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    if (strncmp(name, "CAP_", 4) != 0 || name[n] || n > 64)
        return error_set(e, -EINVAL, "process.capabilities.%s: \"%.64s\" is not a capability", set, name);
    return 0;
}

static int rebuild_capabilities(json_t *process, json_t *out, Error *e)
{
    static const SpecField fields[] = {
        {"bounding", SPEC_STRINGS},  {"effective", SPEC_STRINGS}, {"inheritable", SPEC_STRINGS},
        {"permitted", SPEC_STRINGS}, {"ambient", SPEC_STRINGS},   {NULL},
    };
    json_t *capabilities, *copy = json_object(), *names, *name;
    const char *set;
    size_t i;
    int r = spec_set(out, "capabilities", copy, e);

    if (r >= 0)
        r = spec_object(process, "process", "capabilities", &capabilities, e);
    if (r >= 0)
        r = spec_copy(capabilities, "process.capabilities", fields, copy, e);
    if (r < 0)
        return r;
    json_object_foreach (copy, set, names) {
        json_array_foreach (names, i, name) {
            r = check_capability(json_string_value(name), set, e);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* One of the two values of a limit: a new reference, or NULL for what is no limit. */
static json_t *limit_value(json_t *value)
{
    if (bigint_is(value) || (json_is_integer(value) && json_integer_value(value) == -1))
        return json_integer(INT64_MAX);
    if (json_is_integer(value) && json_integer_value(value) >= 0)
        return json_integer(json_integer_value(value));
    return NULL;
}

static int rebuild_limit(json_t *limit, json_t *out, Error *e)
{
    const char *type = json_string_value(json_object_get(limit, "type"));
    _cleanup_json_ json_t *hard = NULL, *soft = NULL;
    json_t *copy;
    size_t i = 0;
    int r;

    while (type && i < ELEMENTSOF(limits) && strcmp(type, limits[i]) != 0)
        i++;
    if (!type || i == ELEMENTSOF(limits))
        return error_set(e, -EINVAL, "process.rlimits: \"%.64s\" is not a resource limit", type ?: "");
    hard = limit_value(json_object_get(limit, "hard"));
    soft = limit_value(json_object_get(limit, "soft"));
    if (!hard || !soft)
        return error_set(e, -EINVAL, "process.rlimits: %s needs numbers \"hard\" and \"soft\"", type);
    copy = json_object();
    r = spec_append(out, copy, e);
    if (r >= 0)
        r = spec_set(copy, "type", json_string(type), e);
    if (r >= 0)
        r = spec_set(copy, "hard", json_incref(hard), e);
    if (r >= 0)
        r = spec_set(copy, "soft", json_incref(soft), e);
    return r;
}

static int rebuild_limits(json_t *process, json_t *out, Error *e)
{
    json_t *list, *limit, *copy;
    size_t i;
    int r = spec_array(process, "process", "rlimits", &list, e);

    if (r < 0 || !list)
        return r;
    copy = json_array();
    r = spec_set(out, "rlimits", copy, e);
    if (r < 0)
        return r;
    json_array_foreach (list, i, limit) {
        r = rebuild_limit(limit, copy, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The guest has no security module, so a label that asks for one would be without effect. */
static int check_labels(json_t *process, const OciSettings *settings, Error *e)
{
    const char *profile = json_string_value(json_object_get(process, "apparmorProfile"));
    const char *label = json_string_value(json_object_get(process, "selinuxLabel"));

    if (settings->ignore_lsm)
        return 0;
    if (profile && *profile && strcmp(profile, "unconfined") != 0)
        return error_set(
            e, -EOPNOTSUPP,
            "process.apparmorProfile: the AppArmor profile \"%.128s\" cannot be enforced in a VM "
            "(\"ignore_lsm\": true in config.json ignores it)",
            profile);
    if (label && *label)
        return error_set(e, -EOPNOTSUPP,
                         "process.selinuxLabel: the SELinux label \"%.128s\" cannot be enforced in a VM "
                         "(\"ignore_lsm\": true in config.json ignores it)",
                         label);
    return 0;
}

static int rebuild_oom_score(json_t *process, json_t *out, Error *e)
{
    static const SpecField fields[] = {{"oomScoreAdj", SPEC_NUMBER, -1000, 1000}, {NULL}};
    json_t *score;
    int r = spec_copy(process, "process", fields, out, e);

    if (r < 0)
        return r;
    score = json_object_get(out, "oomScoreAdj");
    if (score && json_integer_value(score) < OOM_SCORE_MIN)
        json_integer_set(score, OOM_SCORE_MIN);
    return 0;
}

static int check_command(json_t *out, Error *e)
{
    const char *cwd = json_string_value(json_object_get(out, "cwd"));

    if (json_array_size(json_object_get(out, "args")) == 0)
        return error_set(e, -EINVAL, "process.args is empty: there is nothing to run");
    if (!cwd || *cwd != '/')
        return error_set(e, -EINVAL, "process.cwd is \"%.128s\", but must be an absolute path", cwd ?: "");
    return 0;
}

int rebuild_process(json_t *process, const OciSettings *settings, json_t **ret, Error *e)
{
    static const SpecField fields[] = {
        {"terminal", SPEC_BOOL}, {"args", SPEC_STRINGS},         {"env", SPEC_STRINGS},
        {"cwd", SPEC_STRING},    {"noNewPrivileges", SPEC_BOOL}, {NULL},
    };
    static const SpecField size_fields[] = {
        {"height", SPEC_NUMBER, 0, 65535},
        {"width", SPEC_NUMBER, 0, 65535},
        {NULL},
    };
    static const SpecRefusal refusals[] = {
        {"ioPriority", "the guest's disks have no priorities"},
        {"scheduler", "the guest's scheduler cannot be chosen"},
        {"execCPUAffinity", "the node's CPUs are not the VM's"},
        {NULL},
    };
    _cleanup_json_ json_t *out = json_object();
    json_t *size, *new_size;
    int r;

    if (!json_is_object(process))
        return error_set(e, -EINVAL, "\"process\" is missing or not an object: there is nothing to run");
    r = spec_refuse(process, "process", refusals, e);
    if (r >= 0)
        r = spec_copy(process, "process", fields, out, e);
    if (r >= 0)
        r = check_command(out, e);
    if (r >= 0)
        r = check_labels(process, settings, e);
    if (r >= 0)
        r = rebuild_user(process, out, e);
    if (r >= 0)
        r = rebuild_capabilities(process, out, e);
    if (r >= 0)
        r = rebuild_limits(process, out, e);
    if (r >= 0)
        r = rebuild_oom_score(process, out, e);
    if (r >= 0)
        r = spec_object(process, "process", "consoleSize", &size, e);
    if (r >= 0 && size) {
        new_size = json_object();
        r = spec_set(out, "consoleSize", new_size, e);
        if (r >= 0)
            r = spec_copy(size, "process.consoleSize", size_fields, new_size, e);
    }
    if (r < 0)
        return r;
    *ret = TAKE_PTR(out);
    return 0;
}
