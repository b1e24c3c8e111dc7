/* SPDX-License-Identifier: MIT */

#include "shim/create.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/trace.h"
#include "config/config.h"
#include "image/image.h"
#include "image/scratch.h"
#include "oci/ids.h"
#include "oci/plan.h"
#include "shim/container.h"
#include "shim/daemon-link.h"
#include "shim/files.h"
#include "shim/pod.h"
#include "shim/task-events.h"
#include "shim/task.h"

enum {
    ROOTFS_MOUNTS_MAX = 64,
    SERIAL_SIZE = 21, /* 20 bytes and a NUL: what a virtio disk can tell */
};

struct Create {
    Shim *shim;
    Container *container;
    TtrpcCall *call;                              /* answered at the end */
    const Containerd__CreateTaskRequest *request; /* lives as long as `call` */
    Bundle *bundle;
    OciPlan *plan;
    ImageJob *image_job;
    FilesSender *files;
    TtrpcPending *agent_call;
    char image_serial[SERIAL_SIZE], scratch_serial[SERIAL_SIZE];
    int image_fd;
    char *image_path;
    char *abort_reason;
    Error error; /* why it failed, until all is undone */
};

void create_free(Create *op)
{
    if (!op)
        return;
    if (op->agent_call)
        ttrpc_pending_cancel(op->agent_call);
    image_job_free(op->image_job);
    files_sender_free(op->files);
    oci_plan_free(op->plan);
    bundle_free(op->bundle);
    fd_close(op->image_fd);
    free(op->image_path);
    free(op->abort_reason);
    error_clear(&op->error);
    if (op->call)
        ttrpc_call_fail(op->call, TTRPC_CANCELED, "the shim ends");
    free(op);
}

void create_abort(Create *op, const char *reason)
{
    if (!op->abort_reason)
        op->abort_reason = strdup(reason);
}

/* -------------------------------------------------------------------------------------------------- ends */

static void on_undone(Container *c, void *userdata)
{
    Create *op = userdata;
    Shim *shim = op->shim;

    task_fail_call(TAKE_PTR(op->call), &op->error);
    TRACE("shim.create.undone");
    container_free(c);
    shim_check_idle(shim);
}

static void fail(Create *op, const Error *e)
{
    Container *c = op->container;

    error_set(&op->error, e->number < 0 ? e->number : -EIO, "cannot create container %s: %s", c->id,
              error_message(e));
    log_error("%s", error_message(&op->error));
    if (container_teardown(c, on_undone, op) < 0)
        on_undone(c, op);
}

/* Between two steps: has somebody given up on it, or has the VM gone? */
static int check_abort(const Create *op, Error *e)
{
    if (op->abort_reason)
        return error_set(e, -ECANCELED, "%s", op->abort_reason);
    return pod_agent(op->shim->pod) ? 0 : error_set(e, -ESHUTDOWN, "the pod's VM has ended");
}

static void succeed(Create *op)
{
    Containerd__CreateTaskResponse response = CONTAINERD__CREATE_TASK_RESPONSE__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    Container *c = op->container;

    if (check_abort(op, &e) < 0 || process_move(&c->init, PROCESS_CREATED, &e) < 0) {
        fail(op, &e);
        return;
    }
    task_event_create(c, op->request);
    TRACE("shim.create.done");
    response.pid = (uint32_t)getpid();
    ttrpc_call_reply(TAKE_PTR(op->call), &response.base);
    c->create = NULL;
    create_free(op);
    /* Specification and files were the most that this process ever holds. */
    (void)malloc_trim(0);
}

/* ---------------------------------------------------------------------------------------------- in the guest */

static void on_created(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = userdata;
    Container *c = op->container;

    op->agent_call = NULL;
    if (ttrpc_reply_error(reply, "the guest", &e) < 0) {
        fail(op, &e);
        return;
    }
    TRACE("shim.create.created-in-guest");
    c->init.has_process = true;
    if (check_abort(op, &e) < 0 || process_attach(&c->init, pod_agent(c->shim->pod), &e) < 0)
        fail(op, &e);
    else
        succeed(op);
}

static int fill_volumes(const OciPlan *plan, Cloudhv__Agent__V1__CreateContainerRequest *request,
                        Cloudhv__Agent__V1__GuestVolume **ret)
{
    Cloudhv__Agent__V1__GuestVolume *volumes;

    if (plan->n_volumes == 0)
        return 0;
    volumes = calloc(plan->n_volumes, sizeof(*volumes));
    request->volumes = calloc(plan->n_volumes, sizeof(*request->volumes));
    *ret = volumes;
    if (!volumes || !request->volumes)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n_volumes; i++) {
        const OciVolume *from = &plan->volumes[i];

        cloudhv__agent__v1__guest_volume__init(&volumes[i]);
        volumes[i].name = from->name;
        volumes[i].container_path = from->container_path;
        volumes[i].copy_up = from->copy_up;
        volumes[i].pod = from->pod;
        volumes[i].memory = from->memory;
        volumes[i].mode = from->mode;
        volumes[i].uid = from->uid;
        volumes[i].gid = from->gid;
        volumes[i].size_limit = from->size_limit;
        request->volumes[i] = &volumes[i];
    }
    request->n_volumes = plan->n_volumes;
    return 0;
}

