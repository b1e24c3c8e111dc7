/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "agent/container-private.h"
#include "agent/names.h"
#include "agent/volumes.h"

static Loop *loop;
static Reaper *reaper;
static UeventMonitor *monitor;
static Disks *disks;
static Containers *containers;

static int setup(void **state)
{
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(reaper_new(loop, &reaper), 0);
    assert_int_equal(uevent_monitor_new(loop, &monitor, NULL), 0);
    assert_int_equal(disks_new(loop, monitor, &disks), 0);
    assert_int_equal(
        containers_new(&(const ContainersContext){.loop = loop, .reaper = reaper, .disks = disks}, &containers), 0);
    return 0;
}

static int teardown(void **state)
{
    containers_free(containers);
    disks_free(disks);
    uevent_monitor_free(monitor);
    reaper_free(reaper);
    loop_free(loop);
    return 0;
}

static void test_moves(void **state)
{
    static const ContainerState ways[][2] = {
        {CONTAINER_CREATING, CONTAINER_CREATED}, {CONTAINER_CREATING, CONTAINER_STOPPED},
        {CONTAINER_CREATED, CONTAINER_STARTING}, {CONTAINER_CREATED, CONTAINER_STOPPED},
        {CONTAINER_CREATED, CONTAINER_DELETING}, {CONTAINER_STARTING, CONTAINER_RUNNING},
        {CONTAINER_STARTING, CONTAINER_CREATED}, {CONTAINER_STARTING, CONTAINER_STOPPED},
        {CONTAINER_RUNNING, CONTAINER_STOPPED},  {CONTAINER_STOPPED, CONTAINER_DELETING},
        {CONTAINER_DELETING, CONTAINER_STOPPED},
    };
    size_t n = 0;

    for (ContainerState from = CONTAINER_CREATING; from <= CONTAINER_DELETING; from++)
        for (ContainerState to = CONTAINER_CREATING; to <= CONTAINER_DELETING; to++)
            n += container_move_is_allowed(from, to);
    assert_int_equal(n, ELEMENTSOF(ways));
    for (size_t i = 0; i < ELEMENTSOF(ways); i++)
        assert_true(container_move_is_allowed(ways[i][0], ways[i][1]));
}

static void test_registry(void **state)
{
    Container *c;
    char id[16];

    assert_int_equal(container_new(containers, "a/b", &c, NULL), -EINVAL);
    assert_int_equal(container_new(containers, "c0", &c, NULL), 0);
    assert_ptr_equal(containers_find(containers, "c0"), c);
    assert_null(containers_find(containers, "c"));
    assert_string_equal(container_id(c), "c0");
    assert_null(container_status(c));
    assert_int_equal(container_new(containers, "c0", &c, NULL), -EEXIST);
    for (int i = 1; i < AGENT_CONTAINERS_MAX; i++) {
        snprintf(id, sizeof(id), "c%i", i);
        assert_int_equal(container_new(containers, id, &c, NULL), 0);
    }
    assert_int_equal(container_new(containers, "more", &c, NULL), -ENOSPC);
    assert_int_equal(containers_count(containers), AGENT_CONTAINERS_MAX);
    container_free(containers_find(containers, "c7"));
    assert_null(containers_find(containers, "c7"));
    assert_int_equal(container_new(containers, "more", &c, NULL), 0);
}

static void test_states_refuse(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Container *c;

    assert_int_equal(container_new(containers, "c", &c, NULL), 0);
    assert_int_equal(container_kill(c, 9, false, &e), -EBUSY);
    assert_int_equal(container_start(c, NULL, NULL, &e), -EBUSY);
    assert_non_null(strstr(e.message, "creating"));
    assert_int_equal(container_move(c, CONTAINER_RUNNING), -EBUSY);
    assert_int_equal(container_move(c, CONTAINER_CREATED), 0);
    assert_string_equal(container_status(c), "created");
    assert_int_equal(container_kill(c, 0, false, &e), -EINVAL);
    assert_int_equal(container_kill(c, 65, false, &e), -EINVAL);
    assert_int_equal(container_kill(c, 9, false, &e), -ESRCH);
    assert_int_equal(container_move(c, CONTAINER_STARTING), 0);
    assert_int_equal(container_delete(c, NULL, NULL, &e), -EBUSY);
    assert_int_equal(container_move(c, CONTAINER_RUNNING), 0);
    assert_string_equal(container_status(c), "running");
    assert_int_equal(container_delete(c, NULL, NULL, &e), -EBUSY);
    assert_int_equal(container_move(c, CONTAINER_STOPPED), 0);
    assert_string_equal(container_status(c), "stopped");
    assert_int_equal(container_start(c, NULL, NULL, &e), -EBUSY);
}

typedef struct Result {
    int calls, number;
    char message[256];
} Result;

