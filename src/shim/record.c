/* SPDX-License-Identifier: MIT */

#include "shim/record.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"

enum {
    RECORD_VERSION = 1,
    RECORD_SIZE_MAX = 1024 * 1024,
};

Record *record_free(Record *r)
{
    if (!r)
        return NULL;
    for (size_t i = 0; i < r->n_disks; i++) {
        free(r->disks[i].container);
        free(r->disks[i].path);
    }
    free(r->disks);
    free(r->socket);
    free(r->daemon_socket);
    free(r->state_dir);
    free(r->netns);
    free(r);
    return NULL;
}

int record_add_disk(Record *r, const char *container, const char *path)
{
    RecordDisk *disks = reallocarray(r->disks, r->n_disks + 1, sizeof(*disks));
    RecordDisk disk = {.container = strdup(container), .path = strdup(path)};

    if (disks)
        r->disks = disks;
    if (!disks || !disk.container || !disk.path) {
        free(disk.container);
        free(disk.path);
        return -ENOMEM;
    }
    r->disks[r->n_disks++] = disk;
    return 0;
}

void record_remove_disk(Record *r, const char *container)
{
    for (size_t i = 0; i < r->n_disks; i++) {
        if (strcmp(r->disks[i].container, container) != 0)
            continue;
        free(r->disks[i].container);
        free(r->disks[i].path);
        r->disks[i] = r->disks[--r->n_disks];
        return;
    }
}

static json_t *disks_to_json(const Record *r)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < r->n_disks; i++) {
        json_t *disk = json_pack("{s:s, s:s}", "container", r->disks[i].container, "path", r->disks[i].path);

        if (json_array_append_new(array, disk) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

int record_write(const Record *r, const char *bundle, Error *e)
{
    _cleanup_free_ char *path = fs_join(bundle, RECORD_FILE), *text = NULL;
    _cleanup_json_ json_t *object = NULL;
    int k;

    object = json_pack("{s:i, s:s, s:s, s:s, s:s*, s:I, s:I, s:o}", "version", RECORD_VERSION, "socket",
                       r->socket ?: "", "daemon_socket", r->daemon_socket ?: "", "state_dir", r->state_dir ?: "",
                       "netns", r->netns, "pid", (json_int_t)r->pid, "start_time", (json_int_t)r->start_time,
                       "disks", disks_to_json(r));
    if (object)
        text = json_dumps(object, JSON_COMPACT);
    if (!path || !text)
        return error_set_errno(e, -ENOMEM, "cannot write " RECORD_FILE);
    k = fs_write_file_atomic(path, text, strlen(text), 0600);
    return k < 0 ? error_set_errno(e, k, "cannot write %s", path) : 0;
}

static int take_string(json_t *object, const char *key, const char *what, char **ret, Error *e)
{
    const char *text = NULL;
    int k = json_get_string(object, key, what, &text, e);

    if (k <= 0)
        return k;
    *ret = strdup(text);
    return *ret ? 0 : error_set_errno(e, -ENOMEM, "cannot read %s", what);
}

static int take_disks(json_t *object, const char *what, Record *r, Error *e)
{
    json_t *array = NULL, *disk;
    size_t i;
    int k = json_get_array(object, "disks", what, &array, e);

    if (k <= 0)
        return k;
    json_array_foreach(array, i, disk)
    {
        const char *container = NULL, *path = NULL;

        k = json_get_string(disk, "container", what, &container, e);
        if (k >= 0)
            k = json_get_string(disk, "path", what, &path, e);
        if (k < 0)
            return k;
        if (!container || !path || path[0] != '/')
            return error_set(e, -EBADMSG, "%s: a disk without container or path", what);
        k = record_add_disk(r, container, path);
        if (k < 0)
            return error_set_errno(e, k, "cannot read %s", what);
    }
    return 0;
}

/* Keys that a later release may add are not looked at. */
static int take(json_t *object, const char *what, Record *r, Error *e)
{
    uint64_t version = 0, pid = 0;
    int k;

    k = json_get_uint(object, "version", what, 1, INT_MAX, &version, e);
    if (k == 0)
        return error_set(e, -EBADMSG, "%s: no record of a shim, which has a version", what);
    if (k >= 0)
        k = json_get_uint(object, "pid", what, 0, INT_MAX, &pid, e);
    if (k >= 0)
        k = json_get_uint(object, "start_time", what, 0, INT64_MAX, &r->start_time, e);
    if (k >= 0)
        k = take_string(object, "socket", what, &r->socket, e);
    if (k >= 0)
        k = take_string(object, "daemon_socket", what, &r->daemon_socket, e);
    if (k >= 0)
        k = take_string(object, "state_dir", what, &r->state_dir, e);
    if (k >= 0)
        k = take_string(object, "netns", what, &r->netns, e);
    if (k >= 0)
        k = take_disks(object, what, r, e);
    r->pid = (pid_t)pid;
    return k < 0 ? k : 0;
}

int record_read(const char *bundle, Record **ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(bundle, RECORD_FILE);
    _cleanup_json_ json_t *object = NULL;
    _cleanup_record_ Record *r = calloc(1, sizeof(*r));
    int k;

    if (!path || !r)
        return error_set_errno(e, -ENOMEM, "cannot read " RECORD_FILE);
    k = json_read_file(path, RECORD_SIZE_MAX, &object, e);
    if (k < 0)
        return k;
    k = take(object, path, r, e);
    if (k < 0)
        return k;
    *ret = TAKE_PTR(r);
    return 0;
}
