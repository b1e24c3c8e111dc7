/* SPDX-License-Identifier: MIT */

#include "sandbox/pool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/fs.h"
#include "base/procfs.h"
#include "base/trace.h"

/* Clones that start at a time. */
#define STARTING_MAX 2
/* Share of the last ten seconds in which some task waited for memory (PSI, "some avg10"), above which the
 * host has other things to do than to start VMs that nobody has asked for. */
#define PRESSURE_MAX 10.0
/* When to look again, and how long a failure holds the filling back, doubled with each more. */
#define HELD_USEC (5 * USEC_PER_SEC)
#define RETRY_USEC (2 * USEC_PER_SEC)
#define RETRY_DOUBLINGS_MAX 5

typedef struct PoolVm PoolVm;
struct PoolVm {
    Pool *pool;
    PoolVm *next;
    Sandbox *sandbox;
};

struct Pool {
    Loop *loop;
    const SandboxSettings *settings;
    TemplateStore *templates;
    PoolVm *vms;
    unsigned target;
    unsigned failures; /* in a row */
    bool held;         /* said so already */
    bool stopped;
    LoopSource *defer, *again, *idle;
    PoolHooks hooks;
};

TemplateClass pool_class(const Pool *p)
{
    return (TemplateClass){.vcpus = p->settings->clone.pool_vcpus, .memory_mb = p->settings->default_memory_mb};
}

static unsigned count(const Pool *p, bool ready)
{
    unsigned n = 0;

    for (const PoolVm *vm = p->vms; vm; vm = vm->next) {
        SandboxPhase phase = sandbox_get_phase(vm->sandbox);

        n += ready ? phase == SANDBOX_READY : phase < SANDBOX_READY;
    }
    return n;
}

unsigned pool_ready(const Pool *p)
{
    return count(p, true);
}

unsigned pool_target(const Pool *p)
{
    /* Without templates there is none: VMs are not booted for nobody. */
    return template_store_reason(p->templates) ? 0 : p->target;
}

bool pool_uses(const Pool *p, const char *key)
{
    for (const PoolVm *vm = p->vms; vm; vm = vm->next) {
        const char *template = sandbox_get_state(vm->sandbox)->template;

        if (template && strcmp(template, key) == 0)
            return true;
    }
    return false;
}

static void vm_unlink(PoolVm *vm)
{
    for (PoolVm **link = &vm->pool->vms; *link; link = &(*link)->next)
        if (*link == vm) {
            *link = vm->next;
            break;
        }
    free(vm);
}

/* --------------------------------------------------------------------------------------------- holding back */

/* What the host says against more VMs, or NULL; the caller frees it. */
static char *objection(const Pool *p)
{
    static const char *const keys[] = {"MemAvailable"};
    const char *proc = p->settings->clone.proc ?: "/proc";
    _cleanup_free_ char *meminfo = string_printf("%s/meminfo", proc), *text = NULL, *psi = NULL;
    uint64_t available_kib;
    double share;

    psi = string_printf("%s/pressure/memory", proc);
    if (!meminfo || !psi)
        return strdup("there is no memory left");
    if (procfs_read(meminfo, keys, 1, &available_kib) >= 0 &&
        available_kib / 1024 < p->settings->clone.pool_reserve_mb)
        return string_printf("%llu MiB of memory are available, less than the %llu of pool_reserve_mb",
                             (unsigned long long)available_kib / 1024,
                             (unsigned long long)p->settings->clone.pool_reserve_mb);
    /* Kernels without PSI have no such file. */
    if (fs_read_file(psi, 4096, &text, NULL) >= 0 && sscanf(text, "some avg10=%lf", &share) == 1 &&
        share > PRESSURE_MAX)
        return string_printf("tasks wait for memory %.0f %% of the time (PSI)", share);
    return NULL;
}

static void on_again(_unused_ LoopSource *source, void *userdata)
{
    pool_fill(userdata);
}

/* Only as long as something holds it back is there a timer. */
static void fill_again(Pool *p, uint64_t usec)
{
    if (p->again)
        (void)loop_source_set_timer(p->again, usec);
    else
        (void)loop_add_timer(p->loop, usec, on_again, p, &p->again);
}

