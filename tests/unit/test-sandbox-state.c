/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "sandbox/state.h"

#define KEY "0123456789abcdef"

static int setup(void **state)
{
    char *dir = strdup("/tmp/test-sandbox-state.XXXXXX");

    assert_non_null(mkdtemp(dir));
    assert_int_equal(state_prepare_directory(dir, NULL), 0);
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(fs_remove_tree(*state), 0);
    free(*state);
    return 0;
}

static void fill(SandboxState *s)
{
    SandboxContainer *c;

    *s = (SandboxState){
        .namespace = strdup("k8s.io"),
        .sandbox_id = strdup("pod"),
        .bundle = strdup("/run/bundle"),
        .source = strdup("cold"),
        .shim_pid = 42,
        .shim_start_time = 1ULL << 40,
        .uid = 1879048192,
        .running = true,
        .vcpus = 3,
        .memory_mb = 512,
        .since_usec = 1795510415230321,
        .kernel_release = strdup("6.12"),
        .vmm = json_pack("{s:i}", "pid", 7),
    };
    c = sandbox_state_add_container(s, "web");
    assert_non_null(c);
    assert_int_equal(sandbox_container_add_serial(c, "image1"), 0);
    assert_int_equal(sandbox_container_add_serial(c, "scratch1"), 0);
    assert_non_null(sandbox_state_add_container(s, "empty"));
}

static void test_state_comes_back_as_written(void **state)
{
    _cleanup_sandbox_state_ SandboxState a = {0}, b = {0};

    fill(&a);
    assert_int_equal(sandbox_state_write(*state, KEY, &a, NULL), 0);
    assert_int_equal(sandbox_state_read(*state, KEY, &b, NULL), 0);
    assert_string_equal(b.namespace, "k8s.io");
    assert_string_equal(b.sandbox_id, "pod");
    assert_string_equal(b.bundle, "/run/bundle");
    assert_string_equal(b.kernel_release, "6.12");
    assert_int_equal(b.shim_pid, 42);
    assert_int_equal(b.shim_start_time, 1ULL << 40);
    assert_int_equal(b.uid, 1879048192);
    assert_true(b.running);
    assert_int_equal(b.vcpus, 3);
    assert_int_equal(b.memory_mb, 512);
    assert_int_equal(b.since_usec, 1795510415230321);
    assert_int_equal(json_integer_value(json_object_get(b.vmm, "pid")), 7);
    assert_int_equal(b.n_containers, 2);
    assert_string_equal(b.containers[0].id, "web");
    assert_int_equal(b.containers[0].n_serials, 2);
    assert_string_equal(b.containers[0].serials[1], "scratch1");
    assert_int_equal(b.containers[1].n_serials, 0);
}

/* What only a clone's state has; an absent key is NULL. */
static void test_state_of_a_clone(void **state)
{
    _cleanup_sandbox_state_ SandboxState a = {0}, b = {0}, c = {0};
    _cleanup_free_ char *own = NULL, *other = NULL;

    fill(&a);
    assert_int_equal(sandbox_state_write(*state, KEY, &a, NULL), 0);
    assert_int_equal(sandbox_state_read(*state, KEY, &b, NULL), 0);
    assert_null(b.purpose);
    assert_null(b.template);
    assert_null(b.vm);
    own = sandbox_state_vm_directory(*state, KEY, &b);
    assert_non_null(strstr(own, "/vm/" KEY));
    a.purpose = strdup("pool");
    a.template = strdup("ab");
    a.vm = strdup("fedcba9876543210");
    assert_int_equal(sandbox_state_write(*state, KEY, &a, NULL), 0);
    assert_int_equal(sandbox_state_read(*state, KEY, &c, NULL), 0);
    assert_string_equal(c.purpose, "pool");
    assert_string_equal(c.template, "ab");
    other = sandbox_state_vm_directory(*state, KEY, &c);
    assert_non_null(strstr(other, "/vm/fedcba9876543210"));
}

