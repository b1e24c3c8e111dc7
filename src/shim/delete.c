/* SPDX-License-Identifier: MIT */

#include "shim/delete.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/trace.h"
#include "config/config.h"
#include "containerd-task.pb-c.h"
#include "daemon.pb-c.h"
#include "image/scratch.h"
#include "net/netns.h"
#include "net/redirect.h"
#include "net/rtnl.h"
#include "oci/bundle.h"
#include "sandbox/sandbox.h"
#include "shim/address.h"
#include "shim/record.h"
#include "ttrpc/ttrpc.h"

/* containerd gives all of it 5 s by default. */
enum {
    TERMINATE_MSEC = 1500,
    KILL_MSEC = 500,
};
#define CALL_TIMEOUT_USEC (1500 * USEC_PER_MSEC)

/* ----------------------------------------------------------------------------------------- one call, awaited */

typedef struct Answer {
    bool done;
    TtrpcCode code;
    char *message;
} Answer;

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Answer *a = userdata;

    a->done = true;
    a->code = reply->code;
    if (reply->message)
        a->message = strdup(reply->message);
}

static int call(const char *path, const TtrpcCallSpec *spec, Error *e)
{
    TtrpcClient *client = NULL;
    Answer answer = {0};
    Loop *loop = NULL;
    int fd, r;

    fd = fd_connect_unix(path);
    if (fd < 0)
        return error_set_errno(e, fd, "cannot reach %s", path);
    r = loop_new(&loop);
    if (r < 0) {
        close(fd);
        return error_set_errno(e, r, "cannot make an event loop");
    }
    r = ttrpc_client_new(loop, fd, &client);
    if (r >= 0)
        r = ttrpc_client_call(client, spec, on_reply, &answer, NULL);
    while (r >= 0 && !answer.done)
        r = loop_run_once(loop, UINT64_MAX);
    if (r < 0)
        error_set_errno(e, r, "%s at %s", spec->method, path);
    else if (answer.code != TTRPC_OK)
        r = error_set(e, ttrpc_code_to_errno(answer.code), "%s at %s: %s", spec->method, path, answer.message ?: "");
    answer.done = true;
    ttrpc_client_free(client);
    loop_free(loop);
    free(answer.message);
    return r;
}

/* ---------------------------------------------------------------------------------- a container of a sandbox */

/* The sandbox's shim may well live: it is asked to end the container. When it does not live, the sandbox's own
 * `delete` does all. */
static int delete_container(const ShimOptions *o, const char *bundle, const char *sandbox_id, Error *e)
{
    _cleanup_free_ char *file = fs_join(bundle, "address"), *address = NULL, *path = NULL;
    Containerd__KillRequest kill_request = CONTAINERD__KILL_REQUEST__INIT;
    Containerd__WaitRequest wait_request = CONTAINERD__WAIT_REQUEST__INIT;
    Containerd__DeleteRequest delete_request = CONTAINERD__DELETE_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &containerd__task__descriptor,
        .service_name = "containerd.task.v2.Task",
        .timeout_usec = CALL_TIMEOUT_USEC,
    };
    int r;

    if (file && fs_read_file(file, 4096, &address, NULL) >= 0 && strncmp(address, "unix://", 7) == 0)
        path = strdup(address + 7);
    else
        (void)address_socket_path(NULL, o->address, o->namespace, sandbox_id, &path, e);
    if (!path || access(path, F_OK) < 0)
        return 0;
    kill_request.id = wait_request.id = delete_request.id = (char *)o->id;
    kill_request.signal = SIGKILL;
    kill_request.all = true;
    spec.method = "Kill";
    spec.request = &kill_request.base;
    r = call(path, &spec, e);
    /* Not found also means: it has ended already. */
    if (r >= 0) {
        spec.method = "Wait";
        spec.request = &wait_request.base;
        r = call(path, &spec, e);
    }
    if (r < 0 && r != -ENOENT)
        return r == -ECONNREFUSED ? 0 : r;
    spec.method = "Delete";
    spec.request = &delete_request.base;
    r = call(path, &spec, e);
    return r == -ENOENT ? 0 : r;
}

/* -------------------------------------------------------------------------------------------------- the pod */

static bool wait_for_exit(int pidfd, int msec)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, 1, msec) > 0;
}

/* A shim that lives but that containerd can't reach ends here: first it may tidy up by itself. */
static void end_server(const Record *record)
{
    _cleanup_close_ int pidfd = -EBADF;

    if (record->pid <= 1 || record->start_time == 0 ||
        process_open(record->pid, record->start_time, &pidfd) < 0)
        return;
    (void)process_kill(pidfd, SIGTERM);
    if (!wait_for_exit(pidfd, TERMINATE_MSEC)) {
        (void)process_kill(pidfd, SIGKILL);
        (void)wait_for_exit(pidfd, KILL_MSEC);
    }
    TRACE("shim.delete-action.server-ended");
}

