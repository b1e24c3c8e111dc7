/* SPDX-License-Identifier: MIT */

/* A sandbox from acquire to release, with a fake VMM and a guest that answers what it is told to. */

#include "unit.h"

#include "fake-vmm.h"
#include "sandbox/uid.h"

typedef struct Fixture {
    FakeVm vm;
    SandboxSettings settings;
    Sandbox *sandbox;
    SandboxPhase phases[16];
    unsigned n_phases;
    int number; /* of the last error that came with a phase */
    char text[400];
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    *state = f;
    fake_vm_start(&f->vm);
    f->settings = fake_vm_settings(&f->vm);
    return state_prepare_directory(f->settings.state_dir, NULL);
}

static int teardown(void **state)
{
    Fixture *f = *state;

    sandbox_free(f->sandbox);
    fake_vm_settle(&f->vm, 0);
    fake_vm_stop(&f->vm);
    free(f);
    return 0;
}

static void on_phase(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata)
{
    Fixture *f = userdata;

    assert_int_equal(sandbox_get_phase(sandbox), phase);
    f->phases[f->n_phases++] = phase;
    if (e) {
        f->number = e->number;
        snprintf(f->text, sizeof(f->text), "%s", error_message(e));
    }
}

static int acquire(Fixture *f, Error *e)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;

    request.namespace_ = (char *)"k8s.io";
    request.sandbox_id = (char *)"pod";
    request.bundle = (char *)"/run/bundle";
    request.hostname = (char *)"web-0";
    request.shim_pid = 42;
    request.shim_start_time = 77;
    return sandbox_acquire(f->vm.loop, &f->settings, &request, NULL, 0, on_phase, f, &f->sandbox, e);
}

/* With a protocol other than 1 the guest is one that we cannot speak to. */
static void answer_hello(Fixture *f, uint32_t protocol, const char *kernel)
{
    Cloudhv__Agent__V1__HelloResponse response = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;
    unsigned i = fake_guest_find(&f->vm, "Hello");

    assert_int_not_equal(i, FAKE_GUEST_CALLS_MAX);
    response.protocol = protocol;
    response.kernel_release = (char *)kernel;
    fake_guest_reply(&f->vm, i, &response.base);
    fake_vm_settle(&f->vm, 2000);
}

static void answer_identity(Fixture *f)
{
    Cloudhv__Agent__V1__IdentityResponse response = CLOUDHV__AGENT__V1__IDENTITY_RESPONSE__INIT;
    unsigned i = fake_guest_find(&f->vm, "Identity");

    assert_int_not_equal(i, FAKE_GUEST_CALLS_MAX);
    fake_guest_reply(&f->vm, i, &response.base);
    fake_vm_settle(&f->vm, 2000);
}

static Fixture *running(void **state)
{
    Fixture *f = *state;
    _cleanup_error_ Error e = ERROR_INIT;

    if (acquire(f, &e) < 0)
        fail_msg("%s", error_message(&e));
    fake_vm_settle(&f->vm, 2000);
    answer_hello(f, 1, "6.12.9");
    answer_identity(f);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_RUNNING);
    return f;
}

static bool there_is(const Fixture *f, char *path)
{
    bool there = access(path, F_OK) == 0;

    free(path);
    return there;
}

static bool has_state(const Fixture *f)
{
    return there_is(f, state_file_path(f->settings.state_dir, sandbox_get_key(f->sandbox)));
}

static bool has_directory(const Fixture *f)
{
    return there_is(f, state_vm_directory(f->settings.state_dir, sandbox_get_key(f->sandbox)));
}

/* Nothing of the sandbox is left on the host. */
static void assert_gone(const Fixture *f)
{
    char *file = state_file_path(f->settings.state_dir, sandbox_get_key(f->sandbox));
    uid_t uid;

    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_GONE);
    assert_null(f->vm.vmm);
    assert_false(has_state(f));
    assert_false(has_directory(f));
    assert_int_equal(uid_find(file, &uid), 0);
    free(file);
}

