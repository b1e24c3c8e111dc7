/* SPDX-License-Identifier: MIT */

/* The QEMU driver with real QEMU, for guests of both architectures. A guest of some bytes is made here: it prints
 * a line and halts, or resets. With CLOUDHV_TEST_KERNEL and CLOUDHV_TEST_ROOTFS, the real guest is booted
 * instead, disks are plugged and unplugged, and the times are printed; CLOUDHV_TEST_KERNEL_ARGS replaces the
 * command line, CLOUDHV_TEST_QEMU the program. */

#include "tiny-guest.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>

#include "base/fs.h"
#include "base/loop.h"
#include "base/process.h"
#include "vmm/qemu-args.h"
#include "vmm/vmm.h"

#define QEMU "/usr/bin/qemu-system-x86_64"
#define QEMU_ARM64 "/usr/bin/qemu-system-aarch64"
#define TEST_UID 1879048200

typedef struct Test {
    char directory[64];
    char kernel[PATH_MAX], rootfs[PATH_MAX];
    const char *qemu;
    Loop *loop;
    Vmm *vmm;
    unsigned n_done, n_exited;
    int done_number;
    char message[4096];
    VmmExit exit;
} Test;

static bool is_arm64(const Test *t)
{
    return strcmp(t->qemu, QEMU_ARM64) == 0;
}

static void write_guest(Test *t, End end)
{
    if (is_arm64(t))
        write_arm64_guest(t->kernel, end);
    else
        write_x86_guest(t->kernel, end);
}

/* The state before is the program. */
static int setup(void **state)
{
    static Test t;

    t = (Test){.directory = "/tmp/test-vmm-XXXXXX", .qemu = *state};
    assert_non_null(mkdtemp(t.directory));
    snprintf(t.kernel, sizeof(t.kernel), "%s/kernel", t.directory);
    snprintf(t.rootfs, sizeof(t.rootfs), "%s/rootfs", t.directory);
    assert_int_equal(fs_write_file_atomic(t.rootfs, "", 0, 0600), 0);
    assert_int_equal(truncate(t.rootfs, 1024 * 1024), 0);
    assert_int_equal(loop_new(&t.loop), 0);
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    Test *t = *state;

    if (t->vmm) {
        vmm_kill(t->vmm);
        while (t->n_exited == 0)
            if (loop_run_once(t->loop, 5 * USEC_PER_SEC) <= 0)
                break;
    }
    vmm_free(t->vmm);
    loop_free(t->loop);
    return fs_remove_tree(t->directory);
}

static void on_done(Vmm *vmm, const Error *e, void *userdata)
{
    Test *t = userdata;

    t->n_done++;
    t->done_number = e ? e->number : 0;
    snprintf(t->message, sizeof(t->message), "%s", e ? error_message(e) : "");
}

static void on_exited(Vmm *vmm, const VmmExit *ve, void *userdata)
{
    Test *t = userdata;

    t->n_exited++;
    t->exit = *ve;
    snprintf(t->message, sizeof(t->message), "%s", ve->reason);
    t->exit.reason = t->message;
}

static void wait_for(Test *t, const unsigned *counter, unsigned value)
{
    uint64_t end = loop_now() + 120 * USEC_PER_SEC;

    while (*counter < value && loop_now() < end)
        assert_true(loop_run_once(t->loop, USEC_PER_SEC) >= 0);
    assert_int_equal(*counter, value);
}

static void run_for(Test *t, uint64_t usec)
{
    uint64_t end = loop_now() + usec, now;

    while ((now = loop_now()) < end)
        assert_true(loop_run_once(t->loop, end - now) >= 0);
}

static VmmSpec spec_of(Test *t)
{
    return (VmmSpec){
        .name = "test,vm",
        .directory = t->directory,
        .binary = t->qemu,
        .kernel = t->kernel,
        .rootfs = t->rootfs,
        .kernel_args = "console=ttyS0",
        .vcpus = 1,
        .max_vcpus = 1,
        .memory = 64 << 20,
        .max_hotplug_disks = 12,
        .emulate = true,
        .uid = TEST_UID,
        .gid = TEST_UID,
        .timeout_usec = 60 * USEC_PER_SEC,
    };
}

