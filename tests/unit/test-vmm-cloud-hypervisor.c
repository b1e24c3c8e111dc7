/* SPDX-License-Identifier: MIT */

/* The Cloud Hypervisor driver, with a VMM that has no VMs (fake-cloud-hypervisor.c) and does wrong what a test tells
 * it to. */

#include "test-vmm-ch.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

static void test_boot_is_confined_and_killed(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    VmmChannelAddress address;
    char path[PATH_MAX];
    struct stat st;

    boot(t, &spec, "");
    snprintf(path, sizeof(path), "/proc/%i", (int)vmm_pid(t->vmm));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, TEST_UID);
    assert_int_equal(vmm_channel(t->vmm, VMM_CHANNEL_TASK, &address), 0);
    assert_false(address.serial);
    assert_int_equal(address.port, 1025);
    assert_int_equal(vmm_channel(t->vmm, VMM_CHANNEL_CONTROL, &address), 0);
    assert_int_equal(address.port, 1024);
    assert_int_equal(lstat(address.path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    /* It is where the VMM can't reach it, and its own directory takes no other. */
    snprintf(path, sizeof(path), "%s/sockets/agent", t->vm);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(path, sizeof(path), "%s/sockets", t->vm);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(st.st_mode & 0777, 0755);
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    print_message("%s\n", t->message);
    assert_true(t->exit.requested);
    assert_int_equal(t->exit.status, 9);
    assert_non_null(strstr(t->message, "hello from the guest"));
    assert_non_null(strstr(t->message, "the agent listens"));
}

/* What a boot comes to when the VMM does its worst. */
static void test_failed_boots(void **state)
{
    static const struct {
        const char *script, *words;
        int number;
    } cases[] = {
        {"version 50.2.1", "Cloud Hypervisor 50.2.1 is too old: 51 or later is needed", -EOPNOTSUPP},
        {"version next", "does not tell its version", -EBADMSG},
        {"refuse vm.create", "refused vm.create (HTTP 500): Error from API: it was told to: refuse this", -EREMOTEIO},
        {"refuse vm.boot", "refused vm.boot", -EREMOTEIO},
        {"nonsense vm.create", "HTTP response has no status line", -EBADMSG},
        {"twice vmm.ping", "answers what was not asked", -EBADMSG},
        {"die vm.boot", "exit status 3; its last words: \"these are my last words\"", -ECHILD},
        {"link", "something else than a socket", -EBADMSG},
    };
    Test *t = *state;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        VmmSpec spec = spec_of(t);

        t->n_done = 0;
        start(t, &spec, cases[i].script);
        assert_done(t, 1, cases[i].number, cases[i].words);
        assert_int_equal(t->n_exited, 0);
        t->vmm = vmm_free(t->vmm);
        assert_int_equal(fs_remove_tree(t->vm), 0);
        assert_int_equal(mkdir(t->vm, 0700), 0);
    }
}

/* One that is silent is killed when the deadline passes. */
static void test_silent_boots(void **state)
{
    static const char *const scripts[] = {"silent vmm.ping", "silent vm.boot", "half vm.boot", "closed vm.boot", "deaf"};
    Test *t = *state;

    for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
        VmmSpec spec = spec_of(t);

        spec.boot_timeout_usec = 1500 * USEC_PER_MSEC;
        t->n_done = 0;
        start(t, &spec, scripts[i]);
        assert_done(t, 1, -ETIMEDOUT, "hello from the guest");
        t->vmm = vmm_free(t->vmm);
        assert_int_equal(fs_remove_tree(t->vm), 0);
        assert_int_equal(mkdir(t->vm, 0700), 0);
    }
}

