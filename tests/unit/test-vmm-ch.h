/* SPDX-License-Identifier: MIT */

#pragma once

/* What the tests of the Cloud Hypervisor driver share. To be included once in a program. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "vmm/vmm.h"

#define TEST_UID 1879048201

typedef struct Test {
    char directory[64];
    char vm[80], kernel[80], rootfs[80];
    Loop *loop;
    Vmm *vmm;
    unsigned n_done, n_exited;
    int done_number;
    char message[4096];
    VmmExit exit;
} Test;

static inline int setup(void **state)
{
    static Test t;

    t = (Test){.directory = "/tmp/test-ch-XXXXXX"};
    assert_non_null(mkdtemp(t.directory));
    assert_int_equal(chmod(t.directory, 0711), 0);
    snprintf(t.vm, sizeof(t.vm), "%s/vm", t.directory);
    assert_int_equal(mkdir(t.vm, 0700), 0);
    snprintf(t.kernel, sizeof(t.kernel), "%s/kernel", t.directory);
    snprintf(t.rootfs, sizeof(t.rootfs), "%s/rootfs", t.directory);
    assert_int_equal(fs_write_file_atomic(t.kernel, "", 0, 0644), 0);
    assert_int_equal(fs_write_file_atomic(t.rootfs, "", 0, 0644), 0);
    assert_int_equal(loop_new(&t.loop), 0);
    *state = &t;
    return 0;
}

static inline int teardown(void **state)
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

static inline void on_done(Vmm *vmm, const Error *e, void *userdata)
{
    Test *t = userdata;

    t->n_done++;
    t->done_number = e ? e->number : 0;
    snprintf(t->message, sizeof(t->message), "%s", e ? error_message(e) : "");
}

static inline void on_exited(Vmm *vmm, const VmmExit *ve, void *userdata)
{
    Test *t = userdata;

    t->n_exited++;
    t->exit = *ve;
    snprintf(t->message, sizeof(t->message), "%s", ve->reason);
    t->exit.reason = t->message;
}

static inline void wait_for(Test *t, const unsigned *counter, unsigned value)
{
    uint64_t end = loop_now() + 120 * USEC_PER_SEC;

    while (*counter < value && loop_now() < end)
        assert_true(loop_run_once(t->loop, USEC_PER_SEC) >= 0);
    assert_int_equal(*counter, value);
}

static inline void run_for(Test *t, uint64_t usec)
{
    uint64_t end = loop_now() + usec, now;

    while ((now = loop_now()) < end)
        assert_true(loop_run_once(t->loop, end - now) >= 0);
}

static inline VmmSpec spec_of(Test *t)
{
    return (VmmSpec){
        .name = "test",
        .directory = t->vm,
        .binary = FAKE_CLOUD_HYPERVISOR,
        .kernel = t->kernel,
        .rootfs = t->rootfs,
        .kernel_args = "console=ttyS0",
        .vcpus = 1,
        .max_vcpus = 2,
        .memory = 64 << 20,
        .max_memory = 128 << 20,
        .max_hotplug_disks = 12,
        .uid = TEST_UID,
        .gid = TEST_UID,
        .timeout_usec = 60 * USEC_PER_SEC,
    };
}

static const VmmDriver *driver(void)
{
    return vmm_driver_by_name("cloud-hypervisor");
}

static inline void start(Test *t, const VmmSpec *spec, const char *script)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (script)
        assert_int_equal(fs_write_file_atomic(t->kernel, script, strlen(script), 0644), 0);
    if (vmm_boot(t->loop, driver(), spec, on_done, on_exited, t, &t->vmm, &e) < 0)
        fail_msg("%s", error_message(&e));
    assert_int_equal(t->n_done, 0);
    wait_for(t, &t->n_done, 1);
}

static inline void boot(Test *t, const VmmSpec *spec, const char *script)
{
    start(t, spec, script);
    if (t->done_number < 0)
        fail_msg("%s", t->message);
}

/* The operation ended: well, or with an error of this number and these words. */
static inline void assert_done(Test *t, unsigned n_done, int number, const char *words)
{
    wait_for(t, &t->n_done, n_done);
    if (number == 0 && t->done_number < 0)
        fail_msg("%s", t->message);
    print_message("%s\n", t->message);
    assert_int_equal(t->done_number, number);
    if (!strstr(t->message, words))
        fail_msg("\"%s\" is not in \"%s\"", words, t->message);
}

static inline int disk_file(Test *t, const char *name, mode_t mode, char path[static PATH_MAX])
{
    int fd;

    snprintf(path, PATH_MAX, "%s/%s", t->directory, name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1024 * 1024), 0);
    return fd;
}

static inline void end_vm(Test *t)
{
    assert_int_equal(vmm_kill(t->vmm), 0);
    wait_for(t, &t->n_exited, 1);
    t->vmm = vmm_free(t->vmm);
    t->n_exited = t->n_done = 0;
    assert_int_equal(fs_remove_tree(t->vm), 0);
    assert_int_equal(mkdir(t->vm, 0700), 0);
}

static inline void make_template_directory(Test *t, char path[static 96])
{
    snprintf(path, 96, "%s/template", t->directory);
    assert_int_equal(mkdir(path, 0750), 0);
}

/* The agent answers: the vsock proxy has connected us to it. */
static inline void connect_agent(Test *t)
{
    VmmChannelAddress address;
    char line[64] = "";
    int fd;

    assert_int_equal(vmm_channel(t->vmm, VMM_CHANNEL_CONTROL, &address), 0);
    fd = fd_connect_unix(address.path);
    assert_true(fd >= 0);
    assert_int_equal(fd_set_nonblock(fd, false), 0);
    assert_int_equal(write(fd, "CONNECT 1024\n", 13), 13);
    assert_true(read(fd, line, sizeof(line) - 1) > 0);
    assert_int_equal(strncmp(line, "OK ", 3), 0);
    close(fd);
}
