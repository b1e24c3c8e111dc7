/* SPDX-License-Identifier: MIT */

/* Templates and clones by way of QEMU's migration to and from a file. The guest's memory is not in it
 * (x-ignore-shared): a template's is a file already, which a clone maps privately. QEMU gets the file of the
 * state as a descriptor set, so that it needs no path and no permission.
 *
 * QEMU reports each change of a migration's state as an event; nothing is polled. */

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/process.h"
#include "vmm/qemu-args.h"
#include "vmm/qemu.h"

#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)
#define STATE_URI "file:/dev/fdset/" STRINGIFY(QEMU_FDSET_STATE)

static json_t *capabilities(void)
{
    return json_pack("{s:[{s:s, s:b}, {s:s, s:b}]}", "capabilities", "capability", "x-ignore-shared", "state",
                     1, "capability", "events", "state", 1);
}

static int call(Qemu *q, const char *command, json_t *arguments, int fd, QmpAnswerFn on_answer, Error *e)
{
    int r = arguments ? qmp_client_call(q->qmp, command, arguments, fd, UINT64_MAX, on_answer, q) : -ENOMEM;

    return r < 0 ? error_set_errno(e, r, "cannot send %s to QEMU", command) : 0;
}

/* Saving */

static void save_failed_with(Qemu *q, const Error *e)
{
    q->migration = MIGRATION_NONE;
    qemu_template_remove_state(q->template_);
    /* Should the caller try again, another descriptor is to take its place. That nobody hears of it does no
     * harm: it goes with QEMU. */
    (void)qmp_client_call(q->qmp, "remove-fd", json_pack("{s:i}", "fdset-id", QEMU_FDSET_STATE), -EBADF,
                          UINT64_MAX, NULL, NULL);
    qemu_finish(q->save_op, e);
}

static void on_save_started(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    /* The event that it has failed may have been first. */
    if (e && q->migration == MIGRATION_SAVE_RUNNING)
        save_failed_with(q, e);
}

/* All that precedes the migration is on its way at once; the answer of the last is waited for. */
static void on_save_status(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error wrong = ERROR_INIT;
    const char *status = NULL;
    Qemu *q = userdata;
    int r = 0;

    if (q->migration != MIGRATION_SAVE_PREPARING)
        return;
    if (!e) {
        r = json_get_string(value, "status", "query-status", &status, &wrong);
        if (r >= 0 && (!status || strcmp(status, "paused") != 0))
            r = error_set(&wrong, -EINVAL, "it is not paused, but \"%.64s\"", status ?: "unknown");
        if (r >= 0 && !q->save_op)
            r = error_set(&wrong, -ECANCELED, "nobody waits for the template any more");
        if (r >= 0) {
            q->migration = MIGRATION_SAVE_RUNNING;
            r = call(q, "migrate", json_pack("{s:s}", "uri", STATE_URI), -EBADF, on_save_started, &wrong);
        }
    }
    if (e || r < 0)
        save_failed_with(q, e ?: &wrong);
}

static void on_save_prepared(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    if (e && q->migration == MIGRATION_SAVE_PREPARING)
        save_failed_with(q, e);
}

static int save_prepare(Qemu *q, int state_fd, Error *e)
{
    int r;

    r = call(q, "add-fd", json_pack("{s:i, s:s}", "fdset-id", QEMU_FDSET_STATE, "opaque", "state"), state_fd,
             on_save_prepared, e);
    if (r >= 0)
        r = call(q, "migrate-set-capabilities", capabilities(), -EBADF, on_save_prepared, e);
    if (r >= 0)
        r = call(q, "query-status", json_object(), -EBADF, on_save_status, e);
    return r;
}

static int snapshot(Vmm *vmm, const char *directory, VmmOp *op, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    Qemu *q = qemu_of(vmm);
    int r;

    if (!q->template_)
        return error_set(e, -EINVAL, "the VM was not started as one that becomes a template");
    if (strcmp(qemu_template_directory(q->template_), directory) != 0)
        return error_set(e, -EINVAL, "its memory is in %s, not in %s",
                         qemu_template_directory(q->template_), directory);
    if (q->migration != MIGRATION_NONE || q->state_changing)
        return error_set(e, -EBUSY, "it is just being saved, paused or resumed");
    if (!qemu_slots_are_free(q))
        return error_set(e, -EBUSY, "it has hot-plugged devices, which a template must not have");
    r = qemu_template_create_state(q->template_, &fd, e);
    if (r < 0)
        return r;
    q->migration = MIGRATION_SAVE_PREPARING;
    r = save_prepare(q, fd, e);
    if (r < 0) {
        q->migration = MIGRATION_NONE;
        qemu_template_remove_state(q->template_);
        return r;
    }
    vmm_op_keep(op, &q->save_op);
    return 0;
}

/* A paused VM still writes to its memory when somebody connects to a port of it, or disconnects: it tells the
 * guest. In a template that is saved, the state would not fit the memory any more. So the process is stopped,
 * and does not run again before it is killed. */