static void boot(Test *t, const VmmSpec *spec)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (vmm_boot(t->loop, vmm_driver_by_name("qemu"), spec, on_done, on_exited, t, &t->vmm, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_int_equal(t->n_done, 0);
    wait_for(t, &t->n_done, 1);
    if (t->done_number < 0)
        fail_msg("%s", t->message);
}

static uint64_t status_number(pid_t pid, const char *key, int base)
{
    char path[64], *text, *p;
    uint64_t value;

    snprintf(path, sizeof(path), "/proc/%i/status", (int)pid);
    assert_int_equal(fs_read_file(path, 65536, &text, NULL), 0);
    p = strstr(text, key);
    assert_non_null(p);
    value = strtoull(p + strlen(key), NULL, base);
    free(text);
    return value;
}

static void test_boot_is_confined_and_killed(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    VmmChannelAddress address;
    char path[64], host[64], guest[64];
    ssize_t k;
    pid_t pid;

    write_guest(t, END_HALT);
    boot(t, &spec);
    assert_true(vmm_features(t->vmm) & VMM_HOTPLUG_DISK);
    pid = vmm_pid(t->vmm);
    assert_int_equal(status_number(pid, "\nUid:", 10), TEST_UID);
    assert_int_equal(status_number(pid, "\nGid:", 10), TEST_UID);
    assert_int_equal(status_number(pid, "\nCapEff:", 16), 0);
    assert_int_equal(status_number(pid, "\nCapPrm:", 16), 0);
    assert_int_equal(status_number(pid, "\nCapBnd:", 16), 0);
    assert_int_equal(status_number(pid, "\nNoNewPrivs:", 10), 1);
    assert_int_equal(status_number(pid, "\nSeccomp:", 10), 2);
    assert_int_equal(getsid(pid), pid);
    snprintf(path, sizeof(path), "/proc/%i/ns/net", (int)pid);
    k = readlink(path, guest, sizeof(guest));
    assert_true(k > 0);
    assert_int_equal(readlink("/proc/self/ns/net", host, sizeof(host)), k);
    assert_memory_not_equal(guest, host, (size_t)k);
    assert_int_equal(vmm_channel(t->vmm, VMM_CHANNEL_TASK, &address), 0);
    assert_true(address.serial);
    assert_int_equal(access(address.path, F_OK), 0);

    run_for(t, 1500 * USEC_PER_MSEC);
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    print_message("%s\n", t->message);
    assert_true(t->exit.requested);
    assert_true(t->exit.status_known);
    assert_int_equal(t->exit.status, 9);
    assert_non_null(strstr(t->message, "hello from the guest"));
    assert_int_equal(vmm_kill(t->vmm), 0);
}

static void test_guest_resets(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);

    write_guest(t, END_RESET);
    boot(t, &spec);
    wait_for(t, &t->n_exited, 1);
    print_message("%s\n", t->message);
    assert_false(t->exit.requested);
    assert_non_null(strstr(t->message, "reset itself"));
    assert_non_null(strstr(t->message, "hello from the guest"));
}

static void test_bad_kernel(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;

    assert_int_equal(fs_write_file_atomic(t->kernel, "no kernel", 9, 0644), 0);
    assert_int_equal(vmm_boot(t->loop, vmm_driver_by_name("qemu"), &spec, on_done, on_exited, t, &t->vmm, &e),
                     0);
    wait_for(t, &t->n_done, 1);
    print_message("%s\n", t->message);
    assert_true(t->done_number < 0);
    assert_non_null(strstr(t->message, "kernel"));
    run_for(t, 100 * USEC_PER_MSEC);
    assert_int_equal(t->n_exited, 0);
    t->vmm = vmm_free(t->vmm);
}

static int disk_file(Test *t, const char *name, char path[static PATH_MAX])
{
    int fd;

    snprintf(path, PATH_MAX, "%s/%s", t->directory, name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1024 * 1024), 0);
    return fd;
}