static bool is_held_back(Pool *p)
{
    _cleanup_free_ char *why = objection(p), *message = NULL;

    if (why && !p->held) {
        message = string_printf("the pool is not filled for now: %s", why);
        if (message)
            p->hooks.log(LOG_NOTICE, message, p->hooks.userdata);
    }
    p->held = why;
    if (why)
        fill_again(p, HELD_USEC);
    return why;
}

/* --------------------------------------------------------------------------------------------------- VMs */

static void vm_failed(Pool *p, const Error *e)
{
    _cleanup_free_ char *message = NULL;
    unsigned n = p->failures < RETRY_DOUBLINGS_MAX ? p->failures : RETRY_DOUBLINGS_MAX;

    if (p->failures++ == 0) {
        message = string_printf("a VM of the pool is lost: %s", error_message(e));
        if (message)
            p->hooks.log(LOG_WARNING, message, p->hooks.userdata);
    }
    fill_again(p, RETRY_USEC << n);
}

static void on_phase(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata)
{
    const SandboxState *state = sandbox_get_state(sandbox);
    PoolVm *vm = userdata;
    Pool *p = vm->pool;

    switch (phase) {
    case SANDBOX_READY:
        TRACE("daemon.pool.ready");
        p->failures = 0;
        template_store_worked(p->templates, state->template);
        pool_fill(p);
        break;
    case SANDBOX_ENDED: /* while it was being taken over */
        vm_failed(p, e);
        sandbox_release(sandbox);
        break;
    case SANDBOX_GONE:
        if (e) {
            /* One that was ready shows that its template is sound. */
            if (state->template && !state->kernel_release)
                template_store_failed(p->templates, state->template, e);
            vm_failed(p, e);
        }
        sandbox_free(sandbox);
        vm_unlink(vm);
        template_store_collect(p->templates);
        p->hooks.gone(p->hooks.userdata);
        break;
    default:
        break;
    }
}

static PoolVm *vm_new(Pool *p)
{
    PoolVm *vm = calloc(1, sizeof(*vm));

    if (vm)
        *vm = (PoolVm){.pool = p};
    return vm;
}

static int start_one(Pool *p, const SandboxOrigin *origin, Error *e)
{
    TemplateClass class = pool_class(p);
    SandboxIdle idle = {
        .purpose = "pool", .vcpus = class.vcpus, .memory_mb = class.memory_mb, .origin = origin};
    PoolVm *vm = vm_new(p);
    int r;

    if (!vm)
        return error_set_errno(e, -ENOMEM, "cannot fill the pool");
    r = sandbox_prepare(p->loop, p->settings, &idle, on_phase, vm, &vm->sandbox, e);
    if (r < 0) {
        free(vm);
        return r;
    }
    vm->next = p->vms;
    p->vms = vm;
    return 0;
}

/* VMs that no pod will get: of a template of another time, and more than the target. */
static void release_surplus(Pool *p, const char *key)
{
    unsigned n = 0;

    for (PoolVm *vm = p->vms, *next; vm; vm = next) {
        const char *template = sandbox_get_state(vm->sandbox)->template;

        next = vm->next;
        if (sandbox_get_phase(vm->sandbox) > SANDBOX_READY)
            continue;
        if ((key && (!template || strcmp(template, key) != 0)) || ++n > p->target)
            sandbox_release(vm->sandbox);
    }
}

static void fill(Pool *p)
{
    TemplateClass class = pool_class(p);
    SandboxOrigin origin;
    bool there_is;

    if (p->settings->clone.pool_size == 0 || p->stopped)
        return;
    there_is = template_store_get(p->templates, &class, &origin) > 0;
    release_surplus(p, there_is ? origin.key : NULL);
    if (!there_is || p->hooks.is_busy(p->hooks.userdata))
        return;
    while (count(p, false) < STARTING_MAX && count(p, false) + count(p, true) < p->target && !is_held_back(p)) {
        _cleanup_error_ Error e = ERROR_INIT;

        if (start_one(p, &origin, &e) < 0) {
            if (e.number == -ESTALE)
                template_store_failed(p->templates, origin.key, &e);
            vm_failed(p, &e);
            break;
        }
    }
}

