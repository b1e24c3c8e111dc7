/* SPDX-License-Identifier: MIT */

/* The Cloud Hypervisor driver with the real one: with CLOUD_HYPERVISOR, CLOUDHV_TEST_KERNEL and CLOUDHV_TEST_ROOTFS it
 * boots and clones the real guest, where there is a KVM that a VMM may use, and prints times and memory. The temporary
 * directory must not be in memory. */

#include "test-vmm-ch.h"

#include <sys/ioctl.h>

#include <linux/if.h>
#include <linux/if_tun.h>

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

static void report(const char *what, uint64_t *since)
{
    uint64_t now = loop_now();

    print_message("%-32s %6llu ms\n", what, (unsigned long long)((now - *since) / 1000));
    *since = loop_now();
}

static void print_memory(Test *t)
{
    char path[64], *text, *line, *save;

    snprintf(path, sizeof(path), "/proc/%i/smaps_rollup", (int)vmm_pid(t->vmm));
    assert_int_equal(fs_read_file(path, 65536, &text, NULL), 0);
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strncmp(line, "Rss:", 4) == 0 || strncmp(line, "Pss:", 4) == 0 || strncmp(line, "Private_Dirty:", 14) == 0)
            print_message("%s\n", line);
    free(text);
}

static void test_real_cloud_hypervisor(void **state)
{
    Test *t = *state;
    VmmSpec spec = spec_of(t);
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_close_ int fd = -EBADF, tap = -EBADF;
    char path[PATH_MAX], serial[21];
    VmmDisk disk = {.serial = serial, .path = path};
    VmmNic nic = {.mac = {2, 0, 0, 0, 0, 8}};
    json_t *saved;
    uint64_t since;
    unsigned n = 1;

    if (!getenv("CLOUD_HYPERVISOR") || !getenv("CLOUDHV_TEST_KERNEL") || !getenv("CLOUDHV_TEST_ROOTFS"))
        skip();
    spec.binary = getenv("CLOUD_HYPERVISOR");
    spec.kernel = getenv("CLOUDHV_TEST_KERNEL");
    spec.rootfs = getenv("CLOUDHV_TEST_ROOTFS");
    spec.memory = 128 << 20;
    spec.max_memory = 640 << 20;
    spec.kernel_args = getenv("CLOUDHV_TEST_KERNEL_ARGS")
                           ?: "console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 "
                              "panic=-1 reboot=t net.ifnames=0";
    since = loop_now();
    boot(t, &spec, NULL);
    report("cold boot, agent listens", &since);
    connect_agent(t);
    report("agent connected", &since);
    print_memory(t);
    disk.fd = fd = disk_file(t, "disk", 0600, path);
    tap = make_tap("chtest%d");
    nic.tap_fd = tap;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(serial, sizeof(serial), "disk%u", i);
        since = loop_now();
        assert_int_equal(vmm_add_disk(t->vmm, &disk, on_done, t, &e), 0);
        report("disk put into the jail", &since);
        assert_done(t, ++n, 0, "");
        report("disk added", &since);
        run_for(t, 1 * USEC_PER_SEC);
        since = loop_now();
        assert_int_equal(vmm_remove_disk(t->vmm, serial, on_done, t, &e), 0);
        assert_done(t, ++n, 0, "");
        report("disk removed", &since);
    }
    if (tap >= 0) {
        since = loop_now();
        assert_int_equal(vmm_add_nic(t->vmm, "eth0", &nic, on_done, t, &e), 0);
        assert_done(t, ++n, 0, "");
        report("NIC added", &since);
        run_for(t, 1 * USEC_PER_SEC);
        since = loop_now();
        assert_int_equal(vmm_remove_nic(t->vmm, "eth0", on_done, t, &e), 0);
        assert_done(t, ++n, 0, "");
        report("NIC removed", &since);
    }
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_done(t, ++n, 0, "");
    report("paused", &since);
    assert_int_equal(vmm_resume(t->vmm, on_done, t, &e), 0);
    assert_done(t, ++n, 0, "");
    report("resumed", &since);
    assert_int_equal(vmm_resize(t->vmm, 2, 384 << 20, on_done, t, &e), 0);
    assert_done(t, ++n, 0, "");
    report("resized", &since);
    assert_int_equal(vmm_serialize(t->vmm, &saved), 0);
    vmm_free(t->vmm);
    since = loop_now();
    assert_int_equal(vmm_adopt(t->loop, saved, on_done, on_exited, t, &t->vmm, &e), 0);
    json_decref(saved);
    assert_done(t, ++n, 0, "");
    report("taken over", &since);
    connect_agent(t);
    since = loop_now();
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    report("killed", &since);
    print_message("%s\n", t->message);
}