static void assert_phases(const Fixture *f, const SandboxPhase *phases, unsigned n)
{
    assert_int_equal(f->n_phases, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(f->phases[i], phases[i]);
}

/* -------------------------------------------------------------------------------------------------------
 * life */

static void test_life(void **state)
{
    static const SandboxPhase phases[] = {SANDBOX_IDENTIFYING, SANDBOX_RUNNING, SANDBOX_RELEASING,
                                          SANDBOX_GONE};
    const Cloudhv__Agent__V1__IdentityRequest *identity;
    _cleanup_sandbox_state_ SandboxState read = {0};
    Fixture *f = *state;
    SandboxTimes times;

    assert_int_equal(acquire(f, NULL), 0);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_BOOTING);
    assert_true(has_state(f) && has_directory(f));
    fake_vm_settle(&f->vm, 2000);
    answer_hello(f, 1, "6.12.9");
    identity =
        (const Cloudhv__Agent__V1__IdentityRequest *)f->vm.calls[fake_guest_find(&f->vm, "Identity")].request;
    assert_string_equal(identity->sandbox_id, "pod");
    assert_string_equal(identity->hostname, "web-0");
    assert_int_equal(strlen(identity->machine_id), 32);
    assert_int_equal(strspn(identity->machine_id, "0123456789abcdef"), 32);
    assert_in_range(identity->entropy.len, 32, 512);
    assert_true(identity->realtime_nsec > 1700000000ULL * 1000000000ULL);
    answer_identity(f);
    times = sandbox_get_times(f->sandbox);
    assert_true(times.vmm > 0 && times.vmm <= times.agent && times.agent <= times.identity);
    assert_int_equal(sandbox_state_read(f->settings.state_dir, sandbox_get_key(f->sandbox), &read, NULL), 0);
    assert_true(read.running);
    assert_string_equal(read.kernel_release, "6.12.9");
    assert_string_equal(read.bundle, "/run/bundle");
    assert_int_equal(read.shim_pid, 42);
    assert_int_equal(read.vcpus, 1);
    assert_int_equal(read.memory_mb, 128);
    assert_non_null(read.vmm);
    sandbox_release(f->sandbox);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_phases(f, phases, ELEMENTSOF(phases));
    assert_int_equal(f->vm.killed, 1);
    assert_gone(f);
}

static void test_boot_does_not_start(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;
    char key[SANDBOX_KEY_SIZE];

    f->vm.boot_now = -ENOENT;
    assert_int_equal(acquire(f, &e), -ENOENT);
    assert_non_null(strstr(e.message, "the fake VMM does not start"));
    assert_null(f->sandbox);
    assert_int_equal(f->n_phases, 0);
    sandbox_key("k8s.io", "pod", key);
    assert_false(there_is(f, state_file_path(f->settings.state_dir, key)));
    assert_false(there_is(f, state_vm_directory(f->settings.state_dir, key)));
}

static void test_boot_fails(void **state)
{
    static const SandboxPhase phases[] = {SANDBOX_RELEASING, SANDBOX_GONE};
    Fixture *f = *state;

    f->vm.boot = -EIO;
    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_phases(f, phases, ELEMENTSOF(phases));
    assert_int_equal(f->number, -EIO);
    assert_non_null(strstr(f->text, "the fake VMM has no luck"));
    assert_gone(f);
}

static void test_no_uid_left(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = *state;

    f->settings.uid_count = 0;
    assert_int_equal(acquire(f, &e), -EUSERS);
    assert_null(f->sandbox);
}

/* -------------------------------------------------------------------------------------------------------
 * guest */

static void test_other_protocol(void **state)
{
    Fixture *f = *state;

    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    answer_hello(f, 2, "6.12");
    assert_int_equal(f->number, -EPROTO);
    assert_non_null(strstr(f->text, "speaks protocol 2, but this program speaks 1"));
    assert_gone(f);
}

static void test_guest_refuses(void **state)
{
    Fixture *f = *state;

    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    fake_guest_refuse(&f->vm, fake_guest_find(&f->vm, "Hello"), TTRPC_INTERNAL, "not today");
    fake_vm_settle(&f->vm, 2000);
    assert_non_null(strstr(f->text, "waiting for the agent in the VM: not today"));
    assert_gone(f);
    sandbox_free(f->sandbox);
    f->sandbox = NULL;
    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    answer_hello(f, 1, "6.12");
    fake_guest_refuse(&f->vm, fake_guest_find(&f->vm, "Identity"), TTRPC_FAILED_PRECONDITION,
                      "another pod's");
    fake_vm_settle(&f->vm, 2000);
    assert_non_null(strstr(f->text, "giving the VM its identity: another pod's"));
    assert_gone(f);
}

/* What a guest calls its kernel goes into files and messages: it is short and of printable ASCII there. */
static void test_kernel_release(void **state)
{
    Fixture *f = *state;
    char longer[200];

    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    memset(longer, 'x', sizeof(longer));
    memcpy(longer, "6.12\xff\n\x1b[2J", 10);
    longer[sizeof(longer) - 1] = 0;
    answer_hello(f, 1, longer);
    answer_identity(f);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_RUNNING);
    assert_int_equal(strlen(sandbox_get_state(f->sandbox)->kernel_release), 64);
    assert_memory_equal(sandbox_get_state(f->sandbox)->kernel_release, "6.12???[2Jxxx", 12);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_gone(f);
}

/* ---------------------------------------------------------------------------------------------------------
 * end */