static void on_defer(LoopSource *source, void *userdata)
{
    Pool *p = userdata;

    p->defer = loop_source_free(source);
    fill(p);
}

void pool_fill(Pool *p)
{
    if (!p->defer)
        (void)loop_add_defer(p->loop, on_defer, p, &p->defer);
}

static void on_idle(_unused_ LoopSource *source, void *userdata)
{
    Pool *p = userdata;

    p->target = p->settings->clone.pool_size;
    pool_fill(p);
}

static void asked_for(Pool *p)
{
    uint64_t usec = p->settings->clone.pool_idle_usec;

    if (p->idle)
        (void)loop_source_set_timer(p->idle, usec);
    else
        (void)loop_add_timer(p->loop, usec, on_idle, p, &p->idle);
    pool_fill(p);
}

/* Whether a pod can get it. */
static bool is_good(PoolVm *vm, const char *key)
{
    const char *template = sandbox_get_state(vm->sandbox)->template;

    if (sandbox_get_phase(vm->sandbox) != SANDBOX_READY || !template || strcmp(template, key) != 0)
        return false;
    if (sandbox_vmm_runs(vm->sandbox))
        return true;
    sandbox_release(vm->sandbox); /* its end has yet to be told */
    return false;
}

int pool_assign(Pool *p, const char *key, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                const int *tap_fds, size_t n_tap_fds, SandboxCloneFailed failed, SandboxPhaseFn callback,
                void *userdata, Sandbox **ret)
{
    const SandboxCloneSettings *c = &p->settings->clone;

    if (c->pool_size == 0)
        return 0;
    asked_for(p);
    for (PoolVm *vm = p->vms, *next; vm; vm = next) {
        _cleanup_error_ Error e = ERROR_INIT;

        next = vm->next;
        if (!is_good(vm, key))
            continue;
        if (sandbox_assign(vm->sandbox, request, tap_fds, n_tap_fds, failed, callback, userdata, &e) < 0) {
            p->hooks.log(LOG_WARNING, error_message(&e), p->hooks.userdata);
            sandbox_release(vm->sandbox);
            continue;
        }
        TRACE("daemon.pool.taken");
        *ret = vm->sandbox;
        vm_unlink(vm);
        return 1;
    }
    if (p->target < c->max_pool_size)
        p->target++;
    return 0;
}

int pool_adopt(Pool *p, SandboxState *state, Error *e)
{
    PoolVm *vm;
    int r;

    if (p->settings->clone.pool_size == 0 || !state->purpose || strcmp(state->purpose, "pool") != 0)
        return error_set(e, -ESRCH, "%s is of no use any more", state->sandbox_id);
    vm = vm_new(p);
    if (!vm)
        return error_set_errno(e, -ENOMEM, "cannot take over %s", state->sandbox_id);
    r = sandbox_adopt_idle(p->loop, p->settings, state, on_phase, vm, &vm->sandbox, e);
    if (r < 0) {
        free(vm);
        return r;
    }
    vm->next = p->vms;
    p->vms = vm;
    return 0;
}

int pool_new(Loop *loop, const SandboxSettings *settings, TemplateStore *templates, const PoolHooks *hooks,
             Pool **ret, Error *e)
{
    Pool *p = calloc(1, sizeof(*p));

    if (!p)
        return error_set_errno(e, -ENOMEM, "cannot make a pool");
    *p = (Pool){.loop = loop, .settings = settings, .templates = templates, .target = settings->clone.pool_size,
                .hooks = *hooks};
    *ret = p;
    return 0;
}

bool pool_stop(Pool *p)
{
    p->stopped = true;
    for (PoolVm *vm = p->vms, *next; vm; vm = next) {
        next = vm->next;
        sandbox_release(vm->sandbox);
    }
    return p->vms;
}

Pool *pool_free(Pool *p)
{
    if (!p)
        return NULL;
    loop_source_free(p->defer);
    loop_source_free(p->again);
    loop_source_free(p->idle);
    while (p->vms) {
        sandbox_free(p->vms->sandbox);
        vm_unlink(p->vms);
    }
    free(p);
    return NULL;
}
