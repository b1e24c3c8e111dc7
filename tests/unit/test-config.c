/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "base/fs.h"
#include "base/json.h"
#include "config/config.h"
#include "config/field.h"

static char directory[64];

static int setup(void **state)
{
    strcpy(directory, "/tmp/test-config.XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    return setenv("CLOUDHV_CONFIG_DIR", directory, 1);
}

static int teardown(void **state)
{
    return fs_remove_tree(directory);
}

static void write_config(const char *name, const char *text)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

static void refused(const char *text, const char *key, const char *reason)
{
    _cleanup_shim_config_ ShimConfig *config = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    write_config("config.json", text);
    if (shim_config_load(&config, &e) >= 0)
        fail_msg("%s was accepted", text);
    assert_null(config);
    if (!strstr(error_message(&e), "config.json") || !strstr(error_message(&e), key) ||
        !strstr(error_message(&e), reason))
        fail_msg("%s: the message \"%s\" lacks file, \"%s\" or \"%s\"", text, error_message(&e), key, reason);
}

static void test_errors(void **state)
{
    static const char *const cases[][3] = {
        {"{", "", "not valid JSON"},
        {"[]", "", "must be a JSON object"},
        {"{\"default_vcpu\":1}", "\"default_vcpu\"", "unknown key"},
        {"{\"socket_path\":\"/x\"}", "\"socket_path\"", "unknown key"},
        {"{\"default_vcpus\":\"1\"}", "\"default_vcpus\"", "must be an integer"},
        {"{\"default_vcpus\":1.5}", "\"default_vcpus\"", "must be an integer"},
        {"{\"default_vcpus\":0}", "\"default_vcpus\"", "between 1 and 32"},
        {"{\"default_vcpus\":33}", "\"default_vcpus\"", "between 1 and 32"},
        {"{\"default_vcpus\":null}", "\"default_vcpus\"", "null"},
        {"{\"default_vcpus\":4,\"max_default_vcpus\":2}", "\"max_default_vcpus\"", "less than the 4"},
        {"{\"default_memory_mb\":-128}", "\"default_memory_mb\"", "between 64"},
        {"{\"allow_emulation\":1}", "\"allow_emulation\"", "true or false"},
        {"{\"vmm\":\"xen\"}", "\"vmm\"", "\"auto\", \"cloud-hypervisor\", \"qemu\""},
        {"{\"hotplug_method\":\"\"}", "\"hotplug_method\"", "\"acpi\", \"virtio-mem\""},
        {"{\"kernel_path\":\"vmlinux\"}", "\"kernel_path\"", "absolute path"},
        {"{\"kernel_path\":\"\"}", "\"kernel_path\"", "absolute path"},
        {"{\"kernel_path\":\"/a/../b\"}", "\"kernel_path\"", "without \"..\""},
        {"{\"kernel_path\":7}", "\"kernel_path\"", "must be a string"},
        {"{\"kernel_args\":\"a\\nb\"}", "\"kernel_args\"", "control character"},
        {"{\"qemu_binary\":\"bin/qemu\"}", "\"qemu_binary\"", "absolute path"},
        {"{\"daemon_socket\":\"daemon.sock\"}", "\"daemon_socket\"", "or empty"},
        {"{\"bad_annotations\":\"ignore\"}", "\"bad_annotations\"", "\"refuse\", \"warn\""},
        {"{\"log_level\":\"trace\"}", "\"log_level\"", "\"debug\""},
        {"{\"vmm_uid_base\":4294967294}", "\"vmm_uid_base\"", "highest uid"},
        {"{\"default_vcpus\":1,\"default_vcpus\":2}", "", "not valid JSON"},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        refused(cases[i][0], cases[i][1], cases[i][2]);
}

static void test_defaults(void **state)
{
    _cleanup_daemon_config_ DaemonConfig *daemon = NULL;
    _cleanup_shim_config_ ShimConfig *shim = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(shim_config_load(&shim, &e), 0);
    assert_string_equal(shim->daemon_socket, "");
    assert_int_equal(shim->vmm.default_vcpus, 1);
    assert_int_equal(shim->vmm.max_default_vcpus, 0);
    assert_int_equal(shim->vmm.default_memory_mb, 128);
    assert_string_equal(shim->vmm.hotplug_method, "acpi");
    assert_int_equal(shim->vmm.max_containers_per_vm, 5);
    assert_false(shim->vmm.tpm_enabled);
    assert_false(shim->vmm.allow_emulation);
    assert_null(strstr(shim->vmm.kernel_args, "${"));
    assert_non_null(strstr(shim->vmm.kernel_args, "console=tty"));
    assert_string_equal(shim->vmm.vmm, "auto");
    assert_string_not_equal(shim->vmm.qemu_binary, "");
    assert_int_equal(daemon_config_load(NULL, &daemon, &e), 0);
    assert_string_equal(daemon->socket_path, "/run/cloudhv/daemon.sock");
    assert_string_equal(daemon->state_dir, "/run/cloudhv/daemon");
    assert_int_equal(daemon->pool_size, 3);
    assert_int_equal(daemon->max_pool_size, 10);
    assert_int_equal(daemon->pool_idle_timeout_secs, 300);
    assert_int_equal(daemon->pool_reserve_mb, 512);
    assert_true(daemon->templates);
    assert_string_equal(daemon->templates_dir, "/var/lib/cloudhv/templates");
    assert_int_equal(daemon->max_templates, 8);
    assert_int_equal(daemon->templates_max_mb, 4096);
    assert_int_equal(daemon->warmup_duration_secs, 30);
    assert_int_equal(daemon->max_snapshots, 100);
    assert_string_equal(daemon->warm_snapshots, "annotated");
    assert_int_equal(daemon->vmm.vmm_uid_base, 1879048192);
}

/* The original's example of each file must still be good. */
static void test_files_of_the_original(void **state)
{
    _cleanup_daemon_config_ DaemonConfig *daemon = NULL;
    _cleanup_shim_config_ ShimConfig *shim = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    write_config(
        "config.json",
        "{\"cloud_hypervisor_binary\":\"/bin/sh\",\"kernel_path\":\"/opt/cloudhv/vmlinux\","
        "\"rootfs_path\":\"/opt/cloudhv/rootfs.erofs\",\"kernel_args\":\"console=${KERNEL_CONSOLE} "
        "x=${KERNEL_CONSOLE}\",\"default_vcpus\":2,\"max_default_vcpus\":4,\"default_memory_mb\":512,"
        "\"hotplug_memory_mb\":1024,\"hotplug_method\":\"virtio-mem\",\"max_containers_per_vm\":3,"
        "\"tpm_enabled\":true,\"daemon_socket\":\"/run/cloudhv/daemon.sock\"}");
    if (shim_config_load(&shim, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_string_equal(shim->vmm.cloud_hypervisor_binary, "/bin/sh");
    assert_string_equal(shim->vmm.kernel_path, "/opt/cloudhv/vmlinux");
    assert_null(strchr(shim->vmm.kernel_args, '$'));
    assert_int_equal(shim->vmm.default_vcpus, 2);
    assert_int_equal(shim->vmm.hotplug_memory_mb, 1024);
    assert_true(shim->vmm.tpm_enabled);
    assert_string_equal(shim->daemon_socket, "/run/cloudhv/daemon.sock");
    write_config("other.json",
                 "{\"pool_size\":20,\"max_pool_size\":20,\"cloud_hypervisor_binary\":\"/nonexistent\"}");
    {
        _cleanup_free_ char *file = fs_join(directory, "other.json");

        assert_int_equal(daemon_config_load(file, &daemon, &e), 0);
    }
    assert_int_equal(daemon->pool_size, 20);
    assert_string_equal(daemon->vmm.vmm, "auto");
}

static void test_daemon_errors(void **state)
{
    _cleanup_daemon_config_ DaemonConfig *daemon = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(daemon_config_load("/nonexistent/daemon.json", &daemon, &e), -ENOENT);
    assert_non_null(strstr(error_message(&e), "/nonexistent/daemon.json"));
    write_config("daemon.json", "{\"pool_size\":11}");
    assert_int_equal(daemon_config_load(NULL, &daemon, &e), -ERANGE);
    assert_non_null(strstr(error_message(&e), "\"max_pool_size\""));
    write_config("daemon.json", "{\"scratch_size_mb\":64}");
    assert_int_equal(daemon_config_load(NULL, &daemon, &e), -EINVAL);
    assert_null(daemon);
}

/* Later files win key by key. */
static void test_layers(void **state)
{
    _cleanup_json_ json_t *first = json_loads("{\"default_vcpus\":2,\"state_dir\":\"/a\"}", 0, NULL);
    _cleanup_json_ json_t *second = json_loads("{\"state_dir\":\"/b\"}", 0, NULL);
    _cleanup_error_ Error e = ERROR_INIT;
    ShimConfig config = {};

    assert_int_equal(config_set_defaults(config_shim_fields, &config), 0);
    assert_int_equal(config_apply(config_shim_fields, &config, first, "first", &e), 0);
    assert_int_equal(config_apply(config_shim_fields, &config, second, "second", &e), 0);
    assert_int_equal(config.vmm.default_vcpus, 2);
    assert_string_equal(config.state_dir, "/b");
    config_release(config_shim_fields, &config);
}

/* Whether a row of the page's tables has that key and that default. */
static bool has_row(const char *text, const char *key, const char *value)
{
    _cleanup_free_ char *start = string_printf("\n| `%s` |%s", key, value);

    return strstr(text, start);
}

/* docs/configuration.md has a row for each key, with its default. */
static void test_documented(void **state)
{
    const ConfigField *const tables[] = {config_shim_fields, config_daemon_fields};
    _cleanup_free_ char *text = NULL;
    size_t n;

    assert_int_equal(fs_read_file(CONFIGURATION_DOC, 1 << 20, &text, &n), 0);
    for (size_t t = 0; t < ELEMENTSOF(tables); t++) {
        for (const ConfigField *f = tables[t]; f->key; f++) {
            _cleanup_free_ char *value = NULL;

            if (f->type == CONFIG_NUMBER)
                value = string_printf(" %llu |", (unsigned long long)f->default_number);
            else if (f->type == CONFIG_BOOL)
                value = string_printf(" %s |", f->default_text ?: "false");
            else
                value = string_printf(" `\"%s\"` |", f->default_text);
            if (!has_row(text, f->key, value))
                fail_msg("docs/configuration.md has no row for \"%s\" with the default%s", f->key, value);
        }
    }
}

static void test_log_priority(void **state)
{
    assert_int_equal(config_log_priority("error"), LOG_ERR);
    assert_int_equal(config_log_priority("debug"), LOG_DEBUG);
    assert_int_equal(config_log_priority("?"), LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files_of_the_original, setup, teardown),
        cmocka_unit_test_setup_teardown(test_daemon_errors, setup, teardown),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_documented),
        cmocka_unit_test(test_log_priority),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
