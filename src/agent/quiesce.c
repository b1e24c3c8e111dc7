/* SPDX-License-Identifier: MIT */

#include "agent/quiesce.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/trace.h"

#define CONTAINER_ID "cloudhv-warm"
#define DISK_TIMEOUT_USEC (30 * USEC_PER_SEC)

struct Quiesce {
    Containers *containers;
    bool busy;
    char *disk;
    Cloudhv__Agent__V1__CreateContainerRequest request;
    Cloudhv__Agent__V1__Rootfs rootfs;
    Error failure;
    ContainerDoneFn done;
    void *userdata;
};

/* As containerd makes them, so that the same paths of crun and of the kernel are taken; except for a network
 * namespace, which pods' containers do not have either. The process is the agent itself, which then only says
 * its version. */
static const char spec[] =
    "{\"ociVersion\":\"1.1.0\","
    "\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"/sbin/init\",\"--version\"],\"env\":[\"PATH=/usr/bin\"],"
    "\"cwd\":\"/\",\"noNewPrivileges\":true,\"oomScoreAdj\":0,"
    "\"capabilities\":{\"bounding\":[\"CAP_CHOWN\",\"CAP_KILL\"],\"effective\":[\"CAP_CHOWN\",\"CAP_KILL\"],"
    "\"permitted\":[\"CAP_CHOWN\",\"CAP_KILL\"]}},"
    "\"root\":{\"path\":\"rootfs\",\"readonly\":false},\"hostname\":\"warm\","
    "\"mounts\":["
    "{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\","
    "\"options\":[\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\","
    "\"options\":[\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]},"
    "{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"mode=1777\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
    "{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"ro\"]},"
    "{\"destination\":\"/sys/fs/cgroup\",\"type\":\"cgroup\",\"source\":\"cgroup\","
    "\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"relatime\",\"ro\"]}],"
    "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"},"
    "{\"type\":\"cgroup\"}],"
    "\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}],\"memory\":{\"limit\":67108864},"
    "\"cpu\":{\"shares\":1024},\"pids\":{\"limit\":64}},"
    "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\","
    "\"syscalls\":[{\"names\":[\"keyctl\",\"bpf\"],\"action\":\"SCMP_ACT_ERRNO\"}]},"
    "\"maskedPaths\":[\"/proc/kcore\",\"/proc/keys\"],\"readonlyPaths\":[\"/proc/sys\"]}}";

int quiesce_new(Containers *containers, Quiesce **ret)
{
    *ret = calloc(1, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    (*ret)->containers = containers;
    return 0;
}

Quiesce *quiesce_free(Quiesce *q)
{
    if (!q)
        return NULL;
    free(q->disk);
    error_clear(&q->failure);
    free(q);
    return NULL;
}

static void quiesce_end(Quiesce *q)
{
    _cleanup_error_ Error e = ERROR_INIT;

    (void)error_move(&e, &q->failure);
    free(q->disk);
    q->disk = NULL;
    q->busy = false;
    /* Pages that clones would have to copy to write them back, or to give them to somebody else. */
    sync();
    (void)malloc_trim(0);
    TRACE("agent.quiesce.done");
    q->done(e.number, e.number < 0 ? error_message(&e) : NULL, q->userdata);
}

static void fail(Quiesce *q, int number, const char *message)
{
    log_error("cannot warm the VM up: %s", message);
    if (q->failure.number == 0)
        (void)error_set(&q->failure, number, "cannot warm the VM up: %s", message);
}

static void on_deleted(int number, const char *message, const ContainerRemains *remains, void *userdata)
{
    Quiesce *q = userdata;

    if (number < 0)
        fail(q, number, message);
    else if (remains->exit.status != 0)
        fail(q, -EIO, "its container ended with an error");
    quiesce_end(q);
}

static void remove_container(Quiesce *q)
{
    Container *c = containers_find(q->containers, CONTAINER_ID);
    _cleanup_error_ Error e = ERROR_INIT;

    if (c && container_delete(c, on_deleted, q, &e) >= 0)
        return;
    if (c)
        fail(q, e.number, error_message(&e));
    quiesce_end(q);
}

static void on_ended(const ProcessExit *exit, void *userdata)
{
    remove_container(userdata);
}

static void await_end(Quiesce *q, Process *process)
{
    ProcessWait *wait;
    int r = process_exit(process) ? 0 : process_wait(process, on_ended, q, &wait);

    if (r < 0)
        fail(q, r, "cannot wait for its container");
    if (r < 0 || process_exit(process))
        remove_container(q);
}

static void on_started(int number, const char *message, void *userdata)
{
    Quiesce *q = userdata;
    Container *c = containers_find(q->containers, CONTAINER_ID);

    if (number < 0) {
        fail(q, number, message);
        remove_container(q);
    } else {
        await_end(q, container_process(c));
    }
}

static void on_created(int number, const char *message, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Quiesce *q = userdata;

    if (number < 0) {
        fail(q, number, message);
        quiesce_end(q); /* nothing is left of it */
        return;
    }
    if (container_start(containers_find(q->containers, CONTAINER_ID), on_started, q, &e) < 0) {
        fail(q, e.number, error_message(&e));
        remove_container(q);
    }
}

static int create_container(Quiesce *q, Error *e)
{
    cloudhv__agent__v1__create_container_request__init(&q->request);
    cloudhv__agent__v1__rootfs__init(&q->rootfs);
    q->request.id = (char *)CONTAINER_ID;
    q->request.spec.data = (uint8_t *)spec;
    q->request.spec.len = strlen(spec);
    q->request.rootfs = &q->rootfs;
    q->request.disk_timeout_usec = DISK_TIMEOUT_USEC;
    q->rootfs.image_serial = q->disk;
    return container_create(q->containers, &q->request, on_created, q, e);
}

int quiesce_begin(Quiesce *q, const char *disk, ContainerDoneFn done, void *userdata, Error *e)
{
    int r = 0;

    if (q->busy)
        return error_set(e, -EBUSY, "the VM is just being prepared to be frozen");
    q->disk = strdup(disk);
    if (!q->disk)
        return error_set(e, -ENOMEM, "out of memory");
    q->busy = true;
    q->done = done;
    q->userdata = userdata;
    TRACE("agent.quiesce.begun");
    if (disk[0])
        r = create_container(q, e);
    else
        quiesce_end(q);
    if (r < 0) {
        free(q->disk);
        q->disk = NULL;
        q->busy = false;
    }
    return r;
}
