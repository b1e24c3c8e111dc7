/* SPDX-License-Identifier: MIT */

#include "base/json.h"

#include <errno.h>
#include <string.h>

#include "base/fs.h"

int json_parse(const char *text, size_t n, const char *what, json_t **ret, Error *e)
{
    json_error_t je;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);

    if (!j)
        return error_set(e, -EINVAL, "%s: not valid JSON at line %i, column %i: %s", what, je.line, je.column,
                         je.text);
    *ret = j;
    return 0;
}

int json_read_file(const char *path, size_t max, json_t **ret, Error *e)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = fs_read_file(path, max, &text, &n);

    if (r < 0)
        return error_set_errno(e, r, "cannot read %s", path);
    return json_parse(text, n, path, ret, e);
}

static const char *type_name(json_t *j)
{
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static int wrong_type(const char *what, const char *key, const char *wanted, json_t *got, Error *e)
{
    return error_set(e, -EINVAL, "%s: \"%s\" must be %s, not %s", what, key, wanted, type_name(got));
}

static json_t *member(json_t *object, const char *key)
{
    json_t *j = json_object_get(object, key);

    return json_is_null(j) ? NULL : j;
}

int json_get_string(json_t *object, const char *key, const char *what, const char **ret, Error *e)
{
    json_t *j = member(object, key);

    if (!j)
        return 0;
    if (!json_is_string(j))
        return wrong_type(what, key, "a string", j, e);
    *ret = json_string_value(j);
    return 1;
}

int json_get_uint(json_t *object, const char *key, const char *what, uint64_t min, uint64_t max,
                  uint64_t *ret, Error *e)
{
    json_t *j = member(object, key);
    json_int_t v;

    if (!j)
        return 0;
    if (!json_is_integer(j))
        return wrong_type(what, key, "an integer", j, e);
    v = json_integer_value(j);
    if (v < 0 || (uint64_t)v < min || (uint64_t)v > max)
        return error_set(e, -ERANGE, "%s: \"%s\" is %lli, but must be between %llu and %llu", what, key,
                         (long long)v, (unsigned long long)min, (unsigned long long)max);
    *ret = (uint64_t)v;
    return 1;
}

int json_get_bool(json_t *object, const char *key, const char *what, bool *ret, Error *e)
{
    json_t *j = member(object, key);

    if (!j)
        return 0;
    if (!json_is_boolean(j))
        return wrong_type(what, key, "true or false", j, e);
    *ret = json_is_true(j);
    return 1;
}

int json_get_object(json_t *object, const char *key, const char *what, json_t **ret, Error *e)
{
    json_t *j = member(object, key);

    if (!j)
        return 0;
    if (!json_is_object(j))
        return wrong_type(what, key, "an object", j, e);
    *ret = j;
    return 1;
}

int json_get_array(json_t *object, const char *key, const char *what, json_t **ret, Error *e)
{
    json_t *j = member(object, key);

    if (!j)
        return 0;
    if (!json_is_array(j))
        return wrong_type(what, key, "an array", j, e);
    *ret = j;
    return 1;
}
