/* SPDX-License-Identifier: MIT */

#include "shim/container.h"

#include <errno.h>
#include <string.h>

#include "agent.pb-c.h"
#include "base/log.h"
#include "base/trace.h"
#include "image/scratch.h"
#include "oci/filetree.h"
#include "shim/create.h"
#include "shim/daemon-link.h"
#include "shim/pod.h"
#include "shim/shim.h"

/* Bytes of a file that returns; a termination message is a few KiB at most. */
enum { COPY_BACK_MAX = 256 * 1024 };

struct Teardown {
    Container *container;
    TtrpcPending *call;
    TeardownFn callback;
    void *userdata;
    LoopSource *later;
};

int container_new(Shim *shim, const char *id, const char *bundle, BundleKind kind, Container **ret)
{
    Container *c = calloc(1, sizeof(*c)), **last = &shim->containers;

    if (!c)
        return -ENOMEM;
    c->shim = shim;
    c->kind = kind;
    c->id = strdup(id);
    c->bundle = strdup(bundle);
    if (!c->id || !c->bundle) {
        free(c->id);
        free(c->bundle);
        free(c);
        return -ENOMEM;
    }
    while (*last)
        last = &(*last)->next;
    *last = c;
    *ret = c;
    return 0;
}

static void copy_backs_free(Container *c)
{
    for (size_t i = 0; i < c->n_copy_backs; i++) {
        free(c->copy_backs[i].tree);
        free(c->copy_backs[i].path);
    }
    free(TAKE_PTR(c->copy_backs));
    c->n_copy_backs = 0;
}

Container *container_free(Container *c)
{
    if (!c)
        return NULL;
    for (Container **link = &c->shim->containers; *link; link = &(*link)->next)
        if (*link == c) {
            *link = c->next;
            break;
        }
    if (c->copy_call)
        ttrpc_pending_cancel(c->copy_call);
    if (c->teardown) {
        if (c->teardown->call)
            ttrpc_pending_cancel(c->teardown->call);
        loop_source_free(c->teardown->later);
        free(c->teardown);
    }
    create_free(c->create);
    while (c->execs) {
        Process *next = c->execs->next;

        process_clear(c->execs);
        free(c->execs);
        c->execs = next;
    }
    process_clear(&c->init);
    copy_backs_free(c);
    free(c->scratch_path);
    free(c->bundle);
    free(c->id);
    free(c);
    return NULL;
}

Container *container_find(const Shim *shim, const char *id)
{
    Container *c = shim->containers;

    while (c && strcmp(c->id, id) != 0)
        c = c->next;
    return c;
}

Process *container_process(Container *c, const char *exec_id)
{
    Process *p = c->execs;

    if (!*exec_id)
        return &c->init;
    while (p && strcmp(p->exec_id, exec_id) != 0)
        p = p->next;
    return p;
}

void container_lose(Container *c)
{
    if (c->copy_call)
        ttrpc_pending_cancel(TAKE_PTR(c->copy_call));
    process_lose(&c->init);
    for (Process *p = c->execs; p; p = p->next)
        process_lose(p);
}

/* ---------------------------------------------------------------------------------------------- copy back */

static void copy_next(Container *c);

static void write_back(const CopyBack *b, const Cloudhv__Agent__V1__ReadTreeFileResponse *response)
{
    const FileTree tree = {.device = b->device, .inode = b->inode};
    _cleanup_error_ Error e = ERROR_INIT;

    if (response->truncated)
        log_warning("only the first %zu bytes of %s return from the guest", response->data.len, b->path);
    if (file_tree_write_back(b->path, &tree, response->data.data, response->data.len, &e) < 0)
        log_warning("%s", error_message(&e));
    TRACE("shim.exit.file-returned");
}

static void on_file(const TtrpcReply *reply, void *userdata)
{
    Container *c = userdata;
    const CopyBack *b = &c->copy_backs[c->next_copy_back++];

    c->copy_call = NULL;
    if (reply->code == TTRPC_OK)
        write_back(b, (const Cloudhv__Agent__V1__ReadTreeFileResponse *)reply->response);
    else
        log_warning("container %s: %s does not return from the guest: %s", c->id, b->path, reply->message);
    copy_next(c);
}

static int ask_file(Container *c, const CopyBack *b)
{
    Cloudhv__Agent__V1__ReadTreeFileRequest request = CLOUDHV__AGENT__V1__READ_TREE_FILE_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "ReadTreeFile",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(c->shim->daemon),
    };
    TtrpcClient *agent = pod_agent(c->shim->pod);

    if (!agent)
        return -ENOTCONN;
    request.tree = b->tree;
    request.max = COPY_BACK_MAX;
    return ttrpc_client_call(agent, &spec, on_file, c, &c->copy_call);
}