/* The guest of some bytes never lets go of a device; so removal has to time out. */
static void test_hotplug_and_adopt(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    json_t *saved;
    char path[PATH_MAX];
    VmmDisk disk = {.serial = "i0123456789abcdef01", .path = path, .read_only = true};

    write_guest(t, END_HALT);
    spec.timeout_usec = 20 * USEC_PER_SEC;
    boot(t, &spec);
    disk.fd = fd = disk_file(t, "disk", path);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EEXIST);
    disk.serial = "s0123456789abcdef02";
    disk.read_only = false;
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    wait_for(t, &t->n_done, 3);
    assert_string_equal(t->message, "");
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    wait_for(t, &t->n_done, 4);
    assert_int_equal(t->done_number, 0);
    assert_int_equal(vmm_resume(t->vmm, on_done, t, &e), 0);
    wait_for(t, &t->n_done, 5);
    assert_int_equal(t->done_number, 0);
    assert_int_equal(vmm_resize(t->vmm, 2, 0, on_done, t, &e), -EOPNOTSUPP);
    print_message("%s\n", error_message(&e));

    /* The owner restarts. The process is still our child, which does not matter. */
    assert_int_equal(vmm_serialize(t->vmm, &saved), 0);
    /* This guest never lets go: the object goes with the operation under way, whose callback is not called. */
    assert_int_equal(vmm_remove_disk(t->vmm, disk.serial, on_done, t, &e), 0);
    vmm_free(t->vmm);
    assert_int_equal(vmm_adopt(t->loop, saved, on_done, on_exited, t, &t->vmm, &e), 0);
    json_decref(saved);
    wait_for(t, &t->n_done, 6);
    if (t->done_number < 0)
        fail_msg("%s", t->message);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -EEXIST);
    disk.serial = "third";
    disk.read_only = true;
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
    wait_for(t, &t->n_done, 7);
    if (t->done_number < 0)
        fail_msg("%s", t->message);
    assert_int_equal(vmm_remove_disk(t->vmm, "nosuch", on_done, t, &e), -ENOENT);
    assert_int_equal(vmm_remove_disk(t->vmm, "third", on_done, t, &e), 0);
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    assert_int_equal(t->n_done, 8);
    assert_int_equal(t->done_number, -ESRCH);
    assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), -ESRCH);
}

static int make_tap(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
        close(fd);
        return -errno;
    }
    return fd;
}

static void test_nics(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int cold = make_tap("cloudhvtest%d"), hot = make_tap("cloudhvtest%d");
    VmmNic nics[] = {{.tap_fd = cold, .mac = {2, 0, 0, 0, 0, 7}}};
    VmmNic later = {.tap_fd = hot, .mac = {2, 0, 0, 0, 0, 8}};

    if (cold < 0 || hot < 0)
        skip();
    write_guest(t, END_HALT);
    spec.nics = nics;
    spec.n_nics = 1;
    boot(t, &spec);
    assert_int_equal(vmm_add_nic(t->vmm, "eth1", &later, on_done, t, &e), 0);
    wait_for(t, &t->n_done, 2);
    if (t->done_number < 0)
        fail_msg("%s", t->message);
}

static void report(const char *what, uint64_t *since)
{
    uint64_t now = loop_now();

    print_message("%-32s %6llu ms\n", what, (unsigned long long)((now - *since) / 1000));
    *since = loop_now();
}

/* Boots the guest that the environment names. */
static void boot_real_guest(Test *t)
{
    VmmSpec spec = spec_of(t);
    const char *seconds = getenv("CLOUDHV_TEST_BOOT_SECONDS");
    uint64_t since = loop_now();

    assert_non_null(getenv("CLOUDHV_TEST_ROOTFS"));
    spec.binary = getenv("CLOUDHV_TEST_QEMU") ?: QEMU;
    spec.kernel = getenv("CLOUDHV_TEST_KERNEL");
    spec.rootfs = getenv("CLOUDHV_TEST_ROOTFS");
    spec.vcpus = spec.max_vcpus = 2;
    spec.memory = 128 << 20;
    spec.max_hotplug_disks = 40;
    spec.kernel_args =
        getenv("CLOUDHV_TEST_KERNEL_ARGS")
            ?: "console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 "
               "panic=-1 reboot=t net.ifnames=0";
    boot(t, &spec);
    report("QEMU says running", &since);
    run_for(t, strtoull(seconds ?: "10", NULL, 10) * USEC_PER_SEC);
    if (t->n_exited > 0)
        fail_msg("%s", t->message);
}