static void test_disks(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int image = -EBADF, scratch = -EBADF;
    char image_path[PATH_MAX], scratch_path[PATH_MAX];
    VmmDisk disk = {.serial = "i0123456789abcdef01", .path = image_path, .read_only = true};
    struct stat st;

    boot(t, &spec, "slow vm.add-disk 100");
    image = disk_file(t, "image", 0400, image_path);
    scratch = disk_file(t, "scratch", 0600, scratch_path);
    disk.fd = image;
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EEXIST);
    assert_int_equal(vmm_remove_disk(t->vmm, disk.serial, on_done, t, &e), -EBUSY);
    disk = (VmmDisk){.serial = "s0123456789abcdef02", .path = scratch_path, .fd = scratch};
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    /* The image stays root's, the scratch disk is the VM's own. */
    assert_int_equal(fstat(image, &st), 0);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(st.st_gid, TEST_UID);
    assert_int_equal(st.st_mode & 0777, 0440);
    assert_int_equal(fstat(scratch, &st), 0);
    assert_int_equal(st.st_uid, TEST_UID);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(vmm_remove_disk(t->vmm, "nosuch", on_done, t, &e), -ENOENT);
    assert_int_equal(vmm_remove_disk(t->vmm, disk.serial, on_done, t, &e), 0);
    assert_done(t, 4, 0, "");
    /* The name is free again. */
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 5, 0, "");
    disk.serial = "../../etc/passwd";
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EINVAL);
    disk.serial = "..";
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EINVAL);
    disk.serial = "device";
    disk.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EINVAL);
    close(disk.fd);
}

/* A file that the VMM's directory of disks was given means that file, whatever becomes of its path. */
static void test_disk_is_the_descriptor(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX], moved[PATH_MAX], in_jail[PATH_MAX];
    VmmDisk disk = {.serial = "a", .path = path, .read_only = true};
    struct stat a, b;

    boot(t, &spec, "");
    disk.fd = fd = disk_file(t, "image", 0444, path);
    snprintf(moved, sizeof(moved), "%s/moved", t->directory);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 2, 0, "");
    snprintf(in_jail, sizeof(in_jail), "/proc/%i/root/disks/a", (int)vmm_pid(t->vmm));
    assert_int_equal(stat(in_jail, &a), 0);
    assert_int_equal(fstat(fd, &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    assert_int_equal(vmm_remove_disk(t->vmm, "a", on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    assert_int_equal(stat(in_jail, &a), -1);
    assert_int_equal(unlink(moved), 0);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -ENOENT);
    print_message("%s\n", error_message(&e));
}

static void test_refusals(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX];
    VmmDisk disk = {.serial = "a", .path = path, .read_only = true};

    boot(t, &spec, "refuse vm.add-disk\nrefuse vm.pause\nrefuse vm.resize-zone");
    disk.fd = fd = disk_file(t, "image", 0444, path);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 2, -EREMOTEIO, "it was told to: refuse this");
    assert_int_equal(vmm_remove_disk(t->vmm, "a", on_done, t, &e), -ENOENT);
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_int_equal(vmm_resume(t->vmm, on_done, t, &e), -EBUSY);
    assert_done(t, 3, -EREMOTEIO, "refused vm.pause");
    assert_int_equal(vmm_resize(t->vmm, 2, 96 << 20, on_done, t, &e), 0);
    assert_int_equal(vmm_resize(t->vmm, 2, 0, on_done, t, &e), -EBUSY);
    assert_done(t, 4, -EREMOTEIO, "refused vm.resize-zone");
    assert_int_equal(vmm_resize(t->vmm, 2, 0, on_done, t, &e), 0);
    assert_done(t, 5, 0, "");
    assert_int_equal(vmm_swap_slot(t->vmm, 0, NULL, on_done, t, &e), -EOPNOTSUPP);
    assert_non_null(strstr(error_message(&e), "VMM driver cloud-hypervisor does not support"));
}

