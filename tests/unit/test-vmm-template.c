/* SPDX-License-Identifier: MIT */

/* Templates of the QEMU driver, with a QEMU that is none: what is left on disk, who may do what with it, and
 * what is said when something is wrong. That a real guest goes on in its clones is for tests/integration. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "vmm/qemu.h"
#include "vmm/vmm.h"

#define TEST_UID 1879048200
#define TEST_GID 1879048201
#define MEMORY (32 << 20)

typedef struct Test {
    char directory[64], vm[PATH_MAX], template[PATH_MAX], rootfs[PATH_MAX];
    Loop *loop;
    Vmm *vmm;
    unsigned n_done, n_exited;
    int number;
    char message[4096];
} Test;

static int setup(void **state)
{
    static Test t;

    t = (Test){.directory = "/var/tmp/test-template-XXXXXX"};
    assert_non_null(mkdtemp(t.directory));
    snprintf(t.vm, sizeof(t.vm), "%s/vm", t.directory);
    snprintf(t.template, sizeof(t.template), "%s/template", t.directory);
    snprintf(t.rootfs, sizeof(t.rootfs), "%s/rootfs", t.directory);
    assert_int_equal(mkdir(t.vm, 0700), 0);
    assert_int_equal(mkdir(t.template, 0750), 0);
    assert_int_equal(fs_write_file_atomic(t.rootfs, "rootfs", 6, 0600), 0);
    assert_int_equal(loop_new(&t.loop), 0);
    *state = &t;
    return 0;
}

static void end_vm(Test *t)
{
    if (t->vmm) {
        (void)vmm_kill(t->vmm);
        for (int i = 0; i < 100 && t->n_exited == 0; i++)
            (void)loop_run_once(t->loop, USEC_PER_SEC / 10);
    }
    t->vmm = vmm_free(t->vmm);
    t->n_done = t->n_exited = 0;
}

static int teardown(void **state)
{
    Test *t = *state;

    end_vm(t);
    loop_free(t->loop);
    return fs_remove_tree(t->directory);
}

static void on_done(Vmm *vmm, const Error *e, void *userdata)
{
    Test *t = userdata;

    t->n_done++;
    t->number = e ? e->number : 0;
    snprintf(t->message, sizeof(t->message), "%s", e ? error_message(e) : "");
}

static void on_exited(Vmm *vmm, const VmmExit *ve, void *userdata)
{
    Test *t = userdata;

    t->n_exited++;
}

static void await(Test *t, unsigned n_done)
{
    uint64_t end = loop_now() + 120 * USEC_PER_SEC;

    while (t->n_done < n_done && loop_now() < end)
        assert_true(loop_run_once(t->loop, USEC_PER_SEC) >= 0);
    assert_int_equal(t->n_done, n_done);
}

static VmmSpec spec_of(Test *t, const char *scenario)
{
    return (VmmSpec){
        .name = scenario,
        .directory = t->vm,
        .binary = FAKE_QEMU,
        .kernel = t->rootfs,
        .rootfs = t->rootfs,
        .kernel_args = "quiet",
        .vcpus = 1,
        .max_vcpus = 1,
        .memory = MEMORY,
        .max_hotplug_disks = 2,
        .emulate = true,
        .uid = TEST_UID,
        .gid = TEST_GID,
        .timeout_usec = 60 * USEC_PER_SEC,
    };
}

static bool file_exists(Test *t, const char *name)
{
    _cleanup_free_ char *path = fs_join(t->template, name);

    return access(path, F_OK) == 0;
}

static void assert_no_template(Test *t)
{
    assert_false(file_exists(t, "qemu.json"));
    assert_false(file_exists(t, "state"));
}

static void start_template(Test *t, const char *scenario, uint64_t timeout_usec)
{
    _cleanup_error_ Error e = ERROR_INIT;
    VmmSpec spec = spec_of(t, scenario);

    spec.template_directory = t->template;
    spec.boot_timeout_usec = spec.timeout_usec;
    spec.timeout_usec = timeout_usec ?: spec.timeout_usec;
    if (vmm_boot(t->loop, vmm_driver_by_name("qemu"), &spec, on_done, on_exited, t, &t->vmm, &e) < 0)
        fail_msg("%s", error_message(&e));
    await(t, 1);
    if (t->number < 0)
        fail_msg("%s", t->message);
}

static void save(Test *t)
{
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned n = t->n_done;

    if (vmm_snapshot(t->vmm, t->template, on_done, t, &e) < 0)
        fail_msg("%s", error_message(&e));
    await(t, n + 1);
}

static void pause_vm(Test *t)
{
    unsigned n = t->n_done;

    assert_int_equal(vmm_pause(t->vmm, on_done, t, NULL), 0);
    await(t, n + 1);
    assert_int_equal(t->number, 0);
}

static void make_template(Test *t)
{
    start_template(t, "ok", 0);
    pause_vm(t);
    save(t);
    if (t->number < 0)
        fail_msg("%s", t->message);
    end_vm(t);
}

/* 0 when the clone runs. */
static int start_clone(Test *t, const VmmSpec *spec)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    end_vm(t);
    r = vmm_restore(t->loop, vmm_driver_by_name("qemu"), spec, t->template, on_done, on_exited, t, &t->vmm, &e);
    if (r < 0) {
        snprintf(t->message, sizeof(t->message), "%s", error_message(&e));
        print_message("%s\n", t->message);
        return r;
    }
    await(t, 1);
    if (t->number < 0) {
        print_message("%s\n", t->message);
        t->vmm = vmm_free(t->vmm);
    }
    return t->number;
}