static int create_in_guest(Create *op, Error *e)
{
    Cloudhv__Agent__V1__CreateContainerRequest request = CLOUDHV__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Cloudhv__Agent__V1__Rootfs rootfs = CLOUDHV__AGENT__V1__ROOTFS__INIT;
    Cloudhv__Agent__V1__GuestVolume *volumes = NULL;
    const VmmConfig *vmm = &op->shim->config->vmm;
    const Process *init = &op->container->init;
    TtrpcClient *agent = pod_agent(op->shim->pod);
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "CreateContainer",
        .request = &request.base,
        /* Waiting for the disks, and then the mounts and crun. */
        .timeout_usec = (2 * vmm->operation_timeout_secs + vmm->boot_timeout_secs) * USEC_PER_SEC,
    };
    int r;

    rootfs.image_serial = op->image_serial;
    rootfs.scratch_serial = op->scratch_serial;
    request.id = op->container->id;
    request.spec.data = (uint8_t *)op->plan->spec;
    request.spec.len = op->plan->spec_size;
    request.rootfs = &rootfs;
    request.stdin = *init->stdin_path != 0;
    request.stdout = *init->stdout_path != 0;
    request.stderr = *init->stderr_path != 0 && !init->terminal;
    request.terminal = init->terminal;
    request.share_pod_pid = op->plan->share_pod_pid;
    request.disk_timeout_usec = vmm->operation_timeout_secs * USEC_PER_SEC;
    r = fill_volumes(op->plan, &request, &volumes);
    if (r >= 0) {
        op->container->in_agent = true;
        r = ttrpc_client_call(agent, &spec, on_created, op, &op->agent_call);
    }
    free(request.volumes);
    free(volumes);
    return r < 0 ? error_set_errno(e, r, "cannot ask the agent for the container") : 0;
}

/* What of the plan is needed again when the container has ended. */
static int keep_copy_backs(Container *c, const OciPlan *plan)
{
    c->copy_backs = calloc(plan->n_trees + 1, sizeof(*c->copy_backs));
    if (!c->copy_backs)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n_trees; i++) {
        const OciTree *tree = &plan->trees[i];
        CopyBack *b = &c->copy_backs[c->n_copy_backs];

        if (!tree->copy_back)
            continue;
        c->n_copy_backs++;
        b->tree = strdup(tree->name);
        b->path = strdup(tree->source);
        b->device = tree->files->device;
        b->inode = tree->files->inode;
        if (!b->tree || !b->path)
            return -ENOMEM;
    }
    return 0;
}

static void on_files_sent(_unused_ FilesSender *sender, const Error *error, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = userdata;
    int r = 0;

    op->files = files_sender_free(op->files);
    if (error) {
        fail(op, error);
        return;
    }
    TRACE("shim.create.files-sent");
    if (keep_copy_backs(op->container, op->plan) < 0)
        r = error_set_errno(&e, -ENOMEM, "cannot keep the container's files in mind");
    if (r >= 0)
        r = check_abort(op, &e);
    if (r >= 0)
        r = create_in_guest(op, &e);
    if (r < 0)
        fail(op, &e);
}

/* -------------------------------------------------------------------------------------------------- disks */

static int send_files(Create *op, Error *e)
{
    TtrpcClient *agent = pod_agent(op->shim->pod);

    /* Whatever the agent has of it, DeleteContainer takes away. */
    op->container->in_agent = true;
    return files_send(op->shim->loop, agent, op->container->id, op->plan, daemon_link_timeout(op->shim->daemon),
                      on_files_sent, op, &op->files, e);
}

static void on_attached(_unused_ Pod *pod, const Error *error, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = userdata;

    op->image_fd = fd_close(op->image_fd);
    if (error) {
        fail(op, error);
        return;
    }
    TRACE("shim.create.disks-attached");
    if (check_abort(op, &e) < 0 || send_files(op, &e) < 0)
        fail(op, &e);
}

static void make_serial(const Create *op, char kind, char serial[static SERIAL_SIZE])
{
    char hex[SHA256_HEX_SIZE];
    Sha256 s;

    sha256_init(&s);
    sha256_add_string(&s, op->shim->spec->namespace);
    sha256_add_string(&s, op->container->id);
    sha256_finish_hex(&s, hex);
    snprintf(serial, SERIAL_SIZE, "%c%.16s%02u", kind, hex, pod_next_disk(op->shim->pod) % 100);
}