static void test_pause_and_adopt(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX];
    VmmDisk disk = {.serial = "first", .path = path};
    json_t *saved;

    boot(t, &spec, "mute vm.remove-device");
    disk.fd = fd = disk_file(t, "disk", 0600, path);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    assert_int_equal(vmm_resume(t->vmm, on_done, t, &e), 0);
    assert_done(t, 4, 0, "");

    /* The owner restarts. The process is still our child, which does not matter. */
    assert_int_equal(vmm_serialize(t->vmm, &saved), 0);
    vmm_free(t->vmm);
    assert_int_equal(vmm_adopt(t->loop, saved, on_done, on_exited, t, &t->vmm, &e), 0);
    json_decref(saved);
    assert_done(t, 5, 0, "");
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EEXIST);
    disk.serial = "second";
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 6, 0, "");
    /* The guest does not answer; the VMM's end does. */
    assert_int_equal(vmm_remove_disk(t->vmm, "second", on_done, t, &e), 0);
    run_for(t, 200 * USEC_PER_MSEC);
    assert_int_equal(t->n_done, 6);
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    assert_int_equal(t->n_done, 7);
    assert_int_equal(t->done_number, -ESRCH);
    assert_non_null(strstr(t->message, "the agent listens"));
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -ESRCH);
}

/* A removal that took too long can be asked for again, although the VMM takes no second request. */
static void test_slow_removal(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX];
    VmmDisk disk = {.serial = "a", .path = path};
    json_t *saved;

    spec.timeout_usec = 3 * USEC_PER_SEC;
    boot(t, &spec, "mute vm.remove-device");
    disk.fd = fd = disk_file(t, "disk", 0600, path);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_done(t, 2, 0, "");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(vmm_remove_disk(t->vmm, "a", on_done, t, &e), 0);
        assert_int_equal(vmm_remove_disk(t->vmm, "a", on_done, t, &e), -EBUSY);
        assert_done(t, 3 + i, -ETIMEDOUT, "removing a disk");
    }
    assert_int_equal(vmm_serialize(t->vmm, &saved), 0);
    vmm_free(t->vmm);
    assert_int_equal(vmm_adopt(t->loop, saved, on_done, on_exited, t, &t->vmm, &e), 0);
    json_decref(saved);
    assert_done(t, 5, 0, "");
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EEXIST);
    assert_int_equal(vmm_remove_disk(t->vmm, "a", on_done, t, &e), 0);
    assert_done(t, 6, -ETIMEDOUT, "removing a disk");
}

static void test_guest_ends(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;

    boot(t, &spec, "reset vm.pause");
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    wait_for(t, &t->n_exited, 1);
    print_message("%s\n", t->message);
    assert_false(t->exit.requested);
    assert_non_null(strstr(t->message, "reset itself"));
    t->vmm = vmm_free(t->vmm);
    assert_int_equal(fs_remove_tree(t->vm), 0);
    assert_int_equal(mkdir(t->vm, 0700), 0);

    t->n_done = t->n_exited = 0;
    boot(t, &spec, "off vm.pause");
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    wait_for(t, &t->n_exited, 1);
    print_message("%s\n", t->message);
    assert_true(t->exit.requested);
    assert_non_null(strstr(t->message, "the guest shut down"));
}

