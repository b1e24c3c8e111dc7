/* SPDX-License-Identifier: MIT */

/* Volumes that live in the guest, and unmounting. In a mount namespace of its own, where /run is empty. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "agent/names.h"
#include "agent/rootfs.h"
#include "agent/volumes.h"
#include "base/fs.h"

#define DIRECTORY "/run/cloudhv/containers/c1"

typedef Cloudhv__Agent__V1__GuestVolume Volume;

static bool isolated;

static int setup_group(void **state)
{
    isolated =
        geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return 0;
}

static int setup(void **state)
{
    if (!isolated)
        return 0;
    return mount("tmpfs", "/run", "tmpfs", 0, "mode=755") < 0 || fs_mkdir_p(AGENT_VOLUMES_DIR, 0711) < 0 ||
           fs_mkdir_p(DIRECTORY "/rootfs/data/deep", 0755) < 0 || fs_mkdir_p(DIRECTORY "/scratch", 0755) < 0;
}

static int teardown(void **state)
{
    return isolated ? umount2("/run", MNT_DETACH) : 0;
}

static void need_namespace(void)
{
    if (isolated)
        return;
    print_message("no mount namespace can be made here\n");
    skip();
}

static Volume volume(const char *name)
{
    Volume v = CLOUDHV__AGENT__V1__GUEST_VOLUME__INIT;

    v.name = (char *)name;
    return v;
}

static int make(Volume *v, Error *e)
{
    Volume *list[] = {v};

    return volumes_make(DIRECTORY, list, 1, e);
}

static void make_ok(Volume *v)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (make(v, &e) < 0)
        fail_msg("%s", error_message(&e));
}

static void put(const char *path, const char *text)
{
    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

static bool has_text(const char *path, const char *text)
{
    _cleanup_free_ char *found = NULL;

    return fs_read_file(path, 1000, &found, NULL) == 0 && strcmp(found, text) == 0;
}

static struct stat status(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st;
}

static bool is_tmpfs(const char *path)
{
    struct statfs fs;

    /* /run is one as well: one of its own has another device. */
    return statfs(path, &fs) == 0 && status(path).st_dev != status("/run").st_dev;
}

/* -------------------------------------------------------------------------------------------------------
 * check */

static void refuse(Volume *v, const char *words)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Volume *list[] = {v};

    assert_int_equal(volumes_check(list, 1, &e), -EINVAL);
    if (!strstr(e.message, words))
        fail_msg("\"%s\" is not in \"%s\"", words, e.message);
}

static void test_check(void **state)
{
    static const char *const bad[] = {"", "..", "a/b", "-x", ".hidden"};
    Volume v = volume("data-1"), *many[AGENT_VOLUMES_MAX + 1];
    _cleanup_error_ Error e = ERROR_INIT;
    Volume *list[] = {&v};

    assert_int_equal(volumes_check(list, 1, NULL), 0);
    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        v.name = (char *)bad[i];
        refuse(&v, "not a name for a volume");
    }
    v = volume("data");
    v.copy_up = true;
    refuse(&v, "the volume data has no absolute path in the container");
    v.container_path = (char *)"data";
    refuse(&v, "no absolute path");
    v.container_path = (char *)"/data";
    assert_int_equal(volumes_check(list, 1, NULL), 0);
    v.size_limit = 4096;
    refuse(&v, "the volume data: a size limit");
    v.memory = true;
    assert_int_equal(volumes_check(list, 1, NULL), 0);
    v.memory = false;
    v.pod = true;
    assert_int_equal(volumes_check(list, 1, NULL), 0);
    for (size_t i = 0; i < ELEMENTSOF(many); i++)
        many[i] = &v;
    assert_int_equal(volumes_check(many, AGENT_VOLUMES_MAX, NULL), 0);
    assert_int_equal(volumes_check(many, ELEMENTSOF(many), &e), -EINVAL);
    assert_non_null(strstr(e.message, "65 volumes"));
    assert_int_equal(volumes_check(NULL, 0, NULL), 0);
}

/* --------------------------------------------------------------------------------------------------------
 * make */

static void test_on_scratch(void **state)
{
    Volume v = volume("data");
    struct stat st;

    need_namespace();
    v.mode = 02775;
    v.uid = 1000;
    v.gid = 2000;
    make_ok(&v);
    st = status(AGENT_VOLUMES_DIR "/data");
    assert_int_equal(st.st_mode & 07777, 02775);
    assert_int_equal(st.st_uid, 1000);
    assert_int_equal(st.st_gid, 2000);
    put(AGENT_VOLUMES_DIR "/data/file", "x");
    assert_true(has_text(DIRECTORY "/scratch/volumes/data/file", "x"));
    assert_int_equal(volumes_remove(DIRECTORY, NULL), 0);
    assert_int_equal(access(AGENT_VOLUMES_DIR "/data", F_OK), -1);
    /* The content goes with the scratch layer. */
    assert_true(has_text(DIRECTORY "/scratch/volumes/data/file", "x"));
    assert_int_equal(volumes_remove(DIRECTORY, NULL), 0);
}

