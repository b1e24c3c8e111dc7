/* SPDX-License-Identifier: MIT */

#include "sandbox/clones.h"

#include <errno.h>
#include <string.h>

#include "sandbox/pool.h"

typedef Cloudhv__Daemon__V1__AcquireSandboxRequest AcquireRequest;
typedef Cloudhv__Daemon__V1__TemplateStatus TemplateStatus;

/* A place for hot-plug is left for one interface; a pod with more is booted. */
#define NICS_MAX 1

typedef struct Clones {
    SandboxService *service;
    TemplateStore *templates;
    Pool *pool;
    TemplateStatus *status, **status_pointers; /* of the last answer */
    void (*stopped)(void *userdata);           /* NULL: nobody has asked for the end */
    void *stopped_userdata;
} Clones;

static void say(const Clones *c, int priority, const char *what, const char *message)
{
    if (c->service->log)
        c->service->log(priority, "", what, message, c->service->log_userdata);
}

static void say_templates(int priority, const char *message, void *userdata)
{
    say(userdata, priority, "templates", message);
}

static void say_pool(int priority, const char *message, void *userdata)
{
    say(userdata, priority, "pool", message);
}

static bool is_clone_of(const Sandbox *sandbox, const char *key)
{
    const char *template = sandbox_get_state(sandbox)->template;

    return template && strcmp(template, key) == 0;
}

static bool template_in_use(const char *key, void *userdata)
{
    const Clones *c = userdata;

    for (const Entry *entry = c->service->entries; entry; entry = entry->next)
        if (is_clone_of(entry->sandbox, key))
            return true;
    return c->pool && pool_uses(c->pool, key);
}

static bool pods_wait(void *userdata)
{
    const Clones *c = userdata;

    for (const Entry *entry = c->service->entries; entry; entry = entry->next)
        if (sandbox_get_phase(entry->sandbox) < SANDBOX_READY)
            return true;
    return false;
}

static void check_stopped(void *userdata)
{
    Clones *c = userdata;
    bool busy;

    if (!c->stopped)
        return;
    busy = template_store_stop(c->templates);
    if (!pool_stop(c->pool) && !busy)
        TAKE_PTR(c->stopped)(c->stopped_userdata);
}

static int clones_stop(void *clones, void (*done)(void *userdata), void *userdata)
{
    Clones *c = clones;
    bool busy = template_store_stop(c->templates);

    if (!pool_stop(c->pool) && !busy)
        return 0;
    c->stopped = done;
    c->stopped_userdata = userdata;
    return 1;
}

static void on_template_ready(void *userdata)
{
    Clones *c = userdata;

    pool_fill(c->pool);
    check_stopped(c);
}

static void clones_close(void *clones)
{
    Clones *c = clones;

    pool_free(c->pool);
    template_store_free(c->templates);
    free(c->status);
    free(c->status_pointers);
    free(c);
}