static int attach_disks(Create *op, Error *e)
{
    Cloudhv__Daemon__V1__Disk image = CLOUDHV__DAEMON__V1__DISK__INIT, scratch = CLOUDHV__DAEMON__V1__DISK__INIT;
    Cloudhv__Daemon__V1__Disk *disks[] = {&image, &scratch};
    Container *c = op->container;

    make_serial(op, 'i', op->image_serial);
    image.serial = op->image_serial;
    image.path = op->image_path;
    image.read_only = true;
    if (c->scratch_path) {
        make_serial(op, 's', op->scratch_serial);
        scratch.serial = op->scratch_serial;
        scratch.path = c->scratch_path;
    }
    c->disks_attached = true;
    TRACE("shim.create.disks-to-be-attached");
    return pod_attach_disks(op->shim->pod, c->id, disks, c->scratch_path ? 2 : 1, on_attached, op, e);
}

static int take_image(Create *op, ImageResult *result, Error *e)
{
    Container *c = op->container;
    Shim *shim = op->shim;
    int r;

    op->image_fd = TAKE_FD(result->image_fd);
    /* The daemon gets at it through our descriptor: a private image has no name, and that of another may have left
     * the cache meanwhile. */
    op->image_path = string_printf("/proc/%i/fd/%i", (int)getpid(), op->image_fd);
    if (!op->image_path)
        return error_set_errno(e, -ENOMEM, "cannot name the image");
    if (!result->scratch_path)
        return 0;
    c->scratch_path = TAKE_PTR(result->scratch_path);
    r = record_add_disk(shim->record, c->id, c->scratch_path);
    return r < 0 ? error_set_errno(e, r, "cannot keep the scratch disk in mind")
                 : record_write(shim->record, shim->spec->bundle, e);
}

static void on_image(_unused_ ImageJob *job, ImageResult *result, const Error *error, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = userdata;
    int r;

    op->image_job = image_job_free(op->image_job);
    if (error) {
        fail(op, error);
        return;
    }
    TRACE("shim.create.image-ready");
    r = take_image(op, result, &e);
    if (r >= 0)
        r = check_abort(op, &e);
    if (r >= 0)
        r = attach_disks(op, &e);
    if (r < 0)
        fail(op, &e);
}

/* A read-only root needs a writable layer for nothing but mount points, for which the guest's memory does. */
static bool wants_scratch(const Create *op)
{
    if (strcmp(op->shim->config->writable_layer, "disk") != 0)
        return false;
    return !op->plan->root_readonly || op->plan->n_volumes > 0;
}

static int prepare_image(Create *op, Error *e)
{
    const ShimConfig *config = op->shim->config;
    const ImageConfig image_config = {
        .cache_dir = config->erofs_cache_dir,
        .cache_max = config->erofs_cache_max_mb << 20,
        .image_max = config->image_max_mb << 20,
        .mkfs_erofs = config->mkfs_erofs_binary,
        .mke2fs = config->mke2fs_binary,
        .timeout_usec = config->conversion_timeout_secs * USEC_PER_SEC,
    };
    const ImageScratch scratch = {.size = config->scratch_size_mb << 20};
    const Containerd__CreateTaskRequest *request = op->request;
    ImageMount mounts[ROOTFS_MOUNTS_MAX];

    if (request->n_rootfs == 0 || request->n_rootfs > ROOTFS_MOUNTS_MAX)
        return error_set(e, -EINVAL, "the root file system has %zu mounts; 1 to %i are served", request->n_rootfs,
                         ROOTFS_MOUNTS_MAX);
    for (size_t i = 0; i < request->n_rootfs; i++)
        mounts[i] = (ImageMount){
            .type = request->rootfs[i]->type,
            .source = request->rootfs[i]->source,
            .options = (const char *const *)request->rootfs[i]->options,
            .n_options = request->rootfs[i]->n_options,
        };
    return image_prepare(op->shim->loop, &image_config, mounts, request->n_rootfs, wants_scratch(op) ? &scratch : NULL,
                         on_image, op, &op->image_job, e);
}

/* ------------------------------------------------------------------------------------------------- begin */