static void assert_mode(Test *t, const char *name, uid_t uid, gid_t gid, mode_t mode)
{
    _cleanup_free_ char *path = fs_join(t->template, name);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, gid);
    assert_int_equal(st.st_mode & 07777, mode);
}

/* It cannot write to its memory any more. */
static void assert_stopped(pid_t pid)
{
    char path[64], *text = NULL;
    char state = 0;

    snprintf(path, sizeof(path), "/proc/%i/stat", (int)pid);
    for (int i = 0; i < 1000 && state != 'T'; i++) {
        assert_int_equal(fs_read_file(path, 4096, &text, NULL), 0);
        state = strrchr(text, ')')[2];
        free(text);
        usleep(10000);
    }
    assert_int_equal(state, 'T');
}

static void test_template_and_clone(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t, "ok");

    start_template(t, "ok", 0);
    assert_mode(t, "ram", TEST_UID, TEST_GID, 0600);
    pause_vm(t);
    save(t);
    if (t->number < 0)
        fail_msg("%s", t->message);
    assert_mode(t, "ram", 0, TEST_GID, 0440);
    assert_mode(t, "state", 0, TEST_GID, 0440);
    assert_stopped(vmm_pid(t->vmm));
    end_vm(t);
    assert_true(file_exists(t, "qemu.json"));
    assert_true(file_exists(t, "ram"));
    assert_int_equal(start_clone(t, &spec), 0);
    assert_true(vmm_features(t->vmm) & VMM_TEMPLATE);
    /* Another one, and the template is as it was. */
    assert_int_equal(start_clone(t, &spec), 0);
    end_vm(t);
    assert_mode(t, "ram", 0, TEST_GID, 0440);
}

static void plug(Test *t, const char *serial)
{
    _cleanup_close_ int fd = open(t->rootfs, O_RDONLY | O_CLOEXEC);
    VmmDisk disk = {.serial = serial, .fd = fd, .path = t->rootfs, .read_only = true};
    unsigned n = t->n_done;

    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, NULL), 0);
    await(t, n + 1);
    if (t->number < 0)
        fail_msg("%s", t->message);
}

/* The guest of a template may have been asked twice to let go of a device; a clone must not have another one there
 * when it gets to that. */
static void test_used_slots_rest(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t, "first-slot-rests");
    unsigned n;

    start_template(t, "ok", 0);
    plug(t, "warm");
    n = t->n_done;
    assert_int_equal(vmm_remove_disk(t->vmm, "warm", on_done, t, NULL), 0);
    await(t, n + 1);
    pause_vm(t);
    save(t);
    assert_int_equal(t->number, 0);
    assert_int_equal(start_clone(t, &spec), 0);
    plug(t, "image");
    plug(t, "scratch");
}

