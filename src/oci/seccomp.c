/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/rebuild.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

static const char *const actions[] = {
    "SCMP_ACT_ALLOW",       "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",   "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
};
static const char *const operators[] = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",        "SCMP_CMP_EQ",
    "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
};
static const char *const flags[] = {
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
};

static int check_word(const char *word, const char *const *list, size_t n, const char *what, Error *e)
{
    for (size_t i = 0; word && i < n; i++)
        if (strcmp(word, list[i]) == 0)
            return 0;
    return error_set(e, -EOPNOTSUPP, "linux.seccomp: the %s \"%.64s\" is not supported", what, word ?: "");
}

/* Names of system calls and architectures; which there are is for the guest's libseccomp to say. */
static int check_names(json_t *names, const char *prefix, const char *what, Error *e)
{
    json_t *name;
    size_t i;

    json_array_foreach (names, i, name) {
        const char *s = json_string_value(name);

        if (strncmp(s, prefix, strlen(prefix)) != 0 || !*s || s[strspn(s, NAME_CHARACTERS)] || strlen(s) > 64)
            return error_set(e, -EINVAL, "linux.seccomp: \"%.64s\" is not a name of %s", s, what);
    }
    return 0;
}

static int copy_arguments(json_t *rule, json_t *out, Error *e)
{
    static const SpecField fields[] = {
        {"index", SPEC_NUMBER, 0, 5},
        {"value", SPEC_NUMBER, 0, INT64_MAX},
        {"valueTwo", SPEC_NUMBER, 0, INT64_MAX},
        {"op", SPEC_STRING},
        {NULL},
    };
    json_t *arguments, *argument, *copies;
    size_t i;
    int r = spec_array(rule, "linux.seccomp.syscalls", "args", &arguments, e);

    if (r < 0 || !arguments)
        return r;
    copies = json_array();
    r = spec_set(out, "args", copies, e);
    if (r < 0)
        return r;
    json_array_foreach (arguments, i, argument) {
        json_t *copy = json_object();

        r = spec_append(copies, copy, e);
        if (r >= 0)
            r = spec_copy(argument, "linux.seccomp.syscalls.args", fields, copy, e);
        if (r >= 0)
            r = check_word(json_string_value(json_object_get(copy, "op")), operators, ELEMENTSOF(operators),
                           "comparison", e);
        if (r < 0)
            return r;
        if (!json_object_get(copy, "index") || !json_object_get(copy, "value"))
            return error_set(e, -EINVAL, "linux.seccomp.syscalls.args: index or value is missing");
    }
    return 0;
}

static int copy_rule(json_t *rule, json_t *out, Error *e)
{
    static const SpecField fields[] = {
        {"names", SPEC_STRINGS},
        {"action", SPEC_STRING},
        {"errnoRet", SPEC_NUMBER, 0, 4095},
        {NULL},
    };
    int r;

    if (!json_is_object(rule))
        return error_set(e, -EINVAL, "linux.seccomp.syscalls must be an array of objects");
    r = spec_copy(rule, "linux.seccomp.syscalls", fields, out, e);
    if (r >= 0)
        r = check_names(json_object_get(out, "names"), "", "a system call", e);
    if (r >= 0)
        r = check_word(json_string_value(json_object_get(out, "action")), actions, ELEMENTSOF(actions),
                       "action", e);
    return r < 0 ? r : copy_arguments(rule, out, e);
}

static int copy_rules(json_t *seccomp, json_t *out, Error *e)
{
    json_t *rules, *rule, *copies;
    size_t i;
    int r = spec_array(seccomp, "linux.seccomp", "syscalls", &rules, e);

    if (r < 0 || !rules)
        return r;
    copies = json_array();
    r = spec_set(out, "syscalls", copies, e);
    if (r < 0)
        return r;
    json_array_foreach (rules, i, rule) {
        json_t *copy = json_object();

        r = spec_append(copies, copy, e);
        if (r >= 0)
            r = copy_rule(rule, copy, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int rebuild_seccomp(json_t *seccomp, json_t **ret, Error *e)
{
    static const SpecField fields[] = {
        {"defaultAction", SPEC_STRING},
        {"defaultErrnoRet", SPEC_NUMBER, 0, 4095},
        {"architectures", SPEC_STRINGS},
        {"flags", SPEC_STRINGS},
        {NULL},
    };
    static const SpecRefusal refusals[] = {
        {"listenerPath", "no process of the node can watch the guest's system calls"},
        {"listenerMetadata", "no process of the node can watch the guest's system calls"},
        {NULL},
    };
    _cleanup_json_ json_t *out = json_object();
    json_t *flag;
    size_t i;
    int r = spec_refuse(seccomp, "linux.seccomp", refusals, e);

    if (r >= 0)
        r = spec_copy(seccomp, "linux.seccomp", fields, out, e);
    if (r >= 0)
        r = check_word(json_string_value(json_object_get(out, "defaultAction")), actions, ELEMENTSOF(actions),
                       "default action", e);
    if (r >= 0)
        r = check_names(json_object_get(out, "architectures"), "SCMP_ARCH_", "an architecture", e);
    if (r < 0)
        return r;
    json_array_foreach (json_object_get(out, "flags"), i, flag) {
        r = check_word(json_string_value(flag), flags, ELEMENTSOF(flags), "flag", e);
        if (r < 0)
            return r;
    }
    r = copy_rules(seccomp, out, e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(out);
    return 0;
}