static void copy_next(Container *c)
{
    if (c->next_copy_back < c->n_copy_backs && ask_file(c, &c->copy_backs[c->next_copy_back]) >= 0)
        return;
    process_stop(&c->init);
}

void container_init_ended(Process *init)
{
    init->container->next_copy_back = 0;
    copy_next(init->container);
}

/* ----------------------------------------------------------------------------------------------- teardown */

static void teardown_done(Container *c)
{
    Teardown *t = TAKE_PTR(c->teardown);
    TeardownFn callback = t->callback;
    void *userdata = t->userdata;

    loop_source_free(t->later);
    free(t);
    TRACE("shim.teardown.done");
    callback(c, userdata);
}

static void on_pod_released(Pod *pod, const Error *e, void *userdata)
{
    Container *c = userdata;

    if (e)
        log_warning("the VM is left to the daemon's own cleaning: %s", error_message(e));
    c->shim->pod = NULL;
    pod_free(pod);
    c->owns_pod = false;
    teardown_done(c);
}

/* With the pod go all that are in it. */
static void release_pod(Container *c)
{
    Shim *shim = c->shim;

    for (Container *other = shim->containers; other; other = other->next) {
        other->in_agent = false;
        other->disks_attached = false;
        if (other != c)
            container_lose(other);
    }
    pod_release(shim->pod, on_pod_released, c);
}

static void remove_scratch(Container *c)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    if (!c->scratch_path)
        return;
    r = scratch_remove(c->scratch_path);
    if (r < 0)
        log_warning("cannot remove the scratch disk %s: %s", c->scratch_path, strerrordesc_np(-r));
    record_remove_disk(c->shim->record, c->id);
    if (record_write(c->shim->record, c->shim->spec->bundle, &e) < 0)
        log_debug("%s", error_message(&e));
    free(TAKE_PTR(c->scratch_path));
    TRACE("shim.teardown.scratch-removed");
}

static void finish_host(Container *c)
{
    remove_scratch(c);
    if (c->owns_pod && c->shim->pod)
        release_pod(c);
    else
        teardown_done(c);
}

static void on_detached(_unused_ Pod *pod, const Error *e, void *userdata)
{
    Container *c = userdata;

    if (e)
        log_warning("container %s: its disks stay attached: %s", c->id, error_message(e));
    c->disks_attached = false;
    TRACE("shim.teardown.disks-detached");
    finish_host(c);
}

static void detach(Container *c)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (!c->disks_attached || c->owns_pod || !pod_agent(c->shim->pod)) {
        finish_host(c);
        return;
    }
    if (pod_detach_disks(c->shim->pod, c->id, on_detached, c, &e) < 0)
        on_detached(c->shim->pod, &e, c);
}

static void on_agent_deleted(const TtrpcReply *reply, void *userdata)
{
    Container *c = userdata;

    c->teardown->call = NULL;
    if (reply->code != TTRPC_OK && reply->code != TTRPC_NOT_FOUND)
        log_warning("container %s: the agent cannot delete it: %s", c->id, reply->message);
    c->in_agent = false;
    TRACE("shim.teardown.deleted-in-guest");
    detach(c);
}

static int delete_in_guest(Container *c)
{
    Cloudhv__Agent__V1__ContainerRequest request = CLOUDHV__AGENT__V1__CONTAINER_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "DeleteContainer",
        .request = &request.base,
        .timeout_usec = daemon_link_timeout(c->shim->daemon),
    };
    TtrpcClient *agent = pod_agent(c->shim->pod);

    /* A VM that is about to be destroyed needs no tidying. */
    if (!c->in_agent || c->owns_pod || !agent)
        return -ENOTCONN;
    request.id = c->id;
    return ttrpc_client_call(agent, &spec, on_agent_deleted, c, &c->teardown->call);
}

static void on_teardown(_unused_ LoopSource *source, void *userdata)
{
    Container *c = userdata;

    c->teardown->later = loop_source_free(c->teardown->later);
    if (delete_in_guest(c) < 0)
        detach(c);
}

int container_teardown(Container *c, TeardownFn callback, void *userdata)
{
    Teardown *t;
    int r;

    if (c->teardown)
        return -EALREADY;
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->callback = callback;
    t->userdata = userdata;
    r = loop_add_defer(c->shim->loop, on_teardown, c, &t->later);
    if (r < 0) {
        free(t);
        return r;
    }
    c->teardown = t;
    return 0;
}