static int make_plan(Create *op, Error *e)
{
    const ShimConfig *config = op->shim->config;
    const OciSettings settings = {
        .container_id = op->container->id,
        .sandbox_id = op->shim->spec->id,
        .netns = pod_netns(op->shim->pod),
        .pod_pid = getpid(),
        .ignore_lsm = config->ignore_lsm,
        .inline_max = config->inline_max_kb << 10,
    };
    int r;

    r = oci_plan_new(op->bundle, &settings, &op->plan, e);
    if (r >= 0)
        r = oci_plan_collect(op->plan, settings.inline_max, e);
    op->bundle = bundle_free(op->bundle);
    if (r < 0)
        return r;
    if (op->plan->terminal != op->container->init.terminal)
        return error_set(e, -EINVAL, "process.terminal is %s, the request says otherwise",
                         op->plan->terminal ? "true" : "false");
    return 0;
}

/* What a sandbox's container has no need of. */
static int prepare_process(Create *op, Error *e)
{
    int r;

    r = make_plan(op, e);
    if (r >= 0)
        r = process_open_stdio(&op->container->init, e);
    if (r < 0)
        return r;
    TRACE("shim.create.stdio-opened");
    return prepare_image(op, e);
}

static void on_pod_ready(_unused_ Pod *pod, const Error *error, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = userdata;

    if (error) {
        fail(op, error);
        return;
    }
    if (check_abort(op, &e) < 0) {
        fail(op, &e);
        return;
    }
    if (op->container->kind == BUNDLE_SANDBOX)
        succeed(op);
    else if (prepare_process(op, &e) < 0)
        fail(op, &e);
}

static int begin_pod(Create *op, Error *e)
{
    Shim *shim = op->shim;
    int r;

    r = pod_new(shim, &shim->pod);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a pod");
    op->container->owns_pod = true;
    return pod_acquire(shim->pod, op->bundle, on_pod_ready, op, e);
}

static int check_place(const Shim *shim, const Bundle *bundle, const char *id, Error *e)
{
    if (bundle->kind != BUNDLE_CONTAINER) {
        if (strcmp(id, shim->spec->id) != 0)
            return error_set(e, -EINVAL, "this shim serves %s", shim->spec->id);
        return shim->pod ? error_set(e, -EEXIST, "this shim has a pod already") : 0;
    }
    if (strcmp(bundle->sandbox_id, shim->spec->id) != 0)
        return error_set(e, -EINVAL, "it belongs to the sandbox %s, this shim serves %s", bundle->sandbox_id,
                         shim->spec->id);
    if (!pod_agent(shim->pod))
        return error_set(e, -ESHUTDOWN, "its sandbox %s has no running VM", bundle->sandbox_id);
    return 0;
}

static int check_request(const Shim *shim, const Containerd__CreateTaskRequest *request, Error *e)
{
    if (id_check(request->id, "container id", e) < 0)
        return e->number;
    if (container_find(shim, request->id))
        return error_set(e, -EEXIST, "container %s exists", request->id);
    if (*request->checkpoint || *request->parent_checkpoint)
        return error_set(e, -EINVAL, "container %s: checkpoints are not supported", request->id);
    if (request->bundle[0] != '/')
        return error_set(e, -EINVAL, "container %s: the bundle \"%s\" is no absolute path", request->id,
                         request->bundle);
    return 0;
}

/* Makes the operation, up to the container that failures are then undone by. */
static int create_new(Shim *shim, const Containerd__CreateTaskRequest *request, Create **ret, Error *e)
{
    Create *op = calloc(1, sizeof(*op));
    int r;

    if (!op)
        return error_set_errno(e, -ENOMEM, "cannot create container %s", request->id);
    op->shim = shim;
    op->request = request;
    op->image_fd = -EBADF;
    r = bundle_load(request->bundle, &op->bundle, e);
    if (r >= 0)
        r = check_place(shim, op->bundle, request->id, e);
    if (r >= 0) {
        r = container_new(shim, request->id, request->bundle, op->bundle->kind, &op->container);
        if (r >= 0)
            r = process_init(&op->container->init, op->container, "", request->terminal, request->stdin,
                             request->stdout, request->stderr, container_init_ended);
        if (r < 0)
            error_set_errno(e, r, "out of memory");
    }
    if (r < 0) {
        error_prefix(e, "cannot create container %s", request->id);
        container_free(op->container);
        create_free(op);
        return r;
    }
    op->container->create = op;
    *ret = op;
    return 0;
}

void create_start(Shim *shim, TtrpcCall *call, const Containerd__CreateTaskRequest *request)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Create *op = NULL;
    int r;

    r = check_request(shim, request, &e);
    if (r >= 0)
        r = create_new(shim, request, &op, &e);
    if (r < 0) {
        log_error("%s", error_message(&e));
        task_fail_call(call, &e);
        return;
    }
    op->call = call;
    TRACE("shim.create.begun");
    r = op->container->kind == BUNDLE_CONTAINER ? prepare_process(op, &e) : begin_pod(op, &e);
    if (r < 0)
        fail(op, &e);
}
