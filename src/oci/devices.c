/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/rebuild.h"

/* Devices that every Linux has, with the same numbers: the guest's stand in for the node's. `standard`: the
 * runtime makes it in each container anyway. */
static const struct {
    int major, minor;
    const char *path;
    bool standard;
} known_devices[] = {
    {1, 3, "/dev/null", true},     {1, 5, "/dev/zero", true},    {1, 7, "/dev/full", true},
    {1, 8, "/dev/random", true},   {1, 9, "/dev/urandom", true}, {5, 0, "/dev/tty", true},
    {5, 1, "/dev/console", true},  {5, 2, "/dev/ptmx", true},    {10, 200, "/dev/net/tun", false},
    {10, 229, "/dev/fuse", false},
};

#define PTS_MAJOR 136 /* terminals in devpts */

typedef struct Device {
    char type;               /* 'c', 'b', 'p', 'u', 'a' */
    json_int_t major, minor; /* -1: any */
} Device;

static int read_number(json_t *object, const char *key, const char *where, json_int_t *ret, Error *e)
{
    json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value)) {
        *ret = -1;
        return 0;
    }
    if (!json_is_integer(value) || json_integer_value(value) < -1 || json_integer_value(value) > UINT32_MAX)
        return error_set(e, -EINVAL, "%s: \"%s\" must be a device number", where, key);
    *ret = json_integer_value(value);
    return 0;
}

static int read_device(json_t *object, const char *where, char default_type, Device *ret, Error *e)
{
    json_t *type = json_object_get(object, "type");
    int r;

    if (!json_is_object(object))
        return error_set(e, -EINVAL, "%s must be an array of objects", where);
    ret->type = default_type;
    if (type && !json_is_null(type) && json_string_length(type) != 0) {
        if (json_string_length(type) != 1 || !strchr("abcup", json_string_value(type)[0]))
            return error_set(e, -EINVAL, "%s: \"type\" must be one of a, b, c, p, u", where);
        ret->type = json_string_value(type)[0];
    }
    r = read_number(object, "major", where, &ret->major, e);
    return r < 0 ? r : read_number(object, "minor", where, &ret->minor, e);
}

static ssize_t find_known(const Device *device)
{
    if (device->type != 'c' && device->type != 'u')
        return -1;
    for (size_t i = 0; i < ELEMENTSOF(known_devices); i++)
        if (known_devices[i].major == device->major && known_devices[i].minor == device->minor)
            return (ssize_t)i;
    return -1;
}

static const char *type_name(char type)
{
    switch (type) {
    case 'b':
        return "block";
    case 'p':
        return "FIFO";
    case 'a':
        return "any";
    }
    return "character";
}

static bool rule_allows_all(json_t *rule)
{
    const char *access = json_string_value(json_object_get(rule, "access"));
    Device device;

    return json_is_true(json_object_get(rule, "allow")) && access && strchr(access, 'r') &&
           strchr(access, 'w') && read_device(rule, "", 'a', &device, NULL) == 0 && device.type == 'a' &&
           device.major < 0 && device.minor < 0;
}

bool device_rules_allow_all(json_t *rules)
{
    json_t *rule;
    size_t i;

    json_array_foreach (rules, i, rule) {
        if (rule_allows_all(rule))
            return true;
    }
    return false;
}

static int add_rule(json_t *out, bool allow, const Device *device, const char *access, Error *e)
{
    char type[2] = {device->type, 0};
    json_t *rule = json_object();
    int r = spec_append(out, rule, e);

    if (r >= 0)
        r = spec_set(rule, "allow", json_boolean(allow), e);
    if (r >= 0)
        r = spec_set(rule, "type", json_string(type), e);
    if (r >= 0 && device->major >= 0)
        r = spec_set(rule, "major", json_integer(device->major), e);
    if (r >= 0 && device->minor >= 0)
        r = spec_set(rule, "minor", json_integer(device->minor), e);
    if (r >= 0)
        r = spec_set(rule, "access", json_string(access), e);
    return r;
}

/* Whether every container may use a device anyway. */
static bool is_granted(const Device *device)
{
    ssize_t known = find_known(device);

    return known >= 0 ? known_devices[known].standard : device->type == 'c' && device->major == PTS_MAJOR;
}

