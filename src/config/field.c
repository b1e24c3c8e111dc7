/* SPDX-License-Identifier: MIT */

#include "config/field.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/json.h"

static bool is_string(ConfigType type)
{
    return type != CONFIG_BOOL && type != CONFIG_NUMBER;
}

static void *at(void *object, const ConfigField *field)
{
    return (char *)object + field->offset;
}

int config_set_defaults(const ConfigField *fields, void *object)
{
    for (const ConfigField *f = fields; f->key; f++) {
        if (f->type == CONFIG_BOOL) {
            *(bool *)at(object, f) = f->default_text && strcmp(f->default_text, "true") == 0;
        } else if (f->type == CONFIG_NUMBER) {
            *(uint64_t *)at(object, f) = f->default_number;
        } else {
            char **s = at(object, f);

            *s = strdup(f->default_text ?: "");
            if (!*s)
                return -ENOMEM;
        }
    }
    return 0;
}

void config_release(const ConfigField *fields, void *object)
{
    for (const ConfigField *f = fields; f->key; f++) {
        if (is_string(f->type)) {
            char **s = at(object, f);

            free(*s);
            *s = NULL;
        }
    }
}

static int check_choice(const ConfigField *field, const char *value, const char *file, Error *e)
{
    _cleanup_free_ char *list = NULL;

    for (const char *const *c = field->choices; *c; c++) {
        char *longer;

        if (strcmp(*c, value) == 0)
            return 0;
        longer = string_printf("%s%s\"%s\"", list ?: "", list ? ", " : "", *c);
        if (!longer)
            return error_set_errno(e, -ENOMEM, "%s: \"%s\"", file, field->key);
        free(list);
        list = longer;
    }
    return error_set(e, -EINVAL, "%s: \"%s\" is \"%s\", but must be one of %s", file, field->key, value,
                     list);
}

/* Whether a path has a component that is "..": such a path means something else after a link on its way
 * moved. */
static bool goes_up(const char *path)
{
    for (const char *p = path; (p = strstr(p, "..")); p += 2)
        if ((p == path || p[-1] == '/') && (p[2] == 0 || p[2] == '/'))
            return true;
    return false;
}

static int check_string(const ConfigField *field, const char *value, const char *file, Error *e)
{
    if (strlen(value) > 4095)
        return error_set(e, -ENAMETOOLONG, "%s: \"%s\" has more than 4095 characters", file, field->key);
    switch (field->type) {
    case CONFIG_CHOICE:
        return check_choice(field, value, file, e);
    case CONFIG_PATH_OR_NOTHING:
        if (!*value)
            return 0;
        break;
    case CONFIG_PROGRAM:
        if (*value && !strchr(value, '/'))
            return 0;
        break;
    case CONFIG_PATH:
        break;
    default:
        return 0;
    }
    if (*value != '/' || goes_up(value))
        return error_set(e, -EINVAL, "%s: \"%s\" is \"%s\", but must be an absolute path without \"..\"%s",
                         file, field->key, value,
                         field->type == CONFIG_PROGRAM           ? " or a program's name"
                         : field->type == CONFIG_PATH_OR_NOTHING ? " or empty"
                                                                 : "");
    return 0;
}

static int apply_string(const ConfigField *field, char **target, json_t *json, const char *file, Error *e)
{
    const char *value;
    char *copy;
    int r = json_get_string(json, field->key, file, &value, e);

    if (r <= 0)
        return r;
    r = check_string(field, value, file, e);
    if (r < 0)
        return r;
    copy = strdup(value);
    if (!copy)
        return error_set_errno(e, -ENOMEM, "%s: \"%s\"", file, field->key);
    free(*target);
    *target = copy;
    return 0;
}

static const ConfigField *find(const ConfigField *fields, const char *key)
{
    for (const ConfigField *f = fields; f->key; f++)
        if (strcmp(f->key, key) == 0)
            return f;
    return NULL;
}

int config_apply(const ConfigField *fields, void *object, json_t *json, const char *file, Error *e)
{
    const char *key;
    json_t *value;

    if (!json_is_object(json))
        return error_set(e, -EINVAL, "%s: must be a JSON object", file);
    json_object_foreach (json, key, value) {
        if (!find(fields, key))
            return error_set(e, -EINVAL, "%s: unknown key \"%.64s\"", file, key);
        if (json_is_null(value))
            return error_set(e, -EINVAL, "%s: \"%s\" is null; leave the key out for its default", file, key);
    }
    for (const ConfigField *f = fields; f->key; f++) {
        int r;

        if (f->type == CONFIG_BOOL)
            r = json_get_bool(json, f->key, file, at(object, f), e);
        else if (f->type == CONFIG_NUMBER)
            r = json_get_uint(json, f->key, file, f->min, f->max, at(object, f), e);
        else
            r = apply_string(f, at(object, f), json, file, e);
        if (r < 0)
            return r;
    }
    return 0;
}
