/* SPDX-License-Identifier: MIT */

#include "oci/field.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "oci/bigint.h"

static int no_memory(Error *e)
{
    return error_set_errno(e, -ENOMEM, "cannot rebuild the container's specification");
}

int spec_set(json_t *object, const char *key, json_t *value, Error *e)
{
    return json_object_set_new(object, key, value) < 0 ? no_memory(e) : 0;
}

int spec_append(json_t *array, json_t *value, Error *e)
{
    return json_array_append_new(array, value) < 0 ? no_memory(e) : 0;
}

static int wrong_type(const char *where, const char *key, const char *wanted, Error *e)
{
    return error_set(e, -EINVAL, "%s.%s must be %s", where, key, wanted);
}

int spec_check_path(const char *path, const char *where, Error *e)
{
    if (path[0] != '/')
        return error_set(e, -EINVAL, "%s: \"%.256s\" is not an absolute path", where, path);
    if (strlen(path) >= PATH_MAX)
        return error_set(e, -ENAMETOOLONG, "%s: a path has more than %i characters", where, PATH_MAX - 1);
    for (const char *p = path; (p = strstr(p, "/..")); p += 3)
        if (p[3] == 0 || p[3] == '/')
            return error_set(e, -EINVAL, "%s: \"%.256s\" has a \"..\" in it", where, path);
    return 0;
}

static int copy_strings(json_t *value, const char *where, const SpecField *field, json_t *to, Error *e)
{
    json_t *copy, *item;
    size_t i;
    int r;

    if (!json_is_array(value))
        return wrong_type(where, field->key, "an array of strings", e);
    copy = json_array();
    r = spec_set(to, field->key, copy, e);
    if (r < 0)
        return r;
    json_array_foreach (value, i, item) {
        if (!json_is_string(item))
            return wrong_type(where, field->key, "an array of strings", e);
        if (field->type == SPEC_PATHS) {
            r = spec_check_path(json_string_value(item), where, e);
            if (r < 0)
                return r;
        }
        r = spec_append(copy, json_string_nocheck(json_string_value(item)), e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int copy_number(json_t *value, const char *where, const SpecField *field, json_t *to, Error *e)
{
    json_int_t v = json_integer_value(value);

    if (!json_is_integer(value) && !bigint_is(value))
        return wrong_type(where, field->key, "an integer", e);
    if (bigint_is(value) || v < field->min || v > field->max)
        return error_set(e, -ERANGE, "%s.%s is out of range: it must be between %lli and %lli", where,
                         field->key, (long long)field->min, (long long)field->max);
    if (field->type == SPEC_LIMIT && v == 0)
        return 0;
    return spec_set(to, field->key, json_integer(v), e);
}

static int copy_field(json_t *value, const char *where, const SpecField *field, json_t *to, Error *e)
{
    switch (field->type) {
    case SPEC_BOOL:
        if (!json_is_boolean(value))
            return wrong_type(where, field->key, "true or false", e);
        return spec_set(to, field->key, json_boolean(json_is_true(value)), e);
    case SPEC_NUMBER:
    case SPEC_LIMIT:
        return copy_number(value, where, field, to, e);
    case SPEC_STRING:
        if (!json_is_string(value))
            return wrong_type(where, field->key, "a string", e);
        return spec_set(to, field->key, json_string_nocheck(json_string_value(value)), e);
    case SPEC_STRINGS:
    case SPEC_PATHS:
        return copy_strings(value, where, field, to, e);
    }
    return -EINVAL;
}

int spec_copy(json_t *from, const char *where, const SpecField *fields, json_t *to, Error *e)
{
    for (const SpecField *f = fields; f->key; f++) {
        json_t *value = json_object_get(from, f->key);
        int r;

        if (!value || json_is_null(value))
            continue;
        r = copy_field(value, where, f, to, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool says_something(json_t *value)
{
    if (!value)
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_STRING:
        return json_string_length(value) > 0;
    case JSON_INTEGER:
        return json_integer_value(value) != 0;
    case JSON_REAL:
    case JSON_TRUE:
        return true;
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return false;
}

int spec_refuse(json_t *from, const char *where, const SpecRefusal *refusals, Error *e)
{
    for (const SpecRefusal *f = refusals; f->key; f++)
        if (says_something(json_object_get(from, f->key)))
            return error_set(e, -EOPNOTSUPP, "%s%s%s is not supported: %s", where, *where ? "." : "", f->key,
                             f->reason);
    return 0;
}

int spec_object(json_t *from, const char *where, const char *key, json_t **ret, Error *e)
{
    json_t *value = json_object_get(from, key);

    if (value && !json_is_null(value) && !json_is_object(value))
        return wrong_type(where, key, "an object", e);
    *ret = json_is_object(value) ? value : NULL;
    return 0;
}

int spec_array(json_t *from, const char *where, const char *key, json_t **ret, Error *e)
{
    json_t *value = json_object_get(from, key);

    if (value && !json_is_null(value) && !json_is_array(value))
        return wrong_type(where, key, "an array", e);
    *ret = json_is_array(value) ? value : NULL;
    return 0;
}
