/* SPDX-License-Identifier: MIT */

/* How a container is made: wait for its disks, prepare file systems and spec in a worker, then crun. */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/container-private.h"
#include "agent/crun.h"
#include "agent/names.h"
#include "agent/rootfs.h"
#include "agent/spec.h"
#include "agent/volumes.h"
#include "agent/worker.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/trace.h"

typedef Cloudhv__Agent__V1__CreateContainerRequest CreateRequest;

struct Creation {
    Container *container;
    const CreateRequest *request;
    ContainerDoneFn done;
    void *userdata;

    DiskWait *disk_wait;
    char *image_device, *scratch_device;
    const char *pid_namespace;
    Error failure;
};

static void creation_free(Creation *creation)
{
    disk_wait_cancel(creation->disk_wait);
    free(creation->image_device);
    free(creation->scratch_device);
    error_clear(&creation->failure);
    free(creation);
}

/* What was made is taken apart: tell how it went, and those who want it deleted that it is. */
static void on_dismantled(int number, const char *message, void *userdata)
{
    Creation *creation = userdata;
    Container *c = creation->container;

    c->creation = NULL;
    creation->done(creation->failure.number, error_message(&creation->failure), creation->userdata);
    creation_free(creation);
    if (number < 0) {
        log_error("container %s: could not be removed after its creation failed: %s", c->id, message);
        (void)container_move(c, CONTAINER_STOPPED);
        completions_deleted(&c->deletes, number, message, NULL);
        return;
    }
    completions_deleted(&c->deletes, 0, NULL, &(const ContainerRemains){0});
    container_free(c);
}

/* Ends a creation whose `failure` is set. What is not an answer by itself is a failure inside. */
static void creation_fail(Creation *creation)
{
    int number = creation->failure.number;

    if (number != -ETIMEDOUT && number != -EINVAL && number != -ENOSPC && number != -ENOMEM &&
        number != -EOPNOTSUPP && number != -ECANCELED)
        creation->failure.number = -EIO;
    log_error("container %s: cannot be created: %s", creation->container->id,
              error_message(&creation->failure));
    container_dismantle(creation->container, on_dismantled, creation);
}

static void creation_done(Creation *creation)
{
    Container *c = creation->container;

    TRACE("agent.create.done");
    c->creation = NULL;
    (void)container_move(c, CONTAINER_CREATED);
    creation->done(0, NULL, creation->userdata);
    creation_free(creation);
    if (process_exit(c->process))
        (void)container_move(c, CONTAINER_STOPPED);
    if (c->deletes)
        container_delete_begin(c);
}

int container_read_pid_file(const char *path, pid_t *ret, Error *e)
{
    _cleanup_free_ char *text = NULL;
    long value;
    int r;

    r = fs_read_file(path, 32, &text, NULL);
    if (r < 0)
        return error_set_errno(e, r, "cannot read %s", path);
    value = strtol(text, NULL, 10);
    if (value <= 1 || value > INT32_MAX)
        return error_set(e, -EBADMSG, "not a process number in %s", path);
    *ret = (pid_t)value;
    return 0;
}

static int adopt_process(Container *c, Error *e)
{
    _cleanup_free_ char *path = fs_join(c->directory, "pid");
    pid_t pid = 0;
    int r;

    if (!path)
        return error_set(e, -ENOMEM, "out of memory");
    r = container_read_pid_file(path, &pid, e);
    if (r >= 0)
        r = process_set_pid(c->process, pid, e);
    if (r < 0)
        return r;
    r = reaper_watch(container_context(c)->reaper, pid, container_process_ended, c);
    if (r < 0)
        return error_set_errno(e, r, "cannot watch the process %i", pid);
    r = container_watch_cgroup(c);
    return r < 0 ? error_set_errno(e, r, "cannot watch the cgroup %s", c->cgroup) : 0;
}

