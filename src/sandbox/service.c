/* SPDX-License-Identifier: MIT */

#include "sandbox/service.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/trace.h"
#include "sandbox/clones.h"
#include "sandbox/uid.h"

static void entry_free(Entry *entry)
{
    for (Entry **p = &entry->service->entries; *p; p = &(*p)->next)
        if (*p == entry) {
            *p = entry->next;
            break;
        }
    owner_free(entry->owner);
    sandbox_free(entry->sandbox);
    free(entry);
}

static void service_log(Entry *entry, int priority, const char *format, ...) _printf_(3, 4);
static void service_log(Entry *entry, int priority, const char *format, ...)
{
    const SandboxState *state = sandbox_get_state(entry->sandbox);
    _cleanup_free_ char *message = NULL;
    va_list ap;
    int n;

    if (!entry->service->log)
        return;
    va_start(ap, format);
    n = vasprintf(&message, format, ap);
    va_end(ap);
    if (n < 0) {
        message = NULL;
        return;
    }
    entry->service->log(priority, state->namespace, state->sandbox_id, message, entry->service->log_userdata);
}

/* ---------------------------------------------------------------------------------- calls that wait */

int service_wait(Waiter **list, TtrpcCall *call)
{
    Waiter *w = malloc(sizeof(*w));

    if (!w)
        return -ENOMEM;
    *w = (Waiter){.call = call, .next = *list};
    *list = w;
    return 0;
}

static TtrpcCall *waiter_take(Waiter **list)
{
    Waiter *w = *list;
    TtrpcCall *call;

    if (!w)
        return NULL;
    call = w->call;
    *list = w->next;
    free(w);
    return call;
}

/* What an operator should know of the VMM, once: all VMs have the same. */
static void warn_of_vmm(Entry *entry)
{
    Vmm *vmm = sandbox_get_vmm(entry->sandbox);
    const char *warning = vmm ? vmm_warning(vmm) : NULL;

    if (!warning || entry->service->warned)
        return;
    entry->service->warned = true;
    service_log(entry, LOG_WARNING, "%s", warning);
}

static void answer_all_acquired(Entry *entry)
{
    TtrpcCall *call;
    bool existed = false;

    warn_of_vmm(entry);
    /* The last in the list is the one that made it. */
    while ((call = waiter_take(&entry->acquiring))) {
        existed = entry->acquiring != NULL;
        service_answer_acquire(entry, call, existed);
    }
}

static void answer_all_gone(Entry *entry, const Error *e)
{
    TtrpcCall *call;

    while ((call = waiter_take(&entry->acquiring)))
        if (e)
            ttrpc_call_fail_error(call, e);
        else
            ttrpc_call_fail(call, TTRPC_ABORTED, "the sandbox was released before its VM was ready");
    while ((call = waiter_take(&entry->releasing))) {
        Cloudhv__Daemon__V1__ReleaseSandboxResponse response =
            CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_RESPONSE__INIT;

        response.existed = true;
        ttrpc_call_reply(call, &response.base);
    }
}

/* ------------------------------------------------------------------------------- what sandboxes do */

static void on_owner(Owner *owner, OwnerEvent event, void *userdata)
{
    Entry *entry = userdata;

    if (event == OWNER_SHIM_ENDED && sandbox_get_phase(entry->sandbox) == SANDBOX_RUNNING) {
        service_log(entry, LOG_NOTICE, "the pod's shim has ended; the VM runs on until containerd cleans up");
        return;
    }
    entry->owner = owner_free(entry->owner);
    service_log(entry, LOG_NOTICE, "the pod's shim has ended and its bundle is gone: releasing the sandbox");
    sandbox_release(entry->sandbox);
}

static void clones_changed(SandboxService *service)
{
    if (service->clones)
        service->settings->clones->changed(service->clones);
}