static uint64_t available_kib(void)
{
    char *text, *p;
    uint64_t value;

    assert_int_equal(fs_read_file("/proc/meminfo", 65536, &text, NULL), 0);
    p = strstr(text, "MemAvailable:");
    value = strtoull(p + 13, NULL, 10);
    free(text);
    return value;
}

enum { CLONES = 10 };

static void test_real_clones(void **state)
{
    Test *t = *state, clones[CLONES];
    VmmSpec spec = spec_of(t), maker;
    _cleanup_error_ Error e = ERROR_INIT;
    char template[96];
    uint64_t since, before;

    if (!getenv("CLOUD_HYPERVISOR") || !getenv("CLOUDHV_TEST_KERNEL") || !getenv("CLOUDHV_TEST_ROOTFS"))
        skip();
    spec.binary = getenv("CLOUD_HYPERVISOR");
    spec.kernel = getenv("CLOUDHV_TEST_KERNEL");
    spec.rootfs = getenv("CLOUDHV_TEST_ROOTFS");
    spec.memory = 128 << 20;
    spec.max_memory = 640 << 20;
    spec.kernel_args = "console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 panic=-1 "
                       "reboot=t net.ifnames=0";
    make_template_directory(t, template);
    maker = spec;
    maker.template_directory = template;
    since = loop_now();
    boot(t, &maker, NULL);
    report("cold boot, agent listens", &since);
    assert_int_equal(vmm_pause(t->vmm, on_done, t, &e), 0);
    assert_done(t, 2, 0, "");
    report("paused", &since);
    assert_int_equal(vmm_snapshot(t->vmm, template, on_done, t, &e), 0);
    assert_done(t, 3, 0, "");
    report("saved", &since);
    end_vm(t);
    before = available_kib();
    for (unsigned i = 0; i < CLONES; i++) {
        clones[i] = *t;
        snprintf(clones[i].vm, sizeof(clones[i].vm), "%s/vm%u", t->directory, i);
        assert_int_equal(mkdir(clones[i].vm, 0700), 0);
        spec.directory = clones[i].vm;
        spec.uid = TEST_UID + 1 + i;
        since = loop_now();
        assert_int_equal(vmm_restore(t->loop, driver(), &spec, template, on_done, on_exited, &clones[i],
                                     &clones[i].vmm, &e),
                         0);
        assert_done(&clones[i], 1, 0, "");
        report("clone runs", &since);
        connect_agent(&clones[i]);
        report("agent connected", &since);
    }
    run_for(t, 2 * USEC_PER_SEC);
    print_memory(&clones[CLONES - 1]);
    print_message("MemAvailable fell by %llu KiB for %i clones\n", (unsigned long long)(before - available_kib()),
                  CLONES);
    since = loop_now();
    assert_int_equal(vmm_resize(clones[0].vmm, 0, 384 << 20, on_done, &clones[0], &e), 0);
    assert_done(&clones[0], 2, 0, "");
    report("memory added", &since);
    for (unsigned i = 0; i < CLONES; i++)
        end_vm(&clones[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_real_cloud_hypervisor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_real_clones, setup, teardown),
    };

    if (geteuid() != 0)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
