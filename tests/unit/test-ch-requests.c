/* SPDX-License-Identifier: MIT */

/* What Cloud Hypervisor is asked for: known values, and, with CLOUD_HYPERVISOR_OPENAPI=FILE, against the API's own
 * description (vmm/src/api/openapi/cloud-hypervisor.yaml of Cloud Hypervisor): only members that it has, of the types
 * that it has, and all that it requires. */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "vmm/ch-requests.h"

static VmmSpec spec_of(void)
{
    return (VmmSpec){
        .kernel_args = "console=ttyS0 \"quoted\"",
        .vcpus = 1,
        .max_vcpus = 4,
        .memory = 128 << 20,
        .max_memory = 640 << 20,
    };
}

static void assert_json(json_t *value, const char *wanted)
{
    _cleanup_free_ char *text = json_dumps(value, JSON_COMPACT);

    assert_string_equal(text, wanted);
    json_decref(value);
}

static void test_values(void **state)
{
    static const uint8_t mac[6] = {2, 0, 0xab, 0, 0, 7};

    assert_json(ch_disk_config("d.a", "a", true),
                "{\"id\":\"d.a\",\"path\":\"/disks/a\",\"serial\":\"a\",\"readonly\":true,\"sparse\":false,"
                "\"image_type\":\"Raw\"}");
    assert_json(ch_net_config("n.eth0", mac),
                "{\"id\":\"n.eth0\",\"mac\":\"02:00:ab:00:00:07\",\"num_queues\":2,\"queue_size\":256}");
    assert_json(ch_remove_device("d.a"), "{\"id\":\"d.a\"}");
    assert_json(ch_resize_cpus(3), "{\"desired_vcpus\":3}");
    assert_json(ch_resize_memory(1ULL << 40), "{\"id\":\"mem0\",\"desired_ram\":1099511627776}");
    assert_json(ch_snapshot_config(), "{\"destination_url\":\"file:///template\"}");
    assert_json(ch_restore_config(), "{\"source_url\":\"file:///template\",\"resume\":true}");
}

static json_t *zone_of(json_t *config)
{
    return json_array_get(json_object_get(json_object_get(config, "memory"), "zones"), 0);
}

static void test_vm(void **state)
{
    VmmSpec spec = spec_of();
    json_t *config = ch_vm_config(&spec);

    assert_null(json_object_get(zone_of(config), "file"));
    assert_true(json_is_false(json_object_get(zone_of(config), "shared")));
    assert_int_equal(json_integer_value(json_object_get(zone_of(config), "hotplug_size")), 512 << 20);
    assert_string_equal(json_string_value(json_object_get(json_object_get(config, "payload"), "cmdline")),
                        "console=ttyS0 \"quoted\" memhp_default_state=online_movable");
    assert_int_equal(ch_config_for_clones(config), -EINVAL);
    json_decref(config);

    /* Of a template the memory is a file, which its clones only read. */
    spec.template_directory = "/somewhere";
    spec.max_memory = 0;
    config = ch_vm_config(&spec);
    assert_string_equal(json_string_value(json_object_get(zone_of(config), "file")), "/template/ram");
    assert_true(json_is_true(json_object_get(zone_of(config), "shared")));
    assert_null(json_object_get(zone_of(config), "hotplug_size"));
    assert_int_equal(ch_config_for_clones(config), 0);
    assert_true(json_is_false(json_object_get(zone_of(config), "shared")));
    json_decref(config);
    config = json_array();
    assert_int_equal(ch_config_for_clones(config), -EINVAL);
    json_decref(config);
}

static void test_versions(void **state)
{
    unsigned major = 0;

    assert_int_equal(ch_parse_version("53.0.0", &major), 0);
    assert_int_equal(major, 53);
    assert_int_equal(ch_parse_version("v51.1-12-gabcdef-dirty", &major), 0);
    assert_int_equal(major, 51);
    assert_int_equal(ch_parse_version("v52", &major), 0);
    assert_int_equal(ch_parse_version("", &major), -EINVAL);
    assert_int_equal(ch_parse_version("vv5", &major), -EINVAL);
    assert_int_equal(ch_parse_version("5x", &major), -EINVAL);
    assert_int_equal(ch_parse_version("99999999999999999999", &major), -EINVAL);
    assert_int_equal(major, 52);
}

/* As much of YAML as the file uses: what is indented deeper belongs to the line before. */

static char *openapi;

static size_t indent_of(const char *line)
{
    return strspn(line, " ");
}

static const char *next_line(const char *line)
{
    line += strcspn(line, "\n");
    return *line ? line + 1 : NULL;
}