static void on_done(int number, const char *message, void *userdata)
{
    Result *r = userdata;

    r->calls++;
    r->number = number;
    snprintf(r->message, sizeof(r->message), "%s", message ?: "");
}

static void on_deleted(int number, const char *message, const ContainerRemains *remains, void *userdata)
{
    on_done(number, message, userdata);
}

static void test_requests_are_checked(void **state)
{
    Cloudhv__Agent__V1__CreateContainerRequest q = CLOUDHV__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Cloudhv__Agent__V1__Rootfs rootfs = CLOUDHV__AGENT__V1__ROOTFS__INIT;
    Result r = {0};

    q.id = (char *)"c";
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EINVAL);
    q.rootfs = &rootfs;
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EINVAL);
    rootfs.image_serial = (char *)"a/b";
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EINVAL);
    rootfs.image_serial = (char *)"img";
    rootfs.scratch_serial = (char *)"a b";
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EINVAL);
    rootfs.scratch_serial = (char *)"";
    q.terminal = true;
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EOPNOTSUPP);
    q.terminal = false;
    q.id = (char *)"../c";
    assert_int_equal(container_create(containers, &q, on_done, &r, NULL), -EINVAL);
    assert_int_equal(r.calls, 0);
    assert_int_equal(containers_count(containers), 0);
}

/* The disk does not come: at the deadline, or since somebody deletes the container. */
static void test_missing_disk(void **state)
{
    Cloudhv__Agent__V1__CreateContainerRequest q = CLOUDHV__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Cloudhv__Agent__V1__Rootfs rootfs = CLOUDHV__AGENT__V1__ROOTFS__INIT;
    Trees *trees;
    Result created = {0}, again = {0}, deleted = {0};
    char top[] = "/tmp/test-container.XXXXXX";

    assert_non_null(mkdtemp(top));
    assert_int_equal(trees_new(top, &trees, NULL), 0);
    containers_free(containers);
    assert_int_equal(containers_new(&(const ContainersContext){.loop = loop,
                                                               .reaper = reaper,
                                                               .disks = disks,
                                                               .trees = trees},
                                    &containers),
                     0);
    q.id = (char *)"c";
    q.rootfs = &rootfs;
    q.disk_timeout_usec = 50 * USEC_PER_MSEC;
    rootfs.image_serial = (char *)"no-such-disk";
    assert_int_equal(container_create(containers, &q, on_done, &created, NULL), 0);
    assert_int_equal(container_create(containers, &q, on_done, &again, NULL), -EEXIST);
    while (created.calls == 0)
        assert_int_equal(loop_run_once(loop, 5 * USEC_PER_SEC), 1);
    assert_int_equal(created.number, -ETIMEDOUT);
    assert_non_null(strstr(created.message, "no-such-disk"));
    assert_int_equal(containers_count(containers), 0);

    created = (Result){0};
    q.disk_timeout_usec = 100 * USEC_PER_SEC;
    assert_int_equal(container_create(containers, &q, on_done, &created, NULL), 0);
    assert_int_equal(container_delete(containers_find(containers, "c"), on_deleted, &deleted, NULL), 0);
    while (deleted.calls == 0)
        assert_int_equal(loop_run_once(loop, 5 * USEC_PER_SEC), 1);
    assert_int_equal(created.number, -ECANCELED);
    assert_int_equal(deleted.number, 0);
    assert_int_equal(containers_count(containers), 0);
    containers = containers_free(containers);
    trees_free(trees);
    assert_int_equal(rmdir(top), 0);
}

static void test_volumes_are_checked(void **state)
{
    Cloudhv__Agent__V1__GuestVolume v = CLOUDHV__AGENT__V1__GUEST_VOLUME__INIT, *list[AGENT_VOLUMES_MAX + 1];

    for (size_t i = 0; i < ELEMENTSOF(list); i++)
        list[i] = &v;
    v.name = (char *)"v";
    assert_int_equal(volumes_check(list, 1, NULL), 0);
    assert_int_equal(volumes_check(list, ELEMENTSOF(list), NULL), -EINVAL);
    v.name = (char *)"../v";
    assert_int_equal(volumes_check(list, 1, NULL), -EINVAL);
    v.name = (char *)"v";
    v.copy_up = true;
    assert_int_equal(volumes_check(list, 1, NULL), -EINVAL);
    v.container_path = (char *)"/data";
    assert_int_equal(volumes_check(list, 1, NULL), 0);
    v.size_limit = 4096;
    assert_int_equal(volumes_check(list, 1, NULL), -EINVAL);
    v.memory = true;
    assert_int_equal(volumes_check(list, 1, NULL), 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),
        TEST(test_registry),
        TEST(test_states_refuse),
        TEST(test_requests_are_checked),
        TEST(test_missing_disk),
        cmocka_unit_test(test_volumes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