static void test_in_memory(void **state)
{
    Volume v = volume("fast");
    struct statfs fs;

    need_namespace();
    v.memory = true;
    v.size_limit = 1 << 20;
    make_ok(&v);
    assert_true(is_tmpfs(AGENT_VOLUMES_DIR "/fast"));
    assert_int_equal(statfs(AGENT_VOLUMES_DIR "/fast", &fs), 0);
    assert_int_equal((uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize, 1 << 20);
    assert_int_equal(status(AGENT_VOLUMES_DIR "/fast").st_mode & 07777, 0755);
    assert_int_equal(volumes_remove(DIRECTORY, NULL), 0);
    assert_int_equal(access(AGENT_VOLUMES_DIR "/fast", F_OK), -1);
}

/* A pod's volume is made by the first that asks, seen by the next, and outlives both. */
static void test_of_the_pod(void **state)
{
    Volume v = volume("shared");

    need_namespace();
    v.pod = true;
    v.mode = 0777;
    make_ok(&v);
    assert_true(is_tmpfs(AGENT_VOLUMES_DIR "/shared"));
    put(AGENT_VOLUMES_DIR "/shared/file", "from the first");
    v.mode = 0700;
    make_ok(&v);
    assert_true(has_text(AGENT_VOLUMES_DIR "/shared/file", "from the first"));
    assert_int_equal(status(AGENT_VOLUMES_DIR "/shared").st_mode & 07777, 0777);
    assert_int_equal(volumes_remove(DIRECTORY, NULL), 0);
    assert_true(has_text(AGENT_VOLUMES_DIR "/shared/file", "from the first"));
}

static void test_exists(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Volume v = volume("data");

    need_namespace();
    make_ok(&v);
    assert_int_equal(make(&v, &e), -EEXIST);
    assert_non_null(strstr(e.message, "there is a volume data already"));
}

static void test_copy_up(void **state)
{
    Volume v = volume("data");

    need_namespace();
    put(DIRECTORY "/rootfs/data/file", "of the image");
    put(DIRECTORY "/rootfs/data/deep/file", "deeper");
    assert_int_equal(chmod(DIRECTORY "/rootfs/data", 01777), 0);
    assert_int_equal(chown(DIRECTORY "/rootfs/data", 33, 34), 0);
    v.copy_up = true;
    v.container_path = (char *)"/data";
    make_ok(&v);
    assert_true(has_text(AGENT_VOLUMES_DIR "/data/file", "of the image"));
    assert_true(has_text(AGENT_VOLUMES_DIR "/data/deep/file", "deeper"));
    assert_int_equal(status(AGENT_VOLUMES_DIR "/data").st_mode & 07777, 01777);
    assert_int_equal(status(AGENT_VOLUMES_DIR "/data").st_uid, 33);
}

/* Links of an image lead to places of the image, not of the guest. */
static void test_copy_up_by_link(void **state)
{
    Volume v = volume("data");

    need_namespace();
    put(DIRECTORY "/rootfs/data/deep/file", "deeper");
    assert_int_equal(symlink("../../../../../../data", DIRECTORY "/rootfs/link"), 0);
    assert_int_equal(fs_mkdir_p("/run/secret", 0700), 0);
    put("/run/secret/file", "of the guest");
    assert_int_equal(symlink("/run/secret", DIRECTORY "/rootfs/escape"), 0);
    v.copy_up = true;
    v.container_path = (char *)"/link/deep";
    make_ok(&v);
    assert_true(has_text(AGENT_VOLUMES_DIR "/data/file", "deeper"));
    v = volume("other");
    v.copy_up = true;
    v.container_path = (char *)"/escape";
    make_ok(&v); /* the image has no such directory: an empty volume */
    assert_int_equal(access(AGENT_VOLUMES_DIR "/other/file", F_OK), -1);
}

/* -----------------------------------------------------------------------------------------------------
 * unmount */

static void test_unmount(void **state)
{
    int fd;

    need_namespace();
    assert_int_equal(rootfs_unmount_one("/run/nothing"), 0);
    assert_int_equal(rootfs_unmount_one(DIRECTORY), 0); /* nothing is mounted there */
    assert_int_equal(rootfs_unmount(DIRECTORY, NULL), 0);
    assert_int_equal(mount("tmpfs", DIRECTORY "/scratch", "tmpfs", 0, NULL), 0);
    assert_int_equal(mount("tmpfs", DIRECTORY "/rootfs", "tmpfs", 0, NULL), 0);
    /* One that is in use leaves the tree at once. */
    fd = open(DIRECTORY "/rootfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rootfs_unmount(DIRECTORY, NULL), 0);
    assert_false(is_tmpfs(DIRECTORY "/rootfs"));
    assert_false(is_tmpfs(DIRECTORY "/scratch"));
    close(fd);
}

static void test_mount_fails(void **state)
{
    RootfsSpec spec = {.directory = DIRECTORY, .image_device = "/dev/null"};
    _cleanup_error_ Error e = ERROR_INIT;

    need_namespace();
    assert_true(rootfs_mount(&spec, &e) < 0);
    assert_non_null(strstr(e.message, "cannot mount the image disk /dev/null as erofs"));
    assert_int_equal(rootfs_unmount(DIRECTORY, NULL), 0);
    spec.directory = "/run/nowhere";
    assert_int_equal(rootfs_mount(&spec, &e), -ENOENT);
    assert_non_null(strstr(e.message, "/run/nowhere/image"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),
        cmocka_unit_test_setup_teardown(test_on_scratch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_the_pod, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_up_by_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unmount, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mount_fails, setup, teardown),
    };

    return cmocka_run_group_tests(tests, setup_group, NULL);
}
