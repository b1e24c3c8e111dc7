/* SPDX-License-Identifier: MIT */

/* What a specification may not ask for, and what becomes of single fields. */

#include "test-spec.h"

#define NS(more)                                                                                             \
    "[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"},{\"type\":"              \
    "\"network\"}" more "]"

static void test_refusals(void **state)
{
    static const char *const cases[][3] = {
        {"hooks", "{\"prestart\":[{\"path\":\"/bin/true\"}]}", "hooks.prestart"},
        {"hooks", "{\"createRuntime\":{}}", "hooks.createRuntime"},
        {"hooks", "[]", "hooks must be an object"},
        {"process", "null", "nothing to run"},
        {"process.args", "[]", "process.args is empty"},
        {"process.args", "[1]", "process.args must be an array of strings"},
        {"process.cwd", "\"tmp\"", "process.cwd"},
        {"process.terminal", "1", "must be true or false"},
        {"process.user.uid", "-1", "process.user.uid is out of range"},
        {"process.user.uid", "4294967295", "process.user.uid is out of range"},
        {"process.user.gid", "18446744073709551615", "process.user.gid is out of range"},
        {"process.user.additionalGids", "[\"x\"]", "additionalGids"},
        {"process.capabilities", "{\"bounding\":[\"CHOWN\"]}", "\"CHOWN\" is not a capability"},
        {"process.capabilities", "{\"ambient\":[\"CAP_X;\"]}", "capabilities.ambient"},
        {"process.rlimits", "[{\"type\":\"RLIMIT_X\",\"hard\":1,\"soft\":1}]", "RLIMIT_X"},
        {"process.rlimits", "[{\"type\":\"RLIMIT_CPU\",\"hard\":1}]", "RLIMIT_CPU needs"},
        {"process.rlimits", "[{\"type\":\"RLIMIT_CPU\",\"hard\":-2,\"soft\":0}]", "RLIMIT_CPU needs"},
        {"process.oomScoreAdj", "1001", "process.oomScoreAdj is out of range"},
        {"process.apparmorProfile", "\"cri-containerd.apparmor.d\"", "\"cri-containerd.apparmor.d\""},
        {"process.selinuxLabel", "\"system_u:system_r:c1\"", "SELinux label \"system_u:system_r:c1\""},
        {"process.ioPriority", "{\"class\":\"IOPRIO_CLASS_RT\"}", "process.ioPriority"},
        {"process.scheduler", "{\"policy\":\"SCHED_FIFO\"}", "process.scheduler"},
        {"linux.mountLabel", "\"x_t\"", "linux.mountLabel"},
        {"linux.rootfsPropagation", "\"rshared\"", "rshared"},
        {"linux.intelRdt", "{\"closID\":\"x\"}", "linux.intelRdt"},
        {"linux.personality", "{\"domain\":\"LINUX32\"}", "linux.personality"},
        {"linux.uidMappings", "[{\"containerID\":0}]", "user namespaces"},
        {"linux.timeOffsets", "{\"boottime\":{\"secs\":1}}", "time namespaces"},
        {"linux.maskedPaths", "[\"proc\"]", "not an absolute path"},
        {"linux.readonlyPaths", "[\"/proc/../x\"]", "\"..\""},
        {"linux.namespaces", "[]", "hostNetwork"},
        {"linux.namespaces", "[{\"type\":\"network\"}]", "hostPID"},
        {"linux.namespaces", "[{\"type\":\"network\"},{\"type\":\"pid\"}]", "hostIPC"},
        {"linux.namespaces", NS(",{\"type\":\"user\"}"), "user namespaces"},
        {"linux.namespaces", NS(",{\"type\":\"time\"}"), "time namespaces"},
        {"linux.namespaces", NS(",{\"type\":\"ghost\"}"), "\"ghost\""},
        {"linux.namespaces", NS(",{\"type\":\"pid\"}"), "two entries for \"pid\""},
        {"linux.namespaces", NS(",{\"type\":\"cgroup\",\"path\":\"/proc/1/ns/cgroup\"}"),
         "/proc/1/ns/cgroup"},
        {"linux.namespaces", "[1]", "array of objects"},
        {"linux.resources", "[]", "\"resources\" must be an object"},
        {"linux.resources.memory", "{\"disableOOMKiller\":true}", "disableOOMKiller"},
        {"linux.resources.memory", "{\"limit\":\"1G\"}", "memory.limit must be an integer"},
        {"linux.resources.cpu", "{\"realtimeRuntime\":1}", "realtimeRuntime"},
        {"linux.resources.blockIO", "{\"weight\":10}", "blockIO"},
        {"linux.resources.network", "{\"classID\":1}", "network"},
        {"linux.resources.rdma", "{\"mlx5_1\":{}}", "rdma"},
        {"linux.resources.hugepageLimits", "[{\"pageSize\":\"2MB\",\"limit\":4096}]", "2MB"},
        {"linux.resources.unified", "{\"io.max\":\"8:0 rbps=1\"}", "\"io.max\""},
        {"linux.resources.unified", "{\"../cgroup.procs\":\"1\"}", "../cgroup.procs"},
        {"linux.resources.devices",
         "[{\"allow\":false},{\"allow\":true,\"type\":\"b\",\"major\":8,\"minor\":0,\"access\":\"rw\"}]",
         "block device 8:0"},
        {"linux.resources.devices", "[{\"allow\":true,\"access\":\"rwx\"}]", "\"access\""},
        {"linux.devices", "[{\"path\":\"/dev/sda\",\"type\":\"b\",\"major\":8,\"minor\":0}]",
         "/dev/sda (8:0)"},
        {"linux.devices", "[{\"path\":\"dev/null\",\"type\":\"c\",\"major\":1,\"minor\":3}]",
         "not an absolute path"},
        {"linux.devices", "[{\"path\":\"/dev/x\",\"type\":\"c\",\"major\":-7,\"minor\":3}]", "\"major\""},
        {"linux.seccomp", "{}", "default action \"\""},
        {"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "SCMP_ACT_NOTIFY"},
        {"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/run/x\"}",
         "listenerPath"},
        {"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"NEW\"]}", "flag \"NEW\""},
        {"linux.seccomp", "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"VAX\"]}", "\"VAX\""},
        {"linux.seccomp",
         "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"a "
         "b\"],\"action\":\"SCMP_ACT_ALLOW\"}]}",
         "\"a b\""},
        {"linux.seccomp",
         "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_"
         "ERRNO\","
         "\"args\":[{\"index\":6,\"value\":0,\"op\":\"SCMP_CMP_EQ\"}]}]}",
         "args.index is out of range"},
        {"linux.seccomp",
         "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_"
         "ERRNO\","
         "\"args\":[{\"index\":1,\"value\":18446744073709551615,\"op\":\"SCMP_CMP_EQ\"}]}]}",
         "args.value is out of range"},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        test_refused(cases[i][0], cases[i][1], cases[i][2]);
}

static void test_fields(void **state)
{
    static const char *const cases[][3] = {
        {"process.env", "[\"A=1\",\"B=\\u00e4\"]", "[\"A=1\",\"B=\\u00e4\"]"},
        {"process.user", "{\"uid\":1000,\"gid\":50,\"umask\":18,\"additionalGids\":[1,2],\"username\":\"x\"}",
         "{\"uid\":1000,\"gid\":50,\"umask\":18,\"additionalGids\":[1,2]}"},
        {"process.noNewPrivileges", "true", "true"},
        {"process.oomScoreAdj", "-1000", "-999"},
        {"process.oomScoreAdj", "500", "500"},
        {"process.consoleSize", "{\"height\":24,\"width\":80,\"depth\":8}", "{\"height\":24,\"width\":80}"},
        {"process.apparmorProfile", "\"unconfined\"", "null"},
        {"process.selinuxLabel", "\"\"", "null"},
        {"process.unknown", "{\"x\":1}", "null"},
        {"process.rlimits", "[{\"type\":\"RLIMIT_CORE\",\"hard\":18446744073709551615,\"soft\":0}]",
         "[{\"type\":\"RLIMIT_CORE\",\"hard\":9223372036854775807,\"soft\":0}]"},
        {"annotations", "{\"run.oci.handler\":\"wasm\"}", "null"},
        {"hooks", "{\"prestart\":[],\"poststop\":null}", "null"},
        {"hostname", "\"h\"", "null"}, /* the VM has it: a plain container is its pod */
        {"linux.rootfsPropagation", "\"rslave\"", "null"},
        {"linux.cgroupsPath", "\"/kubepods/x\"", "\"/containers/" TEST_CONTAINER "\""},
        {"linux.sysctl", "{\"net.core.somaxconn\":\"1\"}", "null"},
        {"linux.maskedPaths", "[\"/proc/kcore\"]", "[\"/proc/kcore\"]"},
        {"linux.resources.hugepageLimits", "[{\"pageSize\":\"2MB\",\"limit\":0}]", "null"},
        {"linux.resources.memory",
         "{\"limit\":67108864,\"swap\":67108864,\"swappiness\":0,\"reservation\":-1}",
         "{\"limit\":67108864,\"reservation\":-1}"},
        {"linux.resources.memory", "{\"limit\":0}", "null"},
        {"linux.resources.cpu",
         "{\"shares\":2,\"quota\":-1,\"period\":100000,\"cpus\":\"0-3\",\"mems\":\"0\"}",
         "{\"shares\":2,\"quota\":-1,\"period\":100000}"},
        {"linux.resources.pids", "{\"limit\":100}", "{\"limit\":100}"},
        {"linux.resources.unified", "{\"memory.oom.group\":\"1\",\"memory.swap.max\":\"0\"}",
         "{\"memory.oom.group\":\"1\"}"},
        {"linux.devices", "[{\"path\":\"/dev/null\",\"type\":\"c\",\"major\":1,\"minor\":3}]", "null"},
        {"linux.devices",
         "[{\"path\":\"/dev/fuse\",\"type\":\"c\",\"major\":10,\"minor\":229,\"fileMode\":438}]",
         "[{\"path\":\"/dev/fuse\",\"type\":\"c\",\"major\":10,\"minor\":229,\"fileMode\":438}]"},
        {"linux.namespaces", NS(""), "[{\"type\":\"mount\"},{\"type\":\"cgroup\"},{\"type\":\"pid\"}]"},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        test_becomes(cases[i][0], cases[i][1], cases[i][2]);
}

static void test_labels_can_be_ignored(void **state)
{
    OciSettings settings = test_settings;
    _cleanup_oci_plan_ OciPlan *a = NULL, *b = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    settings.ignore_lsm = true;
    assert_int_equal(test_plan_with("process.apparmorProfile", "\"strict\"", &settings, &a, &e), 0);
    assert_null(strstr(a->spec, "strict"));
    assert_int_equal(test_plan_with("linux.mountLabel", "\"strict\"", &settings, &b, &e), 0);
    assert_null(strstr(b->spec, "strict"));
}

/* A container of the CRI: `namespaces` as containerd writes them, with paths of the pod. */
static int plan_in_pod(const char *namespaces, const char *more, OciPlan **ret, Error *e)
{
    static const char format[] =
        "{\"hostname\":\"own\",\"annotations\":{\"io.kubernetes.cri.container-type\":\"container\","
        "\"io.kubernetes.cri.sandbox-id\":\"" TEST_SANDBOX
        "\"},\"process\":{\"args\":[\"true\"],\"cwd\":\"/\"},"
        "\"linux\":{\"namespaces\":[{\"type\":\"mount\"},%s]%s}}";
    _cleanup_bundle_ Bundle *bundle = NULL;
    char text[2048];
    int r;

    assert_true(snprintf(text, sizeof(text), format, namespaces, more) < (int)sizeof(text));
    r = bundle_parse(text, strlen(text), "config.json", &bundle, e);
    return r < 0 ? r : oci_plan_new(bundle, &test_settings, ret, e);
}

#define NET "{\"type\":\"network\",\"path\":\"/proc/4242/ns/net\"}"
#define IPC ",{\"type\":\"ipc\",\"path\":\"/proc/4242/ns/ipc\"}"
#define UTS ",{\"type\":\"uts\",\"path\":\"/proc/4242/ns/uts\"}"

static void test_namespaces_of_a_pod(void **state)
{
    _cleanup_oci_plan_ OciPlan *own = NULL, *shared = NULL, *apart = NULL, *none = NULL;
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(plan_in_pod(NET IPC UTS ",{\"type\":\"pid\"}", "", &own, &e), 0);
    assert_false(own->share_pod_pid);
    assert_non_null(
        strstr(own->spec, "\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"cgroup\"},{\"type\":\"pid\"}]"));
    assert_null(strstr(own->spec, "hostname"));

    assert_int_equal(
        plan_in_pod(NET IPC UTS ",{\"type\":\"pid\",\"path\":\"/proc/4242/ns/pid\"}", "", &shared, &e), 0);
    assert_true(shared->share_pod_pid);

    assert_int_equal(
        plan_in_pod(NET ",{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"pid\"}", "", &apart, &e), 0);
    assert_non_null(strstr(apart->spec, "{\"type\":\"ipc\"},{\"type\":\"uts\"}"));
    assert_non_null(strstr(apart->spec, "\"hostname\":\"own\""));

    assert_int_equal(
        plan_in_pod(NET IPC UTS ",{\"type\":\"pid\",\"path\":\"/proc/1/ns/pid\"}", "", &none, &e),
        -EOPNOTSUPP);
    assert_non_null(strstr(error_message(&e), "/proc/1/ns/pid is not the pod's"));
    assert_int_equal(plan_in_pod("{\"type\":\"network\"}" IPC UTS ",{\"type\":\"pid\"}", "", &none, &e),
                     -EOPNOTSUPP);
    assert_non_null(strstr(error_message(&e), "network namespace of its own"));
    assert_int_equal(
        plan_in_pod(NET IPC UTS ",{\"type\":\"pid\"}", ",\"sysctl\":{\"net.x\":\"1\"}", &none, &e),
        -EOPNOTSUPP);
    assert_non_null(strstr(error_message(&e), "linux.sysctl"));
    assert_null(none);
}

static void test_sysctls(void **state)
{
    static const char *const refused[][2] = {
        {"{\"kernel.panic\":\"1\"}", "\"kernel.panic\" is not a pod's"},
        {"{\"net.\":\"1\"}", "\"net.\" is not a pod's"},
        {"{\"net..ipv4\":\"1\"}", "not a sysctl's name"},
        {"{\"net.ipv4/../../x\":\"1\"}", "not a sysctl's name"},
        {"{\"net.core.somaxconn\":1}", "line of text"},
        {"{\"net.core.somaxconn\":\"1\\n2\"}", "line of text"},
        {"{\"kernel.hostname\":\"x\"}", "kernel.hostname"},
    };

    for (size_t i = 0; i < ELEMENTSOF(refused); i++) {
        _cleanup_bundle_ Bundle *bundle = NULL;
        _cleanup_json_ json_t *sysctls = NULL;
        _cleanup_error_ Error e = ERROR_INIT;
        char text[1024];

        snprintf(text, sizeof(text), "{\"linux\":{\"namespaces\":%s,\"sysctl\":%s}}", NS(""), refused[i][0]);
        assert_int_equal(bundle_parse(text, strlen(text), "config.json", &bundle, &e), 0);
        assert_true(oci_pod_check(bundle, &test_settings, &sysctls, &e) < 0);
        if (!strstr(error_message(&e), refused[i][1]))
            fail_msg("%s: %s", refused[i][0], error_message(&e));
    }
}

static void test_exec_and_update(void **state)
{
    static const char exec[] =
        "{\"terminal\":true,\"args\":[\"sh\"],\"cwd\":\"/\",\"user\":{\"uid\":7,\"gid\":8},\"x\":1}";
    static const char bad[] = "{\"args\":[],\"cwd\":\"/\"}";
    static const char update[] =
        "{\"memory\":{\"limit\":1048576},\"devices\":[{\"allow\":true,\"type\":\"b\",\"major\":8}]}";
    _cleanup_free_ char *text = NULL, *none = NULL, *resources = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    bool terminal = false;

    assert_int_equal(oci_exec_rebuild(exec, strlen(exec), &test_settings, &text, &terminal, &e), 0);
    assert_true(terminal);
    assert_string_equal(text,
                        "{\"terminal\":true,\"args\":[\"sh\"],\"cwd\":\"/\",\"user\":{\"uid\":7,\"gid\":8},"
                        "\"capabilities\":{}}");
    assert_int_equal(oci_exec_rebuild(bad, strlen(bad), &test_settings, &none, NULL, &e), -EINVAL);
    assert_int_equal(oci_exec_rebuild("[]", 2, &test_settings, &none, NULL, &e), -EINVAL);
    assert_int_equal(oci_exec_rebuild("", 0, &test_settings, &none, NULL, &e), -EINVAL);
    assert_null(none);
    assert_int_equal(oci_resources_rebuild(update, strlen(update), &resources, &e), 0);
    assert_string_equal(resources, "{\"memory\":{\"limit\":1048576}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_labels_can_be_ignored),
        cmocka_unit_test(test_namespaces_of_a_pod),
        cmocka_unit_test(test_sysctls),
        cmocka_unit_test(test_exec_and_update),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
