/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of the specification share: a small valid specification to be changed, and a host that is
 * made up. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "oci/plan.h"
#include "unit.h"

#define TEST_CONTAINER "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
#define TEST_SANDBOX "5a9db0c1e2f35a9db0c1e2f35a9db0c1e2f35a9db0c1e2f35a9db0c1e2f3a0b1"
#define TEST_POD_PID 4242

static const char test_minimal[] = "{\"ociVersion\":\"1.1.0\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},"
                                   "\"args\":[\"true\"],\"cwd\":\"/\"},"
                                   "\"root\":{\"path\":\"rootfs\"},\"mounts\":[],\"linux\":{\"namespaces\":[{"
                                   "\"type\":\"pid\"},{\"type\":\"ipc\"},"
                                   "{\"type\":\"uts\"},{\"type\":\"mount\"},{\"type\":\"network\"}]}}";

/* A path says what it is by its name: …/dir, …/full (a directory with entries), …/tmpfs, …/device, …/missing;
 * all others are files. */
static inline int test_inspect(const char *path, OciHostFile *ret, void *userdata, Error *e)
{
    const char *name = strrchr(path, '/') + 1;

    *ret = (OciHostFile){.type = OCI_HOST_REGULAR, .type_name = "a file", .mode = 0644};
    if (strcmp(name, "missing") == 0)
        *ret = (OciHostFile){.type = OCI_HOST_MISSING, .type_name = "missing"};
    else if (strcmp(name, "device") == 0)
        *ret = (OciHostFile){.type = OCI_HOST_OTHER, .type_name = "a block device"};
    else if (strcmp(name, "broken") == 0)
        return error_set(e, -EIO, "cannot look at %s: made up", path);
    else if (strcmp(name, "shm") == 0 || strcmp(name, "tmpfs") == 0)
        *ret = (OciHostFile){.type = OCI_HOST_DIRECTORY,
                             .type_name = "a directory",
                             .mode = 01777,
                             .empty = true,
                             .memory = true,
                             .memory_size = 64 << 20};
    else if (strcmp(name, "full") == 0)
        *ret = (OciHostFile){.type = OCI_HOST_DIRECTORY, .type_name = "a directory", .mode = 0755};
    else if (strcmp(name, "dir") == 0 || strstr(path, "kubernetes.io~"))
        *ret = (OciHostFile){.type = OCI_HOST_DIRECTORY,
                             .type_name = "a directory",
                             .mode = 02777,
                             .gid = 2000,
                             .empty = true};
    return 0;
}

static const OciSettings test_settings = {
    .container_id = TEST_CONTAINER,
    .sandbox_id = TEST_SANDBOX,
    .pod_pid = TEST_POD_PID,
    .inspect = test_inspect,
};

/* Sets the member at `path` ("linux.resources") of a copy of the minimal specification to the JSON `value`,
 * and makes a plan from it. */
static inline int test_plan_with(const char *path, const char *value, const OciSettings *settings,
                                 OciPlan **ret, Error *e)
{
    _cleanup_json_ json_t *spec = json_loads(test_minimal, 0, NULL);
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_free_ char *text = NULL, *with = NULL;
    json_t *at = spec, *marker = json_string("@VALUE@");
    char key[64];
    int r;

    assert_non_null(spec);
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, ".");

        assert_true(n < sizeof(key));
        memcpy(key, p, n);
        key[n] = 0;
        p += n;
        if (!*p) {
            assert_int_equal(json_object_set_new(at, key, marker), 0);
            break;
        }
        p++;
        if (!json_object_get(at, key))
            assert_int_equal(json_object_set_new(at, key, json_object()), 0);
        at = json_object_get(at, key);
    }
    /* As text, since the value may be one that jansson does not read. */
    text = json_dumps(spec, JSON_COMPACT);
    with = malloc(strlen(text) + strlen(value) + 1);
    assert_non_null(with);
    {
        char *place = strstr(text, "\"@VALUE@\"");

        if (place)
            sprintf(with, "%.*s%s%s", (int)(place - text), text, value, place + strlen("\"@VALUE@\""));
        else
            strcpy(with, text);
    }
    r = bundle_parse(with, strlen(with), "config.json", &bundle, e);
    return r < 0 ? r : oci_plan_new(bundle, settings, ret, e);
}

/* Expects that the value is refused with a message that has `message` in it. */
static inline void test_refused(const char *path, const char *value, const char *message)
{
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    int r = test_plan_with(path, value, &test_settings, &plan, &e);

    if (r >= 0)
        fail_msg("%s = %s was not refused", path, value);
    assert_null(plan);
    assert_int_equal(r, e.number);
    if (!strstr(error_message(&e), message))
        fail_msg("%s = %s: the message \"%s\" has no \"%s\"", path, value, error_message(&e), message);
}

/* Expects that the guest's specification has `expected` (JSON; "null" for nothing) at `path` after `value`
 * was there.
 */
static inline void test_becomes(const char *path, const char *value, const char *expected)
{
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_json_ json_t *spec = NULL, *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *got = NULL, *keys = strdup(path);
    json_t *at;

    assert_non_null(wanted);
    if (test_plan_with(path, value, &test_settings, &plan, &e) < 0)
        fail_msg("%s = %s: %s", path, value, error_message(&e));
    at = spec = json_loads(plan->spec, 0, NULL);
    assert_non_null(spec);
    for (char *key = strtok(keys, "."); key && at; key = strtok(NULL, "."))
        at = json_object_get(at, key);
    got = at ? json_dumps(at, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("null");
    if (at ? !json_equal(at, wanted) : !json_is_null(wanted))
        fail_msg("%s = %s became %s, not %s", path, value, got, expected);
}