static void save_completed(Qemu *q)
{
    _cleanup_error_ Error e = ERROR_INIT;
    int r = 0;

    if (!q->save_op)
        r = error_set(&e, -ECANCELED, "nobody waits for the template any more");
    if (r >= 0) {
        r = process_kill(q->vmm.pidfd, SIGSTOP);
        if (r < 0)
            (void)error_set_errno(&e, r, "cannot stop QEMU");
    }
    if (r >= 0)
        r = qemu_template_complete(q->template_,
                                   &(const QemuTemplateOrigin){.qemu_version = (char *)qmp_client_version(q->qmp),
                                                               .used_slots = qemu_slots_used(q)},
                                   &e);
    if (r < 0) {
        save_failed_with(q, &e);
        return;
    }
    q->migration = MIGRATION_SAVED;
    qemu_finish(q->save_op, NULL);
}

static void on_save_reason(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error failed = ERROR_INIT;
    const char *reason = NULL;
    Qemu *q = userdata;

    if (!e)
        (void)json_get_string(value, "error-desc", "query-migrate", &reason, NULL);
    (void)error_set(&failed, -EIO, "QEMU could not write its state: %.512s",
                    reason ?: e ? error_message(e) : "it does not say why");
    save_failed_with(q, &failed);
}

static void save_failed(Qemu *q)
{
    _cleanup_error_ Error e = ERROR_INIT;

    q->migration = MIGRATION_SAVE_FAILED;
    if (call(q, "query-migrate", json_object(), -EBADF, on_save_reason, &e) < 0)
        save_failed_with(q, &e);
}

/* Starting from one */

static void on_resumed(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    q->migration = MIGRATION_NONE;
    if (!e)
        vmm_booted(&q->vmm);
    else if (e->number != -ECONNRESET)
        vmm_boot_failed(&q->vmm, e);
}

static void load_completed(Qemu *q)
{
    _cleanup_error_ Error e = ERROR_INIT;

    q->migration = MIGRATION_LOAD_RESUMING;
    if (call(q, "cont", json_object(), -EBADF, on_resumed, &e) < 0)
        vmm_boot_failed(&q->vmm, &e);
}

/* A lost connection is the end of QEMU, which says why. */
static void on_load_started(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    Qemu *q = userdata;

    if (e && e->number != -ECONNRESET)
        vmm_boot_failed(&q->vmm, e);
}

static void on_load_prepared(QmpClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error wrong = ERROR_INIT;
    Qemu *q = userdata;
    int r;

    if (e && e->number == -ECONNRESET)
        return;
    if (e) {
        vmm_boot_failed(&q->vmm, e);
        return;
    }
    if (strcmp(qmp_client_version(q->qmp), q->origin.qemu_version) != 0) {
        (void)error_set(&wrong, -ESTALE, "the template was made by QEMU %s, and this is %s",
                        q->origin.qemu_version, qmp_client_version(q->qmp));
        vmm_boot_failed(&q->vmm, &wrong);
        return;
    }
    q->migration = MIGRATION_LOAD_RUNNING;
    r = call(q, "migrate-incoming", json_pack("{s:s}", "uri", STATE_URI), -EBADF, on_load_started, &wrong);
    if (r < 0)
        vmm_boot_failed(&q->vmm, &wrong);
}

static int load(Qemu *q, Error *e)
{
    q->migration = MIGRATION_LOAD_PREPARING;
    return call(q, "migrate-set-capabilities", capabilities(), -EBADF, on_load_prepared, e);
}

static void on_event(Qemu *q, json_t *data)
{
    const char *status = NULL;
    bool completed;

    if (json_get_string(data, "status", "MIGRATION", &status, NULL) <= 0)
        return;
    completed = strcmp(status, "completed") == 0;
    if (q->migration == MIGRATION_SAVE_RUNNING && completed)
        save_completed(q);
    else if (q->migration == MIGRATION_SAVE_RUNNING && strcmp(status, "failed") == 0)
        save_failed(q);
    else if (q->migration == MIGRATION_LOAD_RUNNING && completed)
        load_completed(q);
    /* A QEMU that cannot load its state says why and ends, which is reported then. */
}

static int prepare(Qemu *q, const VmmSpec *spec, const char *from, int *ret_state_fd, Error *e)
{
    int r;

    if (!from)
        return qemu_template_new(spec, q->n_slots, &q->template_, e);
    r = qemu_template_open(from, spec, q->n_slots, ret_state_fd, &q->origin, e);
    if (r >= 0)
        qemu_slots_rest(q, q->origin.used_slots);
    return r;
}

static void clear(Qemu *q)
{
    qemu_template_free(q->template_);
    free(q->origin.qemu_version);
}

const QemuTemplateOps qemu_template_ops_all = {
    .probe = qemu_probe,
    .prepare = prepare,
    .load = load,
    .snapshot = snapshot,
    .on_event = on_event,
    .clear = clear,
};
