/* SPDX-License-Identifier: MIT */

/* What becomes of each kind of mount. The made-up host is described in test-spec.h. */

#include "test-spec.h"

#include "oci/source.h"

#define BIND(source, options)                                                                                \
    "[{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"" source "\",\"options\":[" options "]}]"
#define POD "/var/lib/kubelet/pods/0f0f0f0f-1111/"

static void test_refused_mounts(void **state)
{
    static const char *const cases[][2] = {
        {"{}", "mounts must be an array"},
        {"[1]", "array of objects"},
        {"[{\"type\":\"proc\"}]", "no \"destination\""},
        {"[{\"destination\":\"x\",\"type\":\"proc\"}]", "not an absolute path"},
        {"[{\"destination\":\"/\",\"type\":\"tmpfs\"}]", "root of a container"},
        {"[{\"destination\":\"/a/../b\",\"type\":\"tmpfs\"}]", "\"..\""},
        {"[{\"destination\":\"/d\",\"type\":\"nfs\",\"source\":\"server:/x\"}]",
         "\"nfs\" (source server:/x)"},
        {"[{\"destination\":\"/d\",\"type\":\"tmpfs\",\"options\":[\"huge=always\"]}]", "\"huge=always\""},
        {"[{\"destination\":\"/d\",\"type\":\"tmpfs\",\"options\":[\"size=1,exec\"]}]", "\"size=1,exec\""},
        {"[{\"destination\":\"/d\",\"type\":\"tmpfs\",\"options\":[\"context=x\"]}]", "\"context=x\""},
        {"[{\"destination\":\"/d\",\"type\":\"proc\",\"options\":[\"size=1\"]}]",
         "\"size=1\" is not supported for proc"},
        {"[{\"destination\":\"/d\",\"type\":\"proc\",\"options\":[1]}]", "options must be strings"},
        {"[{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"/x\",\"uidMappings\":[{\"hostID\":1}]}]",
         "idmapped"},
        {BIND("relative", ""), "not an absolute path"},
        {BIND("/srv/dir", "\"rbind\",\"rw\""), "/srv/dir cannot be served"},
        {BIND("/srv/dir", "\"rbind\",\"ro\",\"rslave\""), "mount propagation \"rslave\""},
        {BIND("/srv/dir", "\"rbind\",\"ro\",\"rshared\""), "mount propagation \"rshared\""},
        {BIND("/srv/missing", "\"rbind\",\"ro\""), "the node has no /srv/missing"},
        {BIND("/srv/device", "\"rbind\",\"ro\""), "/srv/device is a block device"},
        {BIND("/srv/broken", "\"rbind\",\"ro\""), "mount /d: cannot look at /srv/broken"},
        {BIND("/", "\"rbind\",\"ro\""), "belongs to the node's system"},
        {BIND("/proc/dir", "\"rbind\",\"ro\""), "belongs to the node's system"},
        {BIND("//sys/./dir", "\"rbind\",\"ro\""), "belongs to the node's system"},
        {BIND("/dev/shm", "\"rbind\",\"rw\""), "belongs to the node's system"},
        {BIND(POD "volume-subpaths/v/c/dir", "\"rbind\",\"ro\""), "subPath"},
        {BIND(POD "volume-subpaths/v/c/0", "\"rbind\",\"rw\""), "subPath"},
        {BIND(POD "volumes/kubernetes.io~empty-dir/full", "\"rbind\",\"rw\""), "has content on the node"},
        {BIND(POD "volumes/kubernetes.io~empty-dir/x/dir", "\"rbind\",\"rw\""), "shared for writing"},
        {BIND(POD "volumes/kubernetes.io~csi/x/dir", "\"rbind\",\"rw\""), "shared for writing"},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        test_refused("mounts", cases[i][0], cases[i][1]);
}

static void make(const char *mounts, OciPlan **ret)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (test_plan_with("mounts", mounts, &test_settings, ret, &e) < 0)
        fail_msg("%s: %s", mounts, error_message(&e));
}

static void expect_tree(const char *mounts, bool read_only, bool copy_back)
{
    _cleanup_oci_plan_ OciPlan *plan = NULL;
    char place[256];

    make(mounts, &plan);
    assert_int_equal(plan->n_trees, 1);
    assert_int_equal(plan->n_volumes, 0);
    assert_string_equal(plan->trees[0].destination, "/d");
    assert_int_equal(plan->trees[0].read_only, read_only);
    assert_int_equal(plan->trees[0].copy_back, copy_back);
    snprintf(place, sizeof(place), "\"%s/%s\",\"options\":[\"rbind\",\"%s\"]", OCI_GUEST_TREES,
             plan->trees[0].name, read_only ? "ro" : "rw");
    assert_non_null(strstr(plan->spec, place));
}