static int clones_open(SandboxService *service, void **ret, Error *e)
{
    Clones *c = calloc(1, sizeof(*c));
    TemplateHooks hooks = {
        .in_use = template_in_use, .ready = on_template_ready, .log = say_templates, .userdata = c};
    PoolHooks pool_hooks = {.is_busy = pods_wait, .gone = check_stopped, .log = say_pool, .userdata = c};
    int r;

    if (!c)
        return error_set_errno(e, -ENOMEM, "cannot use templates");
    c->service = service;
    r = template_store_new(service->loop, service->settings, &hooks, &c->templates, e);
    if (r >= 0)
        r = pool_new(service->loop, service->settings, c->templates, &pool_hooks, &c->pool, e);
    if (r < 0) {
        clones_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

static void on_clone_failed(_unused_ Sandbox *sandbox, const char *key, const Error *e, void *userdata)
{
    const Clones *c = userdata;

    template_store_failed(c->templates, key, e);
}

/* Whether a clone can be what the pod asks for; its size then has a template of its own. */
static bool can_be_clone(const Clones *c, const AcquireRequest *request, TemplateClass *ret)
{
    const Cloudhv__Daemon__V1__Sizing *sizing = request->sizing;

    if (request->n_nics > NICS_MAX || (sizing && sizing->kernel_params[0]))
        return false;
    *ret = (TemplateClass){
        .vcpus = sizing && sizing->vcpus ? sizing->vcpus : c->service->settings->default_vcpus,
        .memory_mb = sizing && sizing->memory_mb ? sizing->memory_mb : c->service->settings->default_memory_mb,
    };
    return true;
}

static int clones_acquire(void *clones, const AcquireRequest *request, const int *tap_fds, size_t n_tap_fds,
                          SandboxPhaseFn callback, void *userdata, Sandbox **ret, Error *e)
{
    Clones *c = clones;
    SandboxCloneFailed failed = {on_clone_failed, c};
    TemplateClass class;
    SandboxOrigin origin;
    int r;

    if (!can_be_clone(c, request, &class) || template_store_get(c->templates, &class, &origin) == 0)
        return 0;
    if (pool_assign(c->pool, origin.key, request, tap_fds, n_tap_fds, failed, callback, userdata, ret) > 0)
        return 1;
    r = sandbox_acquire_clone(c->service->loop, c->service->settings, request, tap_fds, n_tap_fds, &origin,
                              failed, callback, userdata, ret, e);
    return r < 0 ? r : 1;
}

static int clones_adopt(void *clones, SandboxState *state, Error *e)
{
    Clones *c = clones;

    return pool_adopt(c->pool, state, e);
}

static void clones_changed(void *clones)
{
    Clones *c = clones;

    template_store_start(c->templates);
    template_store_collect(c->templates);
    pool_fill(c->pool);
}

static void clones_fill_status(void *clones, Cloudhv__Daemon__V1__StatusResponse *response)
{
    Clones *c = clones;
    size_t n = template_store_count(c->templates);

    response->pool_ready = pool_ready(c->pool);
    response->pool_target = pool_target(c->pool);
    if (template_store_reason(c->templates))
        response->templates_reason = (char *)template_store_reason(c->templates);
    free(c->status);
    free(c->status_pointers);
    c->status = calloc(n + 1, sizeof(*c->status));
    c->status_pointers = calloc(n + 1, sizeof(*c->status_pointers));
    for (size_t i = 0; c->status && c->status_pointers && i < n; i++) {
        TemplateInfo info = template_store_info(c->templates, i);
        TemplateStatus *s = &c->status[i];

        cloudhv__daemon__v1__template_status__init(s);
        s->key = (char *)info.key;
        s->state = (char *)info.state;
        s->vcpus = info.class.vcpus;
        s->memory_mb = info.class.memory_mb;
        s->created_usec = info.created_usec;
        s->bytes = info.bytes;
        for (const Entry *entry = c->service->entries; entry; entry = entry->next)
            s->clones += is_clone_of(entry->sandbox, info.key);
        c->status_pointers[i] = s;
        response->n_templates = i + 1;
    }
    response->templates = c->status_pointers;
}

static const SandboxClones sandbox_clones = {
    .open = clones_open,
    .close = clones_close,
    .stop = clones_stop,
    .acquire = clones_acquire,
    .adopt = clones_adopt,
    .changed = clones_changed,
    .fill_status = clones_fill_status,
    .restore = vmm_restore,
};

int sandbox_service_stop(SandboxService *service, void (*done)(void *userdata), void *userdata)
{
    return service->clones ? service->settings->clones->stop(service->clones, done, userdata) : 0;
}

void sandbox_settings_use_clones(SandboxSettings *settings, const SandboxCloneSettings *clone)
{
    /* Where no VM can be run, none is made in advance either. */
    if (settings->no_vmm_reason || !settings->driver)
        return;
    settings->clones = &sandbox_clones;
    settings->clone = *clone;
}