static void on_phase(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata)
{
    Entry *entry = userdata;
    SandboxService *service;
    SandboxTimes times;

    service_notify(entry);
    switch (phase) {
    case SANDBOX_RUNNING:
        times = sandbox_get_times(sandbox);
        if (times.identity > 0)
            service_log(entry, LOG_DEBUG,
                        "VM ready: VMM after %llu ms, agent after %llu ms, identity after %llu ms",
                        (unsigned long long)times.vmm / 1000, (unsigned long long)times.agent / 1000,
                        (unsigned long long)times.identity / 1000);
        else
            service_log(entry, LOG_INFO, "took over the running VM%s%s", e ? ", but: " : "",
                        e ? error_message(e) : "");
        answer_all_acquired(entry);
        clones_changed(entry->service);
        break;
    case SANDBOX_ENDED:
        service_log(entry, LOG_ERR, "the pod's VM has ended: %s", error_message(e));
        break;
    case SANDBOX_GONE:
        if (e)
            service_log(entry, LOG_ERR, "the pod got no VM: %s", error_message(e));
        answer_all_gone(entry, e);
        service = entry->service;
        entry_free(entry);
        clones_changed(service);
        break;
    default:
        break;
    }
}

Entry *service_find(SandboxService *service, const char *namespace, const char *sandbox_id)
{
    char key[SANDBOX_KEY_SIZE];

    sandbox_key(namespace, sandbox_id, key);
    for (Entry *entry = service->entries; entry; entry = entry->next)
        if (strcmp(sandbox_get_key(entry->sandbox), key) == 0)
            return entry;
    return NULL;
}

static Entry *entry_new(SandboxService *service)
{
    Entry *entry = calloc(1, sizeof(*entry));

    if (entry)
        *entry = (Entry){.service = service};
    return entry;
}

static void entry_add(Entry *entry)
{
    entry->next = entry->service->entries;
    entry->service->entries = entry;
}

static int entry_watch_owner(Entry *entry, Error *e)
{
    const SandboxState *state = sandbox_get_state(entry->sandbox);

    if (state->shim_pid == 0)
        return 0;
    return owner_new(entry->service->loop, (pid_t)state->shim_pid, state->shim_start_time,
                     state->bundle ?: "", on_owner, entry, &entry->owner, e);
}

int service_start(SandboxService *service, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                  const int *tap_fds, size_t n_tap_fds, Entry **ret, Error *e)
{
    Entry *entry = entry_new(service);
    int r = 0;

    if (!entry)
        return error_set_errno(e, -ENOMEM, "cannot make a sandbox");
    if (service->clones)
        r = service->settings->clones->acquire(service->clones, request, tap_fds, n_tap_fds, on_phase, entry,
                                               &entry->sandbox, e);
    if (r == 0)
        r = sandbox_acquire(service->loop, service->settings, request, tap_fds, n_tap_fds, on_phase, entry,
                            &entry->sandbox, e);
    if (r < 0) {
        free(entry);
        return r;
    }
    entry_add(entry);
    r = entry_watch_owner(entry, e);
    if (r < 0) {
        sandbox_release(entry->sandbox);
        return r;
    }
    *ret = entry;
    return 0;
}

/* ------------------------------------------------------------------------------- after a restart */

/* A directory that another sandbox's state still names was about to be given to this one. */
static bool has_other_owner(SandboxService *service, const SandboxState *state)
{
    _cleanup_free_ char *other = state->vm ? state_file_path(service->settings->state_dir, state->vm) : NULL;

    return other && access(other, F_OK) >= 0;
}

static void remove_leftover(SandboxService *service, const char *key, const SandboxState *state)
{
    _cleanup_free_ char *directory = NULL, *file = state_file_path(service->settings->state_dir, key);
    uid_t uid = state->uid;

    directory = sandbox_state_vm_directory(service->settings->state_dir, key, state);
    if (!directory || !file)
        return;
    if (uid != 0 || uid_find(file, &uid) > 0) {
        (void)uid_kill(uid, file, 5 * USEC_PER_SEC);
        uid_give(uid, file);
    }
    if (!has_other_owner(service, state))
        (void)fs_remove_tree(directory);
    (void)unlink(file);
}

/* A VM that belongs to no pod. */
static void adopt_idle(SandboxService *service, const char *key, SandboxState *state)
{
    _cleanup_error_ Error e = ERROR_INIT;

    if (service->clones && service->settings->clones->adopt(service->clones, state, &e) >= 0)
        return;
    remove_leftover(service, key, state);
}