static void on_crun_created(int number, const char *message, void *userdata)
{
    Creation *creation = userdata;
    Container *c = creation->container;

    if (number < 0)
        (void)error_set(&creation->failure, number, "%s", message);
    else
        (void)adopt_process(c, &creation->failure);
    reaper_release(container_context(c)->reaper);
    if (creation->failure.number < 0)
        creation_fail(creation);
    else
        creation_done(creation);
}

static int crun_create(Creation *creation, Error *e)
{
    const CreateRequest *q = creation->request;
    Container *c = creation->container;
    _cleanup_(process_pipes_close) ProcessPipes pipes = PROCESS_PIPES_INIT;
    _cleanup_free_ char *log_path = fs_join(c->directory, "create.log"), *pid_file = fs_join(c->directory, "pid");
    Reaper *reaper = container_context(c)->reaper;
    int r;

    if (!log_path || !pid_file)
        return error_set(e, -ENOMEM, "out of memory");
    r = process_make_pipes(c->process, q->stdin, q->stdout, q->stderr, &pipes, e);
    if (r < 0)
        return r;
    reaper_hold(reaper);
    r = crun_run(reaper,
                 &(const CrunCommand){
                     .arguments = (const char *const[]){"create", "--bundle", c->directory, "--pid-file", pid_file,
                                                        c->id, NULL},
                     .log_path = log_path,
                     .stdin_fd = pipes.stdin_fd,
                     .stdout_fd = pipes.stdout_fd,
                     .stderr_fd = pipes.stderr_fd,
                     .timeout_usec = CONTAINER_CRUN_TIMEOUT_SECS * USEC_PER_SEC,
                 },
                 on_crun_created, creation, e);
    if (r < 0)
        reaper_release(reaper);
    return r;
}

static void on_prepared(int number, const char *message, void *userdata)
{
    Creation *creation = userdata;

    TRACE("agent.create.prepared");
    if (number < 0)
        (void)error_set(&creation->failure, number, "%s", message);
    else if (creation->container->deletes)
        (void)error_set(&creation->failure, -ECANCELED, "the container was deleted while it was being created");
    else
        (void)crun_create(creation, &creation->failure);
    if (creation->failure.number < 0)
        creation_fail(creation);
}

static int write_spec(const Creation *creation, Error *e)
{
    const Container *c = creation->container;
    _cleanup_free_ char *root = fs_join(c->directory, "rootfs"), *path = fs_join(c->directory, "config.json"),
                        *cgroup = cgroup_spec_path(c->id), *text = NULL;
    int r;

    if (!root || !path || !cgroup)
        return error_set(e, -ENOMEM, "out of memory");
    r = spec_place(creation->request->spec.data, creation->request->spec.len,
                   &(const SpecPlaces){
                       .root_path = root,
                       .cgroups_path = cgroup,
                       .pid_namespace = creation->pid_namespace,
                   },
                   &text, e);
    if (r < 0)
        return r;
    r = fs_write_file_atomic(path, text, strlen(text), 0600);
    return r < 0 ? error_set_errno(e, r, "cannot write %s", path) : 0;
}

/* In the worker. */
static int prepare_job(void *userdata, Error *e)
{
    const Creation *creation = userdata;
    const CreateRequest *q = creation->request;
    const char *directory = creation->container->directory;
    int r;

    r = rootfs_mount(&(const RootfsSpec){.directory = directory,
                                         .image_device = creation->image_device,
                                         .scratch_device = creation->scratch_device,
                                         .memory_limit = q->rootfs->memory_limit},
                     e);
    if (r >= 0)
        r = volumes_make(directory, q->volumes, q->n_volumes, e);
    return r < 0 ? r : write_spec(creation, e);
}

static int prepare(Creation *creation, Error *e)
{
    Container *c = creation->container;
    int r;

    TRACE("agent.create.disks-found");
    if (creation->request->share_pod_pid) {
        r = podpid_get(container_context(c)->pod_pid, &creation->pid_namespace, e);
        if (r < 0)
            return r;
    }
    if (mkdir(c->directory, 0700) < 0)
        return error_set_errno(e, -errno, "cannot make %s", c->directory);
    return worker_run(container_context(c)->reaper, prepare_job, on_prepared, creation, e);
}