/* The line "KEY:" among those directly below `parent`, which is a line. */
static const char *child(const char *parent, const char *key)
{
    size_t outer = indent_of(parent), inner = 0;

    for (const char *line = next_line(parent); line; line = next_line(line)) {
        size_t indent = indent_of(line);

        if (line[indent] == '\n' || line[indent] == '#')
            continue;
        if (indent <= outer)
            return NULL;
        inner = inner ?: indent;
        if (indent == inner && strncmp(line + indent, key, strlen(key)) == 0 && line[indent + strlen(key)] == ':')
            return line;
    }
    return NULL;
}

/* What follows "KEY: ", without quotes; "" if nothing. */
static void value_of(const char *line, char ret[static 128])
{
    const char *p = line ? strchr(line, ':') + 1 : "";

    p += strspn(p, " '\"");
    snprintf(ret, 128, "%.*s", (int)strcspn(p, "'\"\n"), p);
}

static const char *schema(const char *name)
{
    const char *components = strstr(openapi, "\ncomponents:");
    const char *line = components ? child(components + 1, "schemas") : NULL;

    line = line ? child(line, name) : NULL;
    if (!line)
        fail_msg("there is no schema %s", name);
    return line;
}

/* Follows "$ref: '#/components/schemas/NAME'". */
static const char *resolve(const char *line)
{
    const char *ref = child(line, "$ref");
    char target[128];

    if (!ref)
        return line;
    value_of(ref, target);
    return schema(strrchr(target, '/') + 1);
}

static void check(json_t *value, const char *type_line, const char *where);

static void check_object(json_t *value, const char *type_line, const char *where)
{
    const char *properties = child(type_line, "properties"), *required = child(type_line, "required"), *key;
    json_t *member;

    assert_non_null(properties);
    json_object_foreach (value, key, member) {
        const char *property = child(properties, key);
        char inner[256];

        snprintf(inner, sizeof(inner), "%s.%s", where, key);
        if (!property)
            fail_msg("%s is not in the API", inner);
        check(member, resolve(property), inner);
    }
    for (const char *line = required ? next_line(required) : NULL; line && strstr(line, "- ") == line + indent_of(line);
         line = next_line(line)) {
        char name[128];

        snprintf(name, sizeof(name), "%.*s", (int)strcspn(line + indent_of(line) + 2, "\n"), line + indent_of(line) + 2);
        if (!json_object_get(value, name))
            fail_msg("%s.%s is missing", where, name);
    }
}

static void check(json_t *value, const char *type_line, const char *where)
{
    const char *choice = child(type_line, "enum");
    char type[128];
    json_t *item;
    size_t i;

    value_of(child(type_line, "type"), type);
    if (strcmp(type, "object") == 0 && json_is_object(value)) {
        check_object(value, type_line, where);
    } else if (strcmp(type, "array") == 0 && json_is_array(value)) {
        json_array_foreach (value, i, item)
            check(item, resolve(child(type_line, "items")), where);
    } else if (!(strcmp(type, "string") == 0 && json_is_string(value)) &&
               !(strcmp(type, "integer") == 0 && json_is_integer(value)) &&
               !(strcmp(type, "boolean") == 0 && json_is_boolean(value))) {
        fail_msg("%s is no %s", where, type);
    }
    if (choice) {
        _cleanup_free_ char *line = strndup(choice, strcspn(choice, "\n"));

        if (!strstr(line, json_string_value(value)))
            fail_msg("%s: \"%s\" is none of %s", where, json_string_value(value), line);
    }
}

static void check_request(json_t *value, const char *name)
{
    assert_non_null(value);
    check(value, schema(name), name);
    json_decref(value);
}

static void test_openapi(void **state)
{
    const char *path = getenv("CLOUD_HYPERVISOR_OPENAPI");
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 7};
    VmmSpec spec = spec_of();

    if (!path)
        skip();
    assert_int_equal(fs_read_file(path, 1 << 20, &openapi, NULL), 0);
    check_request(ch_vm_config(&spec), "VmConfig");
    spec.template_directory = "/somewhere";
    check_request(ch_vm_config(&spec), "VmConfig");
    check_request(ch_disk_config("d.a", "a", true), "DiskConfig");
    check_request(ch_disk_config("d.a", "a", false), "DiskConfig");
    check_request(ch_net_config("n.eth0", mac), "NetConfig");
    check_request(ch_remove_device("d.a"), "VmRemoveDevice");
    check_request(ch_resize_cpus(2), "VmResize");
    check_request(ch_resize_memory(256 << 20), "VmResizeZone");
    check_request(ch_snapshot_config(), "VmSnapshotConfig");
    check_request(ch_restore_config(), "RestoreConfig");
    free(openapi);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_vm),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_openapi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