static void test_disks_of_real_guest(void **state)
{
    Test *t = *state;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX], serial[21];
    VmmDisk disk = {.serial = serial, .path = path};
    uint64_t since;

    boot_real_guest(t);
    disk.fd = fd = disk_file(t, "disk", path);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(serial, sizeof(serial), "disk%u", i);
        since = loop_now();
        assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
        wait_for(t, &t->n_done, 2 + 2 * i);
        assert_string_equal(t->message, "");
        report("disk added", &since);
        run_for(t, 2 * USEC_PER_SEC);
        since = loop_now();
        assert_int_equal(vmm_remove_disk(t->vmm, serial, on_done, t, &e), 0);
        wait_for(t, &t->n_done, 3 + 2 * i);
        assert_string_equal(t->message, "");
        report("disk removed", &since);
    }
    since = loop_now();
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    report("killed", &since);
    print_message("%s\n", t->message);
}

/* One of several disks that come and go at the same time. */
typedef struct Lane {
    Test *t;
    char serial[21];
    unsigned n, n_done;
} Lane;

static void on_lane_done(Vmm *vmm, const Error *e, void *userdata)
{
    Lane *lane = userdata;

    if (e)
        fail_msg("%s, %u: %s", lane->serial, lane->n, error_message(e));
    lane->n_done++;
}

/* The guest is asked for a disk more than once when removals overlap; what is added next must not be ejected in
 * its place, and a removal must end although its event fails to come now and then. */
static void test_removals_and_additions_overlap(void **state)
{
    enum { LANES = 4, ROUNDS = 25 };
    Test *t = *state;
    Lane lanes[LANES] = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF;
    char path[PATH_MAX];
    VmmDisk disk = {.path = path};

    boot_real_guest(t);
    disk.fd = fd = disk_file(t, "disk", path);
    for (unsigned round = 0; round < ROUNDS * LANES; round++) {
        Lane *lane = &lanes[round % LANES];

        /* Most of the time, the disks of two or three others are just going. */
        if (lane->n > 0)
            wait_for(t, &lane->n_done, 2 * lane->n);
        lane->t = t;
        snprintf(lane->serial, sizeof(lane->serial), "lane%u.%u", round % LANES, ++lane->n);
        disk.serial = lane->serial;
        assert_int_equal(vmm_add_disk(t->vmm, &disk, on_lane_done, lane, &e), 0);
        wait_for(t, &lane->n_done, 2 * lane->n - 1);
        run_for(t, (round % 5) * 60 * USEC_PER_MSEC);
        if (vmm_remove_disk(t->vmm, lane->serial, on_lane_done, lane, &e) < 0)
            fail_msg("%s", error_message(&e));
    }
    for (unsigned i = 0; i < LANES; i++)
        wait_for(t, &lanes[i].n_done, 2 * ROUNDS);
}

static void test_kvm_is_the_hosts(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;

    if (QEMU_MACHINE_OF_HOST == QEMU_VIRT)
        spec.binary = QEMU;
    spec.emulate = false;
    write_guest(t, END_HALT);
    assert_int_equal(vmm_boot(t->loop, vmm_driver_by_name("qemu"), &spec, on_done, on_exited, t, &t->vmm, &e),
                     -EOPNOTSUPP);
    assert_non_null(strstr(error_message(&e), "another architecture"));
}

#define with(program, f) {#f "(" program ")", f, setup, teardown, (void *)(program)}
#define x86(f) with(QEMU, f)
#define arm64(f) with(QEMU_ARM64, f)

int main(void)
{
    const struct CMUnitTest tests[] = {
        x86(test_boot_is_confined_and_killed),
        x86(test_guest_resets),
        x86(test_bad_kernel),
        x86(test_hotplug_and_adopt),
        x86(test_nics),
        arm64(test_boot_is_confined_and_killed),
        arm64(test_guest_resets),
        arm64(test_hotplug_and_adopt),
        arm64(test_nics),
        arm64(test_kvm_is_the_hosts),
    };
    const struct CMUnitTest with_real_guest[] = {
        x86(test_disks_of_real_guest),
        x86(test_removals_and_additions_overlap),
    };

    if (access(QEMU, X_OK) < 0 || access(QEMU_ARM64, X_OK) < 0 || geteuid() != 0)
        return 77;
    if (getenv("CLOUDHV_TEST_KERNEL"))
        return cmocka_run_group_tests(with_real_guest, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