static void await_disks(Creation *creation);

static void on_disk(int number, const char *path, void *userdata)
{
    Creation *creation = userdata;
    const Cloudhv__Agent__V1__Rootfs *rootfs = creation->request->rootfs;
    bool image = !creation->image_device;
    char *copy;

    creation->disk_wait = NULL;
    copy = number < 0 ? NULL : strdup(path);
    if (number < 0)
        (void)error_set(&creation->failure, number, "the disk %s of the container's %s did not appear",
                        image ? rootfs->image_serial : rootfs->scratch_serial,
                        image ? "image" : "writable layer");
    else if (!copy)
        (void)error_set(&creation->failure, -ENOMEM, "out of memory");
    if (image)
        creation->image_device = copy;
    else
        creation->scratch_device = copy;
    await_disks(creation);
}

/* Goes on with whatever disk is missing, or with the preparation. */
static void await_disks(Creation *creation)
{
    const CreateRequest *q = creation->request;
    uint64_t timeout = q->disk_timeout_usec ?: CONTAINER_DISK_TIMEOUT_SECS * USEC_PER_SEC;
    const char *serial = NULL;
    int r;

    if (timeout > CONTAINER_DISK_TIMEOUT_MAX_SECS * USEC_PER_SEC)
        timeout = CONTAINER_DISK_TIMEOUT_MAX_SECS * USEC_PER_SEC;
    if (!creation->image_device)
        serial = q->rootfs->image_serial;
    else if (q->rootfs->scratch_serial[0] && !creation->scratch_device)
        serial = q->rootfs->scratch_serial;
    if (creation->failure.number == 0 && serial) {
        r = disks_wait(container_context(creation->container)->disks, serial, timeout, on_disk, creation,
                       &creation->disk_wait);
        if (r < 0)
            (void)error_set_errno(&creation->failure, r, "cannot wait for the disk %s", serial);
    } else if (creation->failure.number == 0) {
        (void)prepare(creation, &creation->failure);
    }
    if (creation->failure.number < 0)
        creation_fail(creation);
}

void container_creation_abort(Container *c)
{
    Creation *creation = c->creation;

    if (!creation || !creation->disk_wait)
        return;
    creation->disk_wait = disk_wait_cancel(creation->disk_wait);
    (void)error_set(&creation->failure, -ECANCELED, "the container was deleted while it waited for its disks");
    creation_fail(creation);
}

static int check_request(const CreateRequest *q, Error *e)
{
    if (q->terminal)
        return error_set(e, -EOPNOTSUPP, "a terminal for the container is not implemented");
    if (!q->rootfs)
        return error_set(e, -EINVAL, "the container has no root file system");
    if (!name_is_valid(q->rootfs->image_serial))
        return error_set(e, -EINVAL, "not a serial of a disk: \"%.140s\"", q->rootfs->image_serial);
    if (q->rootfs->scratch_serial[0] && !name_is_valid(q->rootfs->scratch_serial))
        return error_set(e, -EINVAL, "not a serial of a disk: \"%.140s\"", q->rootfs->scratch_serial);
    return volumes_check(q->volumes, q->n_volumes, e);
}

int container_create(Containers *containers, const CreateRequest *request, ContainerDoneFn done,
                     void *userdata, Error *e)
{
    Creation *creation;
    Container *c;
    int r;

    r = check_request(request, e);
    if (r < 0)
        return r;
    r = container_new(containers, request->id, &c, e);
    if (r < 0)
        return r;
    creation = calloc(1, sizeof(*creation));
    if (!creation) {
        container_free(c);
        return error_set(e, -ENOMEM, "out of memory");
    }
    *creation = (Creation){.container = c, .request = request, .done = done, .userdata = userdata};
    c->creation = creation;
    TRACE("agent.create.begun");
    await_disks(creation);
    return 0;
}