static void test_dropping_containers(void **state)
{
    _cleanup_sandbox_state_ SandboxState s = {0};

    fill(&s);
    sandbox_state_drop_container(&s, "unknown");
    assert_int_equal(s.n_containers, 2);
    sandbox_state_drop_container(&s, "web");
    assert_int_equal(s.n_containers, 1);
    assert_null(sandbox_state_find_container(&s, "web"));
    assert_non_null(sandbox_state_find_container(&s, "empty"));
}

static void write_text(const char *dir, const char *text)
{
    _cleanup_free_ char *path = state_file_path(dir, KEY);

    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0600), 0);
}

static void test_damaged_files_are_refused_by_name(void **state)
{
    static const struct {
        const char *text, *message;
        int number;
    } cases[] = {
        {"", "not valid JSON", -EINVAL},
        {"[]", "not an object", -EBADMSG},
        {"{\"version\": 99}", "has version 99", -EPROTO},
        {"{\"version\": 1}", "namespace, sandbox or uid is missing", -EBADMSG},
        {"{\"version\": 1, \"namespace\": 5}", "\"namespace\" must be a string", -EINVAL},
        {"{\"version\": 1, \"uid\": 0}", "\"uid\" is 0", -ERANGE},
        {"{\"version\": 1, \"namespace\": \"a\", \"sandbox\": \"b\", \"uid\": 5, \"containers\": "
         "[{\"disks\": []}]}",
         "a container has no id", -EBADMSG},
        {"{\"version\": 1, \"namespace\": \"a\", \"sandbox\": \"b\", \"uid\": 5, \"containers\": [{\"id\": "
         "\"c\", \"disks\": [1]}]}",
         "is no string", -EBADMSG},
        {"{\"version\": 1, \"namespace\": \"a\", \"sandbox\": \"b\", \"uid\": 5, \"vm\": \"..\"}",
         "names no directory of a VM", -EBADMSG},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_sandbox_state_ SandboxState s = {0};
        _cleanup_error_ Error e = ERROR_INIT;

        write_text(*state, cases[i].text);
        assert_int_equal(sandbox_state_read(*state, KEY, &s, &e), cases[i].number);
        assert_non_null(strstr(e.message, cases[i].message));
        assert_non_null(strstr(e.message, KEY));
        assert_null(s.sandbox_id);
    }
}

static void test_leftovers_are_removed_by_name_alone(void **state)
{
    _cleanup_sandbox_state_ SandboxState s = {0};
    _cleanup_free_ char *vm = NULL, *file = NULL;
    char key[SANDBOX_KEY_SIZE];

    fill(&s);
    s.uid = 1879148998;
    sandbox_key("k8s.io", "pod", key);
    vm = state_vm_directory(*state, key);
    file = state_file_path(*state, key);
    assert_int_equal(mkdir(vm, 0700), 0);
    assert_int_equal(sandbox_state_write(*state, key, &s, NULL), 0);
    assert_int_equal(sandbox_remove_leftover(*state, "k8s.io", "other", NULL), 0);
    assert_int_equal(sandbox_remove_leftover(*state, "k8s.io", "pod", NULL), 1);
    assert_int_equal(access(vm, F_OK), -1);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(sandbox_remove_leftover(*state, "k8s.io", "pod", NULL), 0);
}

static void test_keys_keep_namespaces_apart(void **state)
{
    char a[SANDBOX_KEY_SIZE], b[SANDBOX_KEY_SIZE];

    sandbox_key("a", "bc", a);
    sandbox_key("ab", "c", b);
    assert_int_equal(strlen(a), 16);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_state_comes_back_as_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_of_a_clone, setup, teardown),
        cmocka_unit_test(test_dropping_containers),
        cmocka_unit_test_setup_teardown(test_damaged_files_are_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftovers_are_removed_by_name_alone, setup, teardown),
        cmocka_unit_test(test_keys_keep_namespaces_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