static void test_vmm_ends_while_booting(void **state)
{
    Fixture *f = *state;

    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    fake_vmm_ends(&f->vm, "Kernel panic");
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(f->number, -ECONNABORTED);
    assert_non_null(strstr(f->text, "the VM ended while it was booting: Kernel panic"));
    assert_gone(f);
}

static void test_vmm_ends_later(void **state)
{
    Fixture *f = running(state);

    fake_vmm_ends(&f->vm, "killed by signal 9");
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_ENDED);
    assert_string_equal(sandbox_get_end_reason(f->sandbox), "killed by signal 9");
    assert_non_null(strstr(f->text, "killed by signal 9"));
    assert_true(has_state(f));
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(f->vm.killed, 0);
    assert_gone(f);
}

static void test_released_while_booting(void **state)
{
    Fixture *f = *state;

    assert_int_equal(acquire(f, NULL), 0);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_gone(f);
    sandbox_free(f->sandbox);
    f->sandbox = NULL;
    assert_int_equal(acquire(f, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_IDENTIFYING);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_gone(f);
}

/* Freed without a release, the VM goes on, and another daemon takes it over. */
static void test_adopted(void **state)
{
    Fixture *f = running(state);
    _cleanup_sandbox_state_ SandboxState read = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    char key[SANDBOX_KEY_SIZE];

    sandbox_key("k8s.io", "pod", key);
    f->sandbox = sandbox_free(f->sandbox);
    assert_int_equal(f->vm.killed, 0);
    assert_int_equal(sandbox_state_read(f->settings.state_dir, key, &read, NULL), 0);
    assert_int_equal(sandbox_adopt(f->vm.loop, &f->settings, &read, on_phase, f, &f->sandbox, &e), 0);
    assert_null(read.sandbox_id); /* taken */
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(sandbox_get_phase(f->sandbox), SANDBOX_RUNNING);
    assert_string_equal(sandbox_get_state(f->sandbox)->sandbox_id, "pod");
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_gone(f);
}

static void test_not_adopted(void **state)
{
    Fixture *f = *state;
    _cleanup_sandbox_state_ SandboxState half = {0};
    _cleanup_error_ Error e = ERROR_INIT;

    half.namespace = strdup("k8s.io");
    half.sandbox_id = strdup("pod");
    half.vmm = json_object();
    assert_int_equal(sandbox_adopt(f->vm.loop, &f->settings, &half, on_phase, f, &f->sandbox, &e), -ESRCH);
    assert_non_null(strstr(e.message, "was not ready yet"));
    half.running = true;
    assert_int_equal(sandbox_adopt(f->vm.loop, &f->settings, &half, on_phase, f, &f->sandbox, &e), -ESRCH);
    assert_non_null(strstr(e.message, "the fake VMM is gone"));
    assert_string_equal(half.sandbox_id, "pod"); /* still the caller's */
}

/* -------------------------------------------------------------------------------------------------------
 * disks */

typedef struct Done {
    bool called;
    int number;
    char text[300];
} Done;

static void on_done(Sandbox *sandbox, const Error *e, void *userdata)
{
    Done *d = userdata;

    assert_false(d->called);
    d->called = true;
    d->number = e ? e->number : 0;
    snprintf(d->text, sizeof(d->text), "%s", e ? error_message(e) : "");
}

/* A container with disks "ID0", "ID1" … */
static int add(Fixture *f, const char *id, unsigned n, const char *path, Done *d, Error *e)
{
    Cloudhv__Daemon__V1__Disk disks[4], *pointers[4];
    char serials[4][24];

    *d = (Done){0};
    for (unsigned i = 0; i < n; i++) {
        snprintf(serials[i], sizeof(serials[i]), "%.10s%u", id, i);
        cloudhv__daemon__v1__disk__init(&disks[i]);
        disks[i].serial = serials[i];
        disks[i].path = (char *)path;
        disks[i].read_only = true;
        pointers[i] = &disks[i];
    }
    return sandbox_add_container(f->sandbox, id, pointers, n, on_done, d, e);
}

static void assert_disks(const Fixture *f, const char *const *serials, unsigned n)
{
    assert_int_equal(f->vm.n_disks, n);
    for (unsigned i = 0; i < n; i++)
        assert_string_equal(f->vm.disks[i], serials[i]);
}

static void test_disks(void **state)
{
    Fixture *f = running(state);
    Done a, b, c;

    assert_int_equal(add(f, "a", 2, "/proc/self/exe", &a, NULL), 0);
    assert_false(a.called); /* never from inside */
    assert_int_equal(add(f, "b", 1, "/proc/self/exe", &b, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_true(a.called && a.number == 0 && b.called && b.number == 0);
    assert_disks(f, (const char *const[]){"a0", "a1", "b0"}, 3);
    /* Repeated, it changes nothing; with other disks it is refused. */
    assert_int_equal(add(f, "a", 2, "/proc/self/exe", &c, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_true(c.called && c.number == 0);
    assert_int_equal(f->vm.n_disks, 3);
    assert_int_equal(add(f, "a", 1, "/proc/self/exe", &c, NULL), -EEXIST);
    c = (Done){0};
    assert_int_equal(sandbox_remove_container(f->sandbox, "a", on_done, &c, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_true(c.called && c.number == 0);
    assert_disks(f, (const char *const[]){"b0"}, 1);
    assert_int_equal(sandbox_get_state(f->sandbox)->n_containers, 1);
    c = (Done){0};
    assert_int_equal(sandbox_remove_container(f->sandbox, "unknown", on_done, &c, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_true(c.called && c.number == 0);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
}

static void test_disk_fails(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = running(state);
    Done d;

    f->vm.add = -EIO;
    f->vm.add_fails_at = 2;
    assert_int_equal(add(f, "a", 3, "/proc/self/exe", &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_true(d.called);
    assert_int_equal(d.number, -EIO);
    assert_non_null(strstr(d.text, "the fake VMM has no luck"));
    /* The first one is taken out again. */
    assert_int_equal(f->vm.n_disks, 0);
    assert_int_equal(sandbox_get_state(f->sandbox)->n_containers, 0);
    f->vm.add = 0;
    assert_int_equal(add(f, "a", 1, "/nowhere/disk", &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(d.number, -ENOENT);
    assert_non_null(strstr(d.text, "/nowhere/disk of container a"));
    assert_int_equal(add(f, "a", 1, "/dev/null", &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(d.number, -EINVAL);
    assert_non_null(strstr(d.text, "neither a file nor a block device"));
    f->vm.add_now = -EOPNOTSUPP;
    assert_int_equal(add(f, "a", 1, "/proc/self/exe", &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(d.number, -EOPNOTSUPP);
    assert_int_equal(sandbox_get_state(f->sandbox)->n_containers, 0);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(add(f, "a", 1, "/proc/self/exe", &d, &e), -ESHUTDOWN);
    assert_non_null(strstr(e.message, "sandbox pod is gone"));
}

static void test_removal_fails(void **state)
{
    Fixture *f = running(state);
    Done d;

    assert_int_equal(add(f, "a", 2, "/proc/self/exe", &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    f->vm.remove = -ETIMEDOUT;
    d = (Done){0};
    assert_int_equal(sandbox_remove_container(f->sandbox, "a", on_done, &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(d.number, -ETIMEDOUT);
    /* It can be tried again. */
    assert_int_equal(sandbox_get_state(f->sandbox)->n_containers, 1);
    f->vm.remove = 0;
    d = (Done){0};
    assert_int_equal(sandbox_remove_container(f->sandbox, "a", on_done, &d, NULL), 0);
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(d.number, 0);
    assert_int_equal(f->vm.n_disks, 0);
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
}

static void test_too_many_containers(void **state)
{
    static const char *const ids[] = {"a", "b", "c"};
    _cleanup_error_ Error e = ERROR_INIT;
    Fixture *f = running(state);
    Done d[3], last;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(add(f, ids[i], 1, "/proc/self/exe", &d[i], NULL), 0);
    assert_int_equal(add(f, "d", 1, "/proc/self/exe", &last, &e), -ENOSPC);
    assert_non_null(strstr(e.message, "has 3 containers already (max_containers_per_vm)"));
    sandbox_release(f->sandbox);
    /* What waited in the queue ends with the VM. */
    fake_vm_settle(&f->vm, 2000);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(d[i].called);
        assert_int_equal(d[i].number, -ECONNABORTED);
        assert_non_null(strstr(d[i].text, "the sandbox was released"));
    }
    assert_gone(f);
}

static void test_disk_change_and_end(void **state)
{
    Fixture *f = running(state);
    Done d;

    assert_int_equal(add(f, "a", 2, "/proc/self/exe", &d, NULL), 0);
    assert_true(loop_run_once(f->vm.loop, 1000) > 0);
    fake_vmm_ends(&f->vm, "it burned");
    fake_vm_settle(&f->vm, 2000);
    assert_true(d.called);
    assert_int_equal(d.number, -ECONNABORTED);
    assert_non_null(
        strstr(d.text, "the disks of container a cannot be changed: the VM has ended: it burned"));
    sandbox_release(f->sandbox);
    fake_vm_settle(&f->vm, 2000);
    assert_gone(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_boot_does_not_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_boot_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_uid_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_protocol, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guest_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kernel_release, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vmm_ends_while_booting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vmm_ends_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_released_while_booting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removal_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_containers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_change_and_end, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