/* The fake takes any descriptor for a TAP. */
static void test_nics(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int tap = open("/dev/null", O_RDWR | O_CLOEXEC);
    VmmNic nics[] = {{.tap_fd = tap, .mac = {2, 0, 0, 0, 0, 7}}}, later = {.tap_fd = tap, .mac = {2, 0, 0, 0, 0, 8}};

    spec.nics = nics;
    spec.n_nics = 1;
    boot(t, &spec, "");
    assert_int_equal(vmm_add_nic(t->vmm, "eth1", &later, on_done, t, &e), 0);
    assert_done(t, 2, 0, "");
    assert_int_equal(vmm_add_nic(t->vmm, "eth1", &later, on_done, t, &e), -EEXIST);
    assert_int_equal(vmm_remove_nic(t->vmm, "eth1", on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    later.tap_fd = -1;
    assert_int_equal(vmm_add_nic(t->vmm, "eth1", &later, on_done, t, &e), -EBADF);
}

static void test_bad_specs(void **state)
{
    Test *t = *state;
    VmmSpec good = spec_of(t), bad;
    _cleanup_error_ Error e = ERROR_INIT;

#define REFUSED(number, words, ...)                                                                          \
    do {                                                                                                     \
        bad = good;                                                                                          \
        __VA_ARGS__;                                                                                         \
        assert_int_equal(vmm_boot(t->loop, driver(), &bad, on_done, on_exited, t, &t->vmm, &e), number);     \
        print_message("%s\n", error_message(&e));                                                            \
        assert_non_null(strstr(error_message(&e), words));                                                   \
        assert_int_equal(fs_remove_tree(t->vm), 0);                                                          \
        assert_int_equal(mkdir(t->vm, 0700), 0);                                                             \
    } while (0)

    REFUSED(-EOPNOTSUPP, "does not support emulation", bad.emulate = true);
    REFUSED(-EINVAL, "of at most", bad.vcpus = 3);
    REFUSED(-EINVAL, "whole MiB", bad.memory = 1000);
    REFUSED(-EINVAL, "cannot grow", bad.max_memory = (65 << 20) + 1);
    REFUSED(-EINVAL, "root", bad.uid = 0);
    REFUSED(-ENOENT, "/nowhere/kernel", bad.kernel = "/nowhere/kernel");
    REFUSED(-ENOENT, "/nowhere/rootfs", bad.rootfs = "/nowhere/rootfs");
    REFUSED(-ENOENT, "/nowhere/vmm", bad.binary = "/nowhere/vmm");
#undef REFUSED
}

static int restore(Test *t, const VmmSpec *spec, const char *template)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r = vmm_restore(t->loop, driver(), spec, template, on_done, on_exited, t, &t->vmm, &e);

    if (r < 0) {
        snprintf(t->message, sizeof(t->message), "%s", error_message(&e));
        print_message("%s\n", t->message);
        assert_int_equal(fs_remove_tree(t->vm), 0);
        assert_int_equal(mkdir(t->vm, 0700), 0);
    }
    return r;
}

static void assert_mode(const char *directory, const char *name, uid_t uid, mode_t mode)
{
    _cleanup_free_ char *path = fs_join(directory, name);
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, TEST_UID);
    assert_int_equal(st.st_mode & 0777, mode);
}

static void test_template(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t), other;
    _cleanup_error_ Error e = ERROR_INIT;
    char template[96], path[128];

    make_template_directory(t, template);
    assert_int_equal(restore(t, &spec, template), -ENOENT);
    other = spec;
    other.template_directory = template;
    boot(t, &other, "stale");
    assert_mode(template, "ram", TEST_UID, 0600);
    assert_int_equal(vmm_snapshot(t->vmm, "/elsewhere", on_done, t, &e), -EINVAL);
    /* Not paused: refused, and nothing stays. */
    assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), 0);
    assert_done(t, 2, -EREMOTEIO, "not paused");
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), 0);
    assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), -EBUSY);
    assert_done(t, 4, 0, "");
    assert_mode(t->directory, "template", 0, 0750);
    assert_mode(template, "ram", 0, 0440);
    assert_mode(template, "state.json", 0, 0440);
    assert_mode(template, "config.json", 0, 0440);
    end_vm(t);

    assert_int_equal(restore(t, &spec, template), 0);
    assert_done(t, 1, 0, "");
    connect_agent(t);
    end_vm(t);

    /* Another VM than it was made for, or damaged. */
    other = spec;
    other.memory = 32 << 20;
    assert_int_equal(restore(t, &other, template), -ESTALE);
    assert_non_null(strstr(t->message, "bytes of memory 67108864, not 33554432"));
    other = spec;
    other.kernel_args = "single";
    assert_int_equal(restore(t, &other, template), -ESTALE);
    assert_non_null(strstr(t->message, "command line"));
    snprintf(path, sizeof(path), "%s/ram", template);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(restore(t, &spec, template), -ESTALE);
    assert_int_equal(truncate(path, 64 << 20), 0);
    assert_int_equal(chmod(path, 0660), 0);
    assert_int_equal(restore(t, &spec, template), -ESTALE);
    assert_non_null(strstr(t->message, "can be written"));
    assert_int_equal(chmod(path, 0440), 0);
    snprintf(path, sizeof(path), "%s/config.json", template);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(restore(t, &spec, template), -ESTALE);
}

