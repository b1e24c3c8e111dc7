/* SPDX-License-Identifier: MIT */

#include "shim/options.h"

#include <errno.h>
#include <string.h>

#include "oci/ids.h"

typedef struct Flag {
    const char *name;
    const char **value; /* NULL: a switch */
    bool *set;
} Flag;

static int parse_switch(const char *name, const char *value, bool *ret, Error *e)
{
    if (!value || strcmp(value, "true") == 0 || strcmp(value, "1") == 0)
        *ret = true;
    else if (strcmp(value, "false") == 0 || strcmp(value, "0") == 0)
        *ret = false;
    else
        return error_set(e, -EINVAL, "-%s is a switch, not \"%s\"", name, value);
    return 0;
}

/* Takes one flag; returns the number of further arguments used. */
static int parse_flag(const Flag *flags, size_t n_flags, const char *argument, const char *next, Error *e)
{
    const char *name = argument + (argument[1] == '-' ? 2 : 1);
    size_t n = strcspn(name, "=");
    const char *value = name[n] == '=' ? name + n + 1 : NULL;

    for (const Flag *f = flags; f < flags + n_flags; f++) {
        if (strlen(f->name) != n || strncmp(f->name, name, n) != 0)
            continue;
        if (f->set)
            return parse_switch(f->name, value, f->set, e);
        *f->value = value ?: next;
        if (!*f->value)
            return error_set(e, -EINVAL, "-%s needs a value", f->name);
        return value ? 0 : 1;
    }
    return error_set(e, -EINVAL, "unknown flag %s", argument);
}

static int check(const ShimOptions *o, Error *e)
{
    int r;

    if (strcmp(o->action, "start") != 0 && strcmp(o->action, "delete") != 0)
        return error_set(e, -EINVAL, "unknown action \"%s\"; start and delete are known", o->action);
    r = id_check(o->namespace ?: "", "-namespace", e);
    return r < 0 ? r : id_check(o->id ?: "", "-id", e);
}

int shim_options_parse(int argc, char **argv, ShimOptions *ret, Error *e)
{
    ShimOptions o = {0};
    const char *socket = NULL; /* of older protocols; not used */
    const Flag flags[] = {
        {"namespace", &o.namespace, NULL},
        {"id", &o.id, NULL},
        {"address", &o.address, NULL},
        {"publish-binary", &o.publish_binary, NULL},
        {"bundle", &o.bundle, NULL},
        {"socket", &socket, NULL},
        {"debug", NULL, &o.debug},
        {"v", NULL, &o.version},
        {"info", NULL, &o.info},
    };
    int r;

    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            if (o.action)
                return error_set(e, -EINVAL, "unexpected argument \"%s\"", argv[i]);
            o.action = argv[i];
            continue;
        }
        r = parse_flag(flags, ELEMENTSOF(flags), argv[i], i + 1 < argc ? argv[i + 1] : NULL, e);
        if (r < 0)
            return r;
        i += r;
    }
    if (o.action) {
        r = check(&o, e);
        if (r < 0)
            return r;
    } else if (!o.version && !o.info) {
        return error_set(e, -EINVAL, "an action is needed: start or delete");
    }
    *ret = o;
    return 0;
}
