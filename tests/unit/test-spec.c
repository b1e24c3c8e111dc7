/* SPDX-License-Identifier: MIT */

/* Real specifications, made by containerd 1.6 and 2.3 (names and paths shortened), and what becomes of them.
 * The plans in specs/NAME.plan.json were read and found right; CLOUDHV_UPDATE_GOLDEN=1 in the environment
 * writes them anew. */

#include "test-spec.h"

#include <stdlib.h>

#include "base/fs.h"

static json_t *trees_json(const OciPlan *plan)
{
    json_t *out = json_array();

    for (size_t i = 0; i < plan->n_trees; i++) {
        const OciTree *t = &plan->trees[i];

        json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:b, s:b}", "name", t->name, "source",
                                             t->source, "destination", t->destination, "read_only",
                                             t->read_only, "copy_back", t->copy_back));
    }
    return out;
}

static json_t *volumes_json(const OciPlan *plan)
{
    json_t *out = json_array();

    for (size_t i = 0; i < plan->n_volumes; i++) {
        const OciVolume *v = &plan->volumes[i];

        json_array_append_new(out,
                              json_pack("{s:s, s:s, s:b, s:b, s:b, s:i, s:i, s:i, s:I}", "name", v->name,
                                        "container_path", v->container_path, "copy_up", v->copy_up, "pod",
                                        v->pod, "memory", v->memory, "mode", (int)v->mode, "uid", (int)v->uid,
                                        "gid", (int)v->gid, "size_limit", (json_int_t)v->size_limit));
    }
    return out;
}

static json_t *plan_json(const OciPlan *plan)
{
    json_t *spec = json_loads(plan->spec, 0, NULL);

    assert_non_null(spec);
    return json_pack("{s:o, s:o, s:o, s:b, s:b, s:b}", "spec", spec, "trees", trees_json(plan), "volumes",
                     volumes_json(plan), "terminal", plan->terminal, "share_pod_pid", plan->share_pod_pid,
                     "root_readonly", plan->root_readonly);
}

static void load(const char *name, Bundle **ret)
{
    _cleanup_free_ char *path = string_printf("%s/%s.json", TEST_SPECS, name), *text = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    size_t n;

    assert_int_equal(fs_read_file(path, BUNDLE_CONFIG_MAX, &text, &n), 0);
    if (bundle_parse(text, n, path, ret, &e) < 0)
        fail_msg("%s", error_message(&e));
}

static void check_golden(const char *name)
{
    _cleanup_free_ char *path = string_printf("%s/%s.plan.json", TEST_SPECS, name), *text = NULL;
    _cleanup_json_ json_t *got = NULL, *wanted = NULL;
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    load(name, &bundle);
    if (oci_plan_new(bundle, &test_settings, &plan, &e) < 0)
        fail_msg("%s: %s", name, error_message(&e));
    got = plan_json(plan);
    text = json_dumps(got, JSON_INDENT(1));
    if (getenv("CLOUDHV_UPDATE_GOLDEN"))
        assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
    assert_int_equal(json_read_file(path, 1 << 20, &wanted, &e), 0);
    if (!json_equal(got, wanted))
        fail_msg("%s became\n%s", name, text);
}

static void test_golden(void **state)
{
    static const char *const names[] = {
        "container-limits-1.6", "container-mounts-1.7",  "ctr-2.3",
        "ctr-privileged-2.3",   "container-mounts-1.6",  "container-mounts-2.3",
        "container-priv-1.6",   "container-seccomp-1.6", "container-seccomp-2.3",
        "container-tty-1.6",    "container-user-1.6",    "ctr-1.6",
        "ctr-mem-1.6",          "ctr-privileged-1.6",    "image-volume-1.6",
        "image-volume-2.3",
    };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        check_golden(names[i]);
}

/* Paths, ids and annotations of the node stay there. */
static void test_nothing_of_the_node(void **state)
{
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    load("container-seccomp-2.3", &bundle);
    assert_int_equal(oci_plan_new(bundle, &test_settings, &plan, &e), 0);
    assert_null(strstr(plan->spec, "io.kubernetes"));
    assert_null(strstr(plan->spec, "/var/lib/containerd"));
    assert_null(strstr(plan->spec, "/proc/4242"));
}

static void test_sandbox(void **state)
{
    _cleanup_json_ json_t *sysctls = NULL;
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    load("sandbox-2.3", &bundle);
    assert_int_equal(bundle->kind, BUNDLE_SANDBOX);
    assert_string_equal(bundle->sandbox_id, TEST_SANDBOX);
    assert_string_equal(bundle->hostname, "web");
    assert_string_equal(
        bundle->netns_path,
        "/run/containerd/io.containerd.grpc.v1.cri/netns/cni-0f0f0f0f-1111-2222-3333-444444444444");
    assert_true(bundle->own_netns);
    assert_int_equal(oci_pod_check(bundle, &test_settings, &sysctls, &e), 0);
    assert_int_equal(json_object_size(sysctls), 3);
    assert_string_equal(json_string_value(json_object_get(sysctls, "net.ipv4.ip_local_port_range")),
                        "10000 20000");
    assert_int_equal(oci_plan_new(bundle, &test_settings, &plan, &e), -EINVAL);
}

static void refuse_pod(const char *name, const char *message)
{
    _cleanup_json_ json_t *sysctls = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    load(name, &bundle);
    assert_int_equal(oci_pod_check(bundle, &test_settings, &sysctls, &e), -EOPNOTSUPP);
    assert_null(sysctls);
    assert_non_null(strstr(error_message(&e), message));
}

static void test_node_namespaces(void **state)
{
    refuse_pod("sandbox-hostpid-1.6", "hostPID");
    refuse_pod("sandbox-hostipc-1.6", "hostIPC");
    refuse_pod("ctr-nethost-1.6", "hostNetwork");
}

static void test_plain(void **state)
{
    _cleanup_json_ json_t *sysctls = NULL;
    _cleanup_bundle_ Bundle *bundle = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    load("ctr-1.6", &bundle);
    assert_int_equal(bundle->kind, BUNDLE_PLAIN);
    assert_null(bundle->sandbox_id);
    assert_true(bundle->own_netns);
    assert_null(bundle->netns_path);
    assert_int_equal(oci_pod_check(bundle, &test_settings, &sysctls, &e), 0);
    assert_int_equal(json_object_size(sysctls), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_nothing_of_the_node),
        cmocka_unit_test(test_sandbox), cmocka_unit_test(test_node_namespaces),
        cmocka_unit_test(test_plain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