static void adopt_one(SandboxService *service, const char *key)
{
    _cleanup_sandbox_state_ SandboxState state = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    Entry *entry;
    int r;

    r = sandbox_state_read(service->settings->state_dir, key, &state, &e);
    if (r < 0) {
        /* Of an unreadable state nothing is known but, by its name, the uid. */
        if (service->log)
            service->log(LOG_WARNING, "", key, error_message(&e), service->log_userdata);
        /* One that another version of this program wrote has a pod that goes on, and is left to that version. */
        if (r != -EPROTO)
            remove_leftover(service, key, &state);
        return;
    }
    if (state.purpose) {
        adopt_idle(service, key, &state);
        return;
    }
    entry = entry_new(service);
    if (!entry)
        return;
    r = sandbox_adopt(service->loop, service->settings, &state, on_phase, entry, &entry->sandbox, &e);
    if (r < 0) {
        if (service->log)
            service->log(LOG_NOTICE, state.namespace, state.sandbox_id, error_message(&e),
                         service->log_userdata);
        remove_leftover(service, key, &state);
        free(entry);
        return;
    }
    entry_add(entry);
    if (entry_watch_owner(entry, &e) < 0)
        service_log(entry, LOG_WARNING, "%s", error_message(&e));
}

/* Takes over the sandbox that is the only one we own, if it is there. */
static void adopt_only(SandboxService *service)
{
    _cleanup_free_ char *file = NULL;
    char key[SANDBOX_KEY_SIZE];

    sandbox_key(service->settings->only_namespace, service->settings->only_sandbox_id, key);
    file = state_file_path(service->settings->state_dir, key);
    if (file && access(file, F_OK) >= 0)
        adopt_one(service, key);
}

static int adopt_all(SandboxService *service, Error *e)
{
    _cleanup_free_ char *path = fs_join(service->settings->state_dir, "sandboxes");
    _cleanup_closedir_ DIR *dir = path ? opendir(path) : NULL;
    struct dirent *de;
    int r;

    if (!dir)
        return error_set_errno(e, path ? -errno : -ENOMEM, "cannot read the states of sandboxes in %s",
                               service->settings->state_dir);
    while ((de = readdir(dir))) {
        char key[SANDBOX_KEY_SIZE];

        /* KEY.json; anything else is a temporary file that a write left. */
        if (strlen(de->d_name) != SANDBOX_KEY_SIZE - 1 + 5 ||
            strcmp(de->d_name + SANDBOX_KEY_SIZE - 1, ".json") != 0) {
            if (de->d_name[0] != '.')
                (void)unlinkat(dirfd(dir), de->d_name, 0);
            continue;
        }
        memcpy(key, de->d_name, SANDBOX_KEY_SIZE - 1);
        key[SANDBOX_KEY_SIZE - 1] = 0;
        adopt_one(service, key);
    }
    r = uid_reclaim(service->settings->state_dir);
    return r < 0 ? error_set_errno(e, r, "cannot give back the uids of VMs that are gone") : 0;
}

/* --------------------------------------------------------------------------------------- object */

int sandbox_service_new(Loop *loop, const SandboxSettings *settings, SandboxLogFn log, void *userdata,
                        SandboxService **ret, Error *e)
{
    SandboxService *service;
    int r;

    r = state_prepare_directory(settings->state_dir, e);
    if (r < 0)
        return r;
    service = calloc(1, sizeof(*service));
    if (!service)
        return error_set_errno(e, -ENOMEM, "cannot make the sandbox service");
    *service = (SandboxService){.loop = loop, .settings = settings, .log = log, .log_userdata = userdata};
    if (settings->clones)
        r = settings->clones->open(service, &service->clones, e);
    if (settings->only_sandbox_id)
        adopt_only(service);
    else if (r >= 0)
        r = adopt_all(service, e);
    if (r >= 0)
        clones_changed(service);
    if (r < 0) {
        sandbox_service_free(service);
        return r;
    }
    *ret = service;
    return 0;
}

SandboxService *sandbox_service_free(SandboxService *service)
{
    if (!service)
        return NULL;
    while (service->entries) {
        Entry *entry = service->entries;
        TtrpcCall *call;

        while ((call = waiter_take(&entry->acquiring)) || (call = waiter_take(&entry->releasing)))
            ttrpc_call_fail(call, TTRPC_UNAVAILABLE, "the sandbox service is ending");
        entry_free(entry);
    }
    if (service->clones)
        service->settings->clones->close(service->clones);
    while (service->watching)
        ttrpc_call_fail(waiter_take(&service->watching), TTRPC_UNAVAILABLE, "the sandbox service is ending");
    free(service);
    return NULL;
}

size_t sandbox_service_count(const SandboxService *service)
{
    size_t n = 0;

    for (const Entry *entry = service->entries; entry; entry = entry->next)
        n++;
    return n;
}