static void test_save_fails(void **state)
{
    static const struct {
        const char *scenario, *said;
        int number;
    } cases[] = {
        {"save-fails", "No space left on device", -EIO},
        {"save-refused", "State blocked", -EREMOTEIO},
        {"save-nothing", "0 bytes", -EIO},
        {"save-dies", "exit status 4", -ESRCH},
        {"no-capability", "x-ignore-shared", -EREMOTEIO},
    };
    Test *t = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        start_template(t, cases[i].scenario, 0);
        pause_vm(t);
        save(t);
        print_message("%s\n", t->message);
        assert_int_equal(t->number, cases[i].number);
        assert_non_null(strstr(t->message, cases[i].said));
        if (strcmp(cases[i].scenario, "save-dies") != 0)
            assert_no_template(t);
        end_vm(t);
        assert_no_template(t);
        assert_false(file_exists(t, "ram"));
    }
}

static void test_save_takes_too_long(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Test *t = *state;

    start_template(t, "save-hangs", USEC_PER_SEC);
    pause_vm(t);
    save(t);
    assert_int_equal(t->number, -ETIMEDOUT);
    assert_int_equal(vmm_snapshot(t->vmm, t->template, on_done, t, &e), -EBUSY);
    end_vm(t);
    assert_no_template(t);
    assert_false(file_exists(t, "ram"));
}

static void test_what_cannot_be_saved(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Test *t = *state;
    VmmSpec spec = spec_of(t, "ok");

    /* Runs. */
    start_template(t, "ok", 0);
    save(t);
    assert_int_equal(t->number, -EINVAL);
    assert_non_null(strstr(t->message, "not paused"));
    assert_no_template(t);
    /* Elsewhere. */
    pause_vm(t);
    assert_int_equal(vmm_snapshot(t->vmm, t->vm, on_done, t, &e), -EINVAL);
    /* With a disk. */
    plug(t, "disk");
    assert_int_equal(vmm_snapshot(t->vmm, t->template, on_done, t, &e), -EBUSY);
    print_message("%s\n", error_message(&e));
    end_vm(t);
    /* A VM like any other. */
    assert_int_equal(vmm_boot(t->loop, vmm_driver_by_name("qemu"), &spec, on_done, on_exited, t, &t->vmm, &e), 0);
    await(t, 1);
    assert_int_equal(vmm_snapshot(t->vmm, t->template, on_done, t, &e), -EINVAL);
    print_message("%s\n", error_message(&e));
}

static void test_a_template_is_not_overwritten(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Test *t = *state;
    VmmSpec spec = spec_of(t, "ok");

    make_template(t);
    spec.template_directory = t->template;
    assert_int_equal(vmm_boot(t->loop, vmm_driver_by_name("qemu"), &spec, on_done, on_exited, t, &t->vmm, &e),
                     -EEXIST);
    print_message("%s\n", error_message(&e));
    assert_true(file_exists(t, "ram"));
    spec.template_directory = NULL;
    assert_int_equal(start_clone(t, &spec), 0);
}

static void change_file(Test *t, const char *name, off_t offset, const char *bytes)
{
    _cleanup_free_ char *path = fs_join(t->template, name);
    _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, strlen(bytes), offset), (ssize_t)strlen(bytes));
}

static void test_damaged_files(void **state)
{
    _cleanup_free_ char *ram = NULL, *manifest = NULL, *path = NULL;
    Test *t = *state;
    VmmSpec spec = spec_of(t, "ok");

    assert_int_equal(start_clone(t, &spec), -ENOENT);
    make_template(t);
    ram = fs_join(t->template, "ram");
    path = fs_join(t->template, "qemu.json");

    change_file(t, "state", 2, "A");
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "damaged"));
    change_file(t, "state", 2, "a");
    change_file(t, "state", 6, "more");
    assert_int_equal(start_clone(t, &spec), -ESTALE);

    assert_int_equal(fs_remove_tree(t->template), 0);
    assert_int_equal(mkdir(t->template, 0750), 0);
    make_template(t);
    assert_int_equal(chmod(ram, 0640), 0);
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "can be written"));
    assert_int_equal(chmod(ram, 0440), 0);
    assert_int_equal(start_clone(t, &spec), 0);
    change_file(t, "ram", 4096, "x");
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "was changed"));

    assert_int_equal(fs_read_file(path, 65536, &manifest, NULL), 0);
    assert_int_equal(fs_write_file_atomic(path, manifest, strlen(manifest) / 2, 0440), 0);
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_int_equal(fs_write_file_atomic(path, "{\"version\": 2}", 14, 0440), 0);
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_int_equal(fs_write_file_atomic(path, "{\"version\": 1}", 14, 0440), 0);
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "missing"));
}

