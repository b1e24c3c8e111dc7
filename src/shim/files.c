/* SPDX-License-Identifier: MIT */

#include "shim/files.h"

#include <errno.h>

#include "agent.pb-c.h"

typedef Cloudhv__Agent__V1__FileEntry FileEntry;

enum {
    MESSAGE_MAX = 512 * 1024, /* bytes of contents in one message */
    ENTRIES_MAX = 256,        /* in one message */
};

struct FilesSender {
    TtrpcClient *agent;
    const char *container_id;
    const OciPlan *plan;
    uint64_t timeout_usec;
    FilesFn callback;
    void *userdata;
    TtrpcPending *call;
    LoopSource *later;
    size_t tree, entry, offset; /* what comes next */
};

static Cloudhv__Agent__V1__FileEntry__Type entry_type(FileTreeType type)
{
    switch (type) {
    case FILE_TREE_DIRECTORY:
        return CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__DIRECTORY;
    case FILE_TREE_SYMLINK:
        return CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__SYMLINK;
    default:
        return CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__REGULAR;
    }
}

static void fill_entry(FileEntry *to, const FileTreeEntry *from, size_t offset, size_t n)
{
    cloudhv__agent__v1__file_entry__init(to);
    to->path = from->path;
    to->type = entry_type(from->type);
    to->mode = from->mode;
    to->uid = from->uid;
    to->gid = from->gid;
    to->mtime_sec = from->mtime_sec;
    to->offset = offset;
    to->data.data = (uint8_t *)from->data + offset;
    to->data.len = n;
}

static void finish(FilesSender *s, const Error *e)
{
    s->callback(s, e, s->userdata);
}

static int send_next(FilesSender *s, Error *e);

static void on_sent(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    FilesSender *s = userdata;

    s->call = NULL;
    if (ttrpc_reply_error(reply, "the agent does not take the container's files", &e) < 0 || send_next(s, &e) < 0)
        finish(s, &e);
    else if (!s->call)
        finish(s, NULL);
}

/* Collects entries of one tree up to the limits and sends them. Without any left it leaves `call` NULL. */
static int send_next(FilesSender *s, Error *e)
{
    Cloudhv__Agent__V1__AddFilesRequest request = CLOUDHV__AGENT__V1__ADD_FILES_REQUEST__INIT;
    FileEntry entries[ENTRIES_MAX], *pointers[ENTRIES_MAX];
    size_t n = 0, bytes = 0;
    const OciTree *tree;
    int r;

    while (s->tree < s->plan->n_trees && s->entry >= s->plan->trees[s->tree].files->n_entries) {
        s->tree++;
        s->entry = 0;
    }
    if (s->tree >= s->plan->n_trees)
        return 0;
    tree = &s->plan->trees[s->tree];
    while (s->entry < tree->files->n_entries && n < ENTRIES_MAX && bytes < MESSAGE_MAX) {
        const FileTreeEntry *from = &tree->files->entries[s->entry];
        size_t left = from->size - s->offset, piece = left < MESSAGE_MAX - bytes ? left : MESSAGE_MAX - bytes;

        fill_entry(&entries[n], from, s->offset, piece);
        pointers[n] = &entries[n];
        n++;
        bytes += piece;
        s->offset += piece;
        if (s->offset >= from->size) {
            s->entry++;
            s->offset = 0;
        }
    }
    request.tree = tree->name;
    request.container_id = (char *)s->container_id;
    request.entries = pointers;
    request.n_entries = n;
    TtrpcCallSpec spec = {
        .service = &cloudhv__agent__v1__task__descriptor,
        .method = "AddFiles",
        .request = &request.base,
        .timeout_usec = s->timeout_usec,
    };
    r = ttrpc_client_call(s->agent, &spec, on_sent, s, &s->call);
    return r < 0 ? error_set_errno(e, r, "cannot send the container's files") : 0;
}

static void on_nothing_to_send(_unused_ LoopSource *source, void *userdata)
{
    FilesSender *s = userdata;

    s->later = loop_source_free(s->later);
    finish(s, NULL);
}

int files_send(Loop *loop, TtrpcClient *agent, const char *container_id, const OciPlan *plan, uint64_t timeout_usec,
               FilesFn callback, void *userdata, FilesSender **ret, Error *e)
{
    FilesSender *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set_errno(e, -ENOMEM, "cannot send the container's files");
    s->agent = agent;
    s->container_id = container_id;
    s->plan = plan;
    s->timeout_usec = timeout_usec;
    s->callback = callback;
    s->userdata = userdata;
    r = send_next(s, e);
    if (r >= 0 && !s->call) {
        r = loop_add_defer(loop, on_nothing_to_send, s, &s->later);
        if (r < 0)
            error_set_errno(e, r, "cannot send the container's files");
    }
    if (r < 0) {
        files_sender_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

FilesSender *files_sender_free(FilesSender *s)
{
    if (!s)
        return NULL;
    if (s->call)
        ttrpc_pending_cancel(s->call);
    loop_source_free(s->later);
    free(s);
    return NULL;
}