static void test_trees(void **state)
{
    expect_tree(BIND("/srv/file", "\"rbind\",\"ro\""), true, false);
    expect_tree(BIND("/srv/file", "\"bind\",\"ro\",\"rw\""), false, true);
    expect_tree(BIND("/srv/dir", "\"rbind\",\"ro\""), true, false);
    expect_tree(BIND(POD "volume-subpaths/v/c/0", "\"rbind\",\"ro\""), true, false);
    /* What the kubelet writes is read-only, whatever the mount says. */
    expect_tree(BIND(POD "volumes/kubernetes.io~secret/s", "\"rbind\",\"rw\""), true, false);
    expect_tree(BIND(POD "volumes/kubernetes.io~configmap/c", "\"rbind\""), true, false);
    expect_tree(BIND(POD "volumes/kubernetes.io~projected/p", "\"rbind\",\"ro\""), true, false);
    expect_tree(BIND(POD "volumes/kubernetes.io~downward-api/d", "\"rbind\",\"ro\""), true, false);
}

static void test_volumes(void **state)
{
    _cleanup_oci_plan_ OciPlan *disk = NULL, *memory = NULL, *twice = NULL;

    make(BIND(POD "volumes/kubernetes.io~empty-dir/data", "\"rbind\",\"rw\""), &disk);
    assert_int_equal(disk->n_volumes, 1);
    assert_string_equal(disk->volumes[0].name, "pod-emptydir-data");
    assert_true(disk->volumes[0].pod && !disk->volumes[0].memory && !disk->volumes[0].copy_up);
    assert_int_equal(disk->volumes[0].mode, 02777);
    assert_int_equal(disk->volumes[0].gid, 2000);

    make(BIND(POD "volumes/kubernetes.io~empty-dir/tmpfs", "\"rbind\",\"rw\""), &memory);
    assert_true(memory->volumes[0].memory);
    assert_int_equal(memory->volumes[0].size_limit, 64 << 20);

    make("[{\"destination\":\"/a\",\"type\":\"bind\",\"source\":\"" POD
         "volumes/kubernetes.io~empty-dir/v\"},"
         "{\"destination\":\"/b\",\"type\":\"bind\",\"source\":\"" POD "volumes/kubernetes.io~empty-dir/v\","
         "\"options\":[\"ro\"]}]",
         &twice);
    assert_int_equal(twice->n_volumes, 1);
    assert_non_null(strstr(twice->spec, "\"/b\",\"type\":\"bind\",\"source\":\"" OCI_GUEST_VOLUMES
                                        "/pod-emptydir-v\",\"options\":[\"rbind\",\"ro\"]"));
}

static void test_file_systems(void **state)
{
    test_becomes(
        "mounts",
        "[{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\",\"options\":[\"nosuid\","
        "\"mode=1777\",\"size=65536k\",\"ro\"]},{\"destination\":\"/c\",\"type\":\"cgroup2\"}]",
        "[{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\","
        "\"mode=1777\",\"size=65536k\",\"ro\"]},{\"destination\":\"/c\",\"type\":\"cgroup\",\"source\":"
        "\"cgroup\",\"options\":[\"rw\"]}]");
}

static void test_source_kinds(void **state)
{
#define CRI "/run/containerd/io.containerd.grpc.v1.cri/"
    static const struct {
        const char *path;
        SourceKind kind;
    } cases[] = {
        {CRI "sandboxes/sb/shm", SOURCE_SHM},
        {CRI "sandboxes/other/shm", SOURCE_OTHER},
        {"/srv/sandboxes/sb/shm", SOURCE_OTHER},
        {CRI "containers/ct/volumes/1", SOURCE_IMAGE_VOLUME},
        {CRI "containers/other/volumes/1", SOURCE_OTHER},
        {CRI "containers/ct/volumes/1/2", SOURCE_OTHER},
        {POD "volumes/kubernetes.io~empty-dir/v/", SOURCE_EMPTY_DIR},
        {POD "volumes/kubernetes.io~secret/s/sub/file", SOURCE_CONFIG},
        {POD "volumes/kubernetes.io~secrets/s", SOURCE_OTHER},
        {POD "volumes/kubernetes.io~secret", SOURCE_OTHER},
        {"/srv/kubernetes.io~secret/s", SOURCE_OTHER},
        {POD "volume-subpaths/v/c/0", SOURCE_SUBPATH},
        {"/", SOURCE_SYSTEM},
        {"///", SOURCE_SYSTEM},
        {"/sys", SOURCE_SYSTEM},
        {"/system", SOURCE_OTHER},
    };
    const char *name;
    size_t n;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (source_kind(cases[i].path, "sb", "ct", &name, &n) != cases[i].kind)
            fail_msg("%s is not of kind %i", cases[i].path, (int)cases[i].kind);
    assert_int_equal(source_kind(POD "volumes/kubernetes.io~empty-dir/v/", "sb", "ct", &name, &n),
                     SOURCE_EMPTY_DIR);
    assert_int_equal(n, 1);
    assert_memory_equal(name, "v", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_mounts), cmocka_unit_test(test_trees),
        cmocka_unit_test(test_volumes),        cmocka_unit_test(test_file_systems),
        cmocka_unit_test(test_source_kinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