static int release_at_daemon(const ShimOptions *o, const char *daemon_socket, Error *e)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest request = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__daemon__v1__sandboxes__descriptor,
        .method = "ReleaseSandbox",
        .request = &request.base,
        .timeout_usec = CALL_TIMEOUT_USEC,
    };

    request.namespace_ = (char *)o->namespace;
    request.sandbox_id = (char *)o->id;
    return call(daemon_socket, &spec, e);
}

static int release(const ShimOptions *o, const Record *record, Error *e)
{
    _cleanup_shim_config_ ShimConfig *config = NULL;
    const char *daemon_socket = record ? record->daemon_socket : NULL, *state_dir = record ? record->state_dir : NULL;
    int r;

    if (!daemon_socket || !state_dir) {
        r = shim_config_load(&config, e);
        if (r < 0)
            return r;
        daemon_socket = config->daemon_socket;
        state_dir = config->state_dir;
    }
    r = *daemon_socket ? release_at_daemon(o, daemon_socket, e)
                       : sandbox_remove_leftover(state_dir, o->namespace, o->id, e);
    TRACE("shim.delete-action.vm-released");
    return r;
}

/* With the namespace of a CNI the filters would go as well, but it may outlive the pod. */
static void remove_redirects(const Record *record)
{
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_rtnl_ Rtnl *rtnl = NULL;

    if (!record->netns || access(record->netns, F_OK) < 0)
        return;
    if (netns_enter(record->netns, &e) < 0 || rtnl_new(&rtnl, &e) < 0 || redirect_remove_all(rtnl, &e) < 0)
        log_warning("%s", error_message(&e));
    TRACE("shim.delete-action.redirects-removed");
}

static void remove_disks(const Record *record)
{
    for (size_t i = 0; i < record->n_disks; i++) {
        int r = scratch_remove(record->disks[i].path);

        if (r < 0)
            log_warning("cannot remove the scratch disk %s: %s", record->disks[i].path, strerrordesc_np(-r));
    }
    TRACE("shim.delete-action.disks-removed");
}

static int delete_pod(const ShimOptions *o, const Record *record, Error *e)
{
    _cleanup_free_ char *path = NULL;
    int r;

    /* First, since nobody else does it: should this process be killed, the daemon releases the VM, the rest goes with
     * bundle, snapshot and network namespace. */
    if (record)
        (void)unlink(record->socket);
    else if (address_socket_path(NULL, o->address, o->namespace, o->id, &path, NULL) >= 0)
        (void)unlink(path);
    TRACE("shim.delete-action.socket-removed");
    if (record)
        end_server(record);
    r = release(o, record, e);
    if (record) {
        remove_disks(record);
        remove_redirects(record);
    }
    return r;
}

/* ---------------------------------------------------------------------------------------------------- both */

static void unmount_rootfs(const char *bundle)
{
    _cleanup_free_ char *rootfs = fs_join(bundle, "rootfs");

    /* Several mounts may lie on top of each other. */
    for (int i = 0; rootfs && i < 32; i++)
        if (umount2(rootfs, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
            return;
}

static int print_response(const Record *record, Error *e)
{
    Containerd__DeleteResponse response = CONTAINERD__DELETE_RESPONSE__INIT;
    Containerd__Timestamp exited_at = CONTAINERD__TIMESTAMP__INIT;
    uint8_t data[128];
    struct timespec now;
    int r;

    clock_gettime(CLOCK_REALTIME, &now);
    exited_at.seconds = now.tv_sec;
    exited_at.nanos = (int32_t)now.tv_nsec;
    response.pid = record ? (uint32_t)record->pid : 0;
    response.exit_status = 128 + SIGKILL;
    response.exited_at = &exited_at;
    r = fd_write_full(STDOUT_FILENO, data, containerd__delete_response__pack(&response, data));
    return r < 0 ? error_set_errno(e, r, "cannot write to standard output") : 0;
}

int delete_run(const ShimOptions *o, Error *e)
{
    _cleanup_free_ char *bundle = o->bundle ? strdup(o->bundle) : getcwd(NULL, 0);
    _cleanup_bundle_ Bundle *spec = NULL;
    _cleanup_record_ Record *record = NULL;
    _cleanup_error_ Error warning = ERROR_INIT;
    int r;

    if (!bundle)
        return error_set_errno(e, -ENOMEM, "cannot find the bundle");
    /* Each of them may be missing: then names have to do. */
    (void)record_read(bundle, &record, NULL);
    (void)bundle_load(bundle, &spec, NULL);
    if (!record && spec && spec->kind == BUNDLE_CONTAINER)
        r = delete_container(o, bundle, spec->sandbox_id, &warning);
    else
        r = delete_pod(o, record, &warning);
    /* What the daemon could not do now it does when it finds shim and bundle gone: no reason to keep the bundle. */
    if (r < 0)
        log_warning("%s", error_message(&warning));
    unmount_rootfs(bundle);
    return print_response(record, e);
}