static void test_another_vm(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t, "ok");

    make_template(t);
    spec.memory *= 2;
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "memory"));
    spec = spec_of(t, "ok");
    spec.kernel_args = "debug";
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "kernel_args"));
    spec = spec_of(t, "ok");
    spec.max_hotplug_disks += 31; /* another bridge */
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    spec = spec_of(t, "ok");
    spec.nics = &(VmmNic){.tap_fd = 0};
    spec.n_nics = 1;
    assert_int_equal(start_clone(t, &spec), -EINVAL);
    spec = spec_of(t, "other-version");
    assert_int_equal(start_clone(t, &spec), -ESTALE);
    assert_non_null(strstr(t->message, "10.0.13 Fake 1"));
    assert_non_null(strstr(t->message, "11.1.0"));
}

static void test_load_fails(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t, "load-fails");

    make_template(t);
    assert_int_equal(start_clone(t, &spec), -ECHILD);
    assert_non_null(strstr(t->message, "load of migration failed"));
    spec = spec_of(t, "no-capability");
    assert_int_equal(start_clone(t, &spec), -EREMOTEIO);
    spec = spec_of(t, "load-hangs");
    spec.boot_timeout_usec = USEC_PER_SEC;
    assert_int_equal(start_clone(t, &spec), -ETIMEDOUT);
    /* The template is none the worse for it. */
    spec = spec_of(t, "ok");
    assert_int_equal(start_clone(t, &spec), 0);
}

static void test_versions(void **state)
{
    unsigned features = 0;

    assert_int_equal(qemu_features_of_version("10.0.13 (Debian 1:10.0.13+ds)\n", &features), 0);
    assert_true(features & VMM_TEMPLATE);
    assert_int_equal(qemu_features_of_version("7.2.22 (Debian)\n", &features), 0);
    assert_false(features & VMM_TEMPLATE);
    assert_true(features & VMM_HOTPLUG_DISK);
    assert_int_equal(qemu_features_of_version("9.2.0\n", &features), 0);
    assert_false(features & VMM_TEMPLATE);
    assert_int_equal(qemu_features_of_version("6.1.0\n", &features), 0);
    assert_int_equal(features, 0);
    assert_int_equal(qemu_features_of_version("ten\n", &features), -EBADMSG);
    assert_int_equal(qemu_features_of_version("v53.0.0\n", &features), -EBADMSG);
    assert_int_equal(qemu_features_of_version("", &features), -EBADMSG);
}

static int probe_as(Test *t, const char *name, unsigned *ret_features)
{
    _cleanup_free_ char *path = fs_join(t->directory, name);
    _cleanup_error_ Error e = ERROR_INIT;
    bool silent = strcmp(name, "silent") == 0;
    int r;

    assert_int_equal(symlink(FAKE_QEMU, path), 0);
    r = vmm_probe(vmm_driver_by_name("qemu"), path, silent ? USEC_PER_SEC / 5 : 60 * USEC_PER_SEC, ret_features,
                  &e);
    if (r < 0)
        print_message("%s\n", error_message(&e));
    return r;
}

static void test_probe(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned features = 0;
    Test *t = *state;

    assert_int_equal(probe_as(t, "new", &features), 0);
    assert_true(features & VMM_TEMPLATE);
    assert_int_equal(probe_as(t, "old", &features), 0);
    assert_false(features & VMM_TEMPLATE);
    assert_int_equal(probe_as(t, "other", &features), -EBADMSG);
    assert_int_equal(probe_as(t, "silent", &features), -ETIMEDOUT);
    assert_true(vmm_probe(vmm_driver_by_name("qemu"), "/nowhere/qemu", USEC_PER_SEC, &features, &e) < 0);
    assert_non_null(strstr(error_message(&e), "/nowhere/qemu"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_template_and_clone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_used_slots_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_takes_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_saved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_template_is_not_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_vm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_load_fails, setup, teardown),
        cmocka_unit_test(test_versions),
        cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