/* What is not complete goes with its VM; a clone that Cloud Hypervisor refuses has a useless template. */
static void test_template_fails(void **state)
{
    static const char *const scripts[] = {"lazy vm.snapshot", "refuse vm.snapshot", "die vm.snapshot"};
    Test *t = *state;
    VmmSpec spec = spec_of(t), maker = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    char template[96];

    make_template_directory(t, template);
    maker.template_directory = template;
    for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
        boot(t, &maker, scripts[i]);
        assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
        assert_done(t, 2, 0, "");
        assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), 0);
        wait_for(t, &t->n_done, 3);
        print_message("%s\n", t->message);
        assert_true(t->done_number < 0);
        if (t->n_exited == 0)
            end_vm(t);
        t->vmm = vmm_free(t->vmm);
        t->n_exited = t->n_done = 0;
        assert_int_equal(fs_remove_tree(t->vm), 0);
        assert_int_equal(mkdir(t->vm, 0700), 0);
        assert_int_equal(rmdir(template), 0); /* it is empty */
        assert_int_equal(mkdir(template, 0750), 0);
    }
    boot(t, &maker, "refuse vm.restore");
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_done(t, 2, 0, "");
    assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    end_vm(t);
    assert_int_equal(restore(t, &spec, template), 0);
    assert_done(t, 1, -ESTALE, "the template is of no use: Cloud Hypervisor refused vm.restore");
    t->vmm = vmm_free(t->vmm);
}

static void test_warning(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);

    boot(t, &spec, "version 52.0.0");
    assert_non_null(strstr(vmm_warning(t->vmm), "costs the host twice"));
    end_vm(t);
    boot(t, &spec, "version 53.0.0");
    assert_null(vmm_warning(t->vmm));
}

static void test_probe(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned features = 0;

    assert_int_equal(vmm_probe(driver(), FAKE_CLOUD_HYPERVISOR, 10 * USEC_PER_SEC, &features, &e), 0);
    assert_true(features & VMM_TEMPLATE);
    assert_int_equal(vmm_probe(driver(), "/bin/sed", 10 * USEC_PER_SEC, &features, &e), -EBADMSG);
    print_message("%s\n", error_message(&e));
}

/* The driver wants a /dev/kvm that a VMM may use, which not every machine has; the fake does not use it. */
static void put_devices(void)
{
    static const char *const names[] = {"null", "urandom"};
    char directory[] = "/tmp/test-ch-dev-XXXXXX", from[32], to[64];

    assert_int_equal(unshare(CLONE_NEWNS), 0);
    assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    assert_non_null(mkdtemp(directory));
    assert_int_equal(mount("tmpfs", directory, "tmpfs", MS_NOSUID, "mode=0755"), 0);
    umask(0);
    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        snprintf(from, sizeof(from), "/dev/%s", names[i]);
        snprintf(to, sizeof(to), "%s/%s", directory, names[i]);
        assert_int_equal(close(open(to, O_CREAT | O_WRONLY, 0644)), 0);
        assert_int_equal(mount(from, to, NULL, MS_BIND, NULL), 0);
    }
    snprintf(to, sizeof(to), "%s/kvm", directory);
    assert_int_equal(mknod(to, S_IFCHR | 0666, makedev(1, 3)), 0);
    assert_int_equal(mount(directory, "/dev", NULL, MS_MOVE, NULL), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_boot_is_confined_and_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_boots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_boots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_is_the_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_and_adopt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_removal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guest_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_specs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_template, setup, teardown),
        cmocka_unit_test_setup_teardown(test_template_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_warning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
    };

    if (geteuid() != 0)
        return 77;
    put_devices();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