static int copy_rule(json_t *out, json_t *rule, bool privileged, Error *e)
{
    const char *where = "linux.resources.devices";
    json_t *access_value = json_object_get(rule, "access");
    const char *access = json_string_value(access_value) ?: "rwm";
    bool allow = json_is_true(json_object_get(rule, "allow"));
    bool only_make;
    Device device = {};
    int r = read_device(rule, where, 'a', &device, e);

    if (r < 0)
        return r;
    if (!*access || strspn(access, "rwm") != strlen(access) || strlen(access) > 3)
        return error_set(e, -EINVAL, "%s: \"access\" must be some of r, w, m", where);
    /* To make nodes for devices that may not be opened is what every runtime grants. */
    only_make = strcmp(access, "m") == 0;
    if (allow && !privileged && !only_make && find_known(&device) < 0 &&
        !(device.type == 'c' && device.major == PTS_MAJOR))
        return error_set(e, -EOPNOTSUPP,
                         "%s: the node's %s device %lli:%lli cannot be given to a container in a VM", where,
                         type_name(device.type), (long long)device.major, (long long)device.minor);
    if (device.type == 'p' || (allow && !privileged && is_granted(&device)))
        return 0;
    if (device.type == 'u')
        device.type = 'c';
    return add_rule(out, allow, &device, access, e);
}

int rebuild_device_rules(json_t *rules, json_t **ret, Error *e)
{
    const Device all = {'a', -1, -1}, terminals = {'c', PTS_MAJOR, -1};
    bool privileged = device_rules_allow_all(rules);
    _cleanup_json_ json_t *out = json_array();
    json_t *rule;
    size_t i;
    int r;

    if (!out)
        return error_set_errno(e, -ENOMEM, "cannot rebuild the device rules");
    r = add_rule(out, false, &all, "rwm", e);
    for (i = 0; r >= 0 && i < ELEMENTSOF(known_devices); i++) {
        const Device device = {'c', known_devices[i].major, known_devices[i].minor};

        if (known_devices[i].standard)
            r = add_rule(out, true, &device, "rwm", e);
    }
    if (r >= 0)
        r = add_rule(out, true, &terminals, "rwm", e);
    if (r < 0)
        return r;
    json_array_foreach (rules, i, rule) {
        /* The first rule says the same in every specification. */
        if (i == 0 && !json_is_true(json_object_get(rule, "allow")))
            continue;
        r = copy_rule(out, rule, privileged, e);
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(out);
    return 0;
}

static int copy_device(json_t *out, json_t *entry, bool privileged, Error *e)
{
    static const SpecField fields[] = {
        {"fileMode", SPEC_NUMBER, 0, 07777},
        {"uid", SPEC_NUMBER, 0, UINT32_MAX - 1},
        {"gid", SPEC_NUMBER, 0, UINT32_MAX - 1},
        {NULL},
    };
    const char *where = "linux.devices", *path = json_string_value(json_object_get(entry, "path"));
    Device device;
    json_t *copy;
    ssize_t known;
    int r = read_device(entry, where, '?', &device, e);

    if (r < 0)
        return r;
    r = spec_check_path(path ?: "", where, e);
    if (r < 0)
        return r;
    known = find_known(&device);
    if (known < 0 && privileged)
        return 0;
    if (known < 0)
        return error_set(e, -EOPNOTSUPP,
                         "%s: the node's %s device %.256s (%lli:%lli) cannot be given to a VM", where,
                         type_name(device.type), path, (long long)device.major, (long long)device.minor);
    if (known_devices[known].standard && strcmp(path, known_devices[known].path) == 0)
        return 0;
    copy = json_object();
    r = spec_append(out, copy, e);
    if (r >= 0)
        r = spec_set(copy, "path", json_string_nocheck(path), e);
    if (r >= 0)
        r = spec_set(copy, "type", json_string("c"), e);
    if (r >= 0)
        r = spec_set(copy, "major", json_integer(device.major), e);
    if (r >= 0)
        r = spec_set(copy, "minor", json_integer(device.minor), e);
    return r < 0 ? r : spec_copy(entry, where, fields, copy, e);
}

int rebuild_devices(json_t *devices, bool privileged, json_t **ret, Error *e)
{
    _cleanup_json_ json_t *out = json_array();
    json_t *entry;
    size_t i;

    if (!out)
        return error_set_errno(e, -ENOMEM, "cannot rebuild the list of devices");
    json_array_foreach (devices, i, entry) {
        int r = copy_device(out, entry, privileged, e);

        if (r < 0)
            return r;
    }
    *ret = json_array_size(out) > 0 ? TAKE_PTR(out) : NULL;
    return 0;
}
