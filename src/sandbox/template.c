/* SPDX-License-Identifier: MIT */

#include "sandbox/template-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <syslog.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/trace.h"

#define INPUTS "inputs.json"
#define INPUTS_MAX (64 * 1024)

void template_say(TemplateStore *t, int priority, const char *format, ...)
{
    _cleanup_free_ char *message = NULL;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vasprintf(&message, format, ap);
    va_end(ap);
    if (n < 0)
        message = NULL;
    else
        t->hooks.log(priority, message, t->hooks.userdata);
}

bool template_has_files(const Template *one)
{
    return one->state != TEMPLATE_WANTED && one->state != TEMPLATE_MAKING && one->state != TEMPLATE_FAILED;
}

char *template_directory(const TemplateStore *t, const Template *one)
{
    return fs_join(t->settings->clone.templates_dir, one->key);
}

Template *template_find(TemplateStore *t, const char *key)
{
    for (Template *one = t->templates; one; one = one->next)
        if (strcmp(one->key, key) == 0)
            return one;
    return NULL;
}

Template *template_add(TemplateStore *t, const char *key, TemplateState state)
{
    Template *one = calloc(1, sizeof(*one));

    if (!one)
        return NULL;
    snprintf(one->key, sizeof(one->key), "%.*s", TEMPLATE_KEY_SIZE - 1, key);
    one->state = state;
    one->next = t->templates;
    t->templates = one;
    return one;
}

void template_drop(TemplateStore *t, Template *one)
{
    for (Template **p = &t->templates; *p; p = &(*p)->next)
        if (*p == one) {
            *p = one->next;
            break;
        }
    free(one);
}

/* The manifest first: without it, what a crash leaves of the rest is nothing. */
void template_remove_files(TemplateStore *t, const char *key)
{
    _cleanup_free_ char *directory = fs_join(t->settings->clone.templates_dir, key), *manifest = NULL;
    int r;

    manifest = directory ? fs_join(directory, "template.json") : NULL;
    if (!manifest)
        return;
    (void)unlink(manifest);
    TRACE("daemon.template.manifest-removed");
    r = fs_remove_tree(directory);
    if (r < 0)
        template_say(t, LOG_WARNING, "cannot remove the template %s: %s", directory, strerrordesc_np(-r));
}

/* ------------------------------------------------------------------------------- what templates depend on */

static void write_inputs(TemplateStore *t)
{
    _cleanup_free_ char *path = fs_join(t->settings->clone.templates_dir, INPUTS), *text = NULL;
    _cleanup_json_ json_t *j = template_base_to(&t->base);

    text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    /* Without it the files are read again, that is all. */
    if (path && text)
        (void)fs_write_file_atomic(path, text, strlen(text), 0600);
}

static void read_inputs(TemplateStore *t)
{
    _cleanup_free_ char *path = fs_join(t->settings->clone.templates_dir, INPUTS);
    _cleanup_json_ json_t *j = NULL;

    if (path && json_read_file(path, INPUTS_MAX, &j, NULL) >= 0)
        (void)template_base_from(j, &t->base, NULL);
}

/* Which templates are of what there is now. */
static void sort_templates(TemplateStore *t)
{
    for (Template *one = t->templates, *next; one; one = next) {
        char key[TEMPLATE_KEY_SIZE];

        next = one->next;
        template_key(t->settings, &t->base, &one->manifest.class, key);
        if (strcmp(key, one->key) == 0) {
            if (one->state == TEMPLATE_RETIRED && one != t->busy)
                one->state = TEMPLATE_UNREAD;
        } else if (template_has_files(one) || one == t->busy)
            one->state = TEMPLATE_RETIRED;
        else
            template_drop(t, one);
    }
    template_store_collect(t);
}

/* The template of that size, to be made if there is none. */
static Template *want(TemplateStore *t, const TemplateClass *class)
{
    char key[TEMPLATE_KEY_SIZE];
    Template *one;

    template_key(t->settings, &t->base, class, key);
    one = template_find(t, key);
    if (!one)
        one = template_add(t, key, TEMPLATE_WANTED);
    if (!one)
        return NULL;
    one->used_usec = loop_now();
    /* Of another time, but that has come back. */
    if (one->state == TEMPLATE_RETIRED && one != t->busy)
        one->state = TEMPLATE_UNREAD;
    if (!template_has_files(one)) {
        one->manifest.class = *class;
        if (one->state == TEMPLATE_FAILED && one->used_usec >= one->retry_usec)
            one->state = TEMPLATE_WANTED;
    }
    return one;
}

static void want_later(TemplateStore *t, const TemplateClass *class)
{
    for (unsigned i = 0; i < t->n_wanted; i++)
        if (t->wanted[i].vcpus == class->vcpus && t->wanted[i].memory_mb == class->memory_mb)
            return;
    if (t->n_wanted < WANTED_MAX)
        t->wanted[t->n_wanted++] = *class;
}

static void set_reason(TemplateStore *t, int priority, const char *reason)
{
    if (!t->reason || strcmp(t->reason, reason) != 0)
        template_say(t, priority, "%s", reason);
    free(t->reason);
    t->reason = strdup(reason);
}

static int prepare_directory(const SandboxSettings *settings, Error *e)
{
    const char *directory = settings->clone.templates_dir;
    struct statfs fs;
    int r = fs_mkdir_p(directory, 0750);

    if (r >= 0 && (chmod(directory, 0750) < 0 || chown(directory, 0, settings->gid) < 0 ||
                   statfs(directory, &fs) < 0))
        r = -errno;
    if (r < 0)
        return error_set_errno(e, r, "there can be no templates in %s", directory);
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
        return error_set(e, -EMEDIUMTYPE,
                         "there can be no templates in %s, which lies in memory: each would cost its size, and "
                         "each page that a clone writes another (templates_dir)",
                         directory);
    return 0;
}

/* What an earlier daemon left. */
static int scan(TemplateStore *t, Error *e)
{
    const char *directory = t->settings->clone.templates_dir;
    _cleanup_closedir_ DIR *dir = opendir(directory);
    struct dirent *de;

    if (!dir)
        return error_set_errno(e, -errno, "there can be no templates in %s", directory);
    while ((de = readdir(dir))) {
        _cleanup_free_ char *path = fs_join(directory, de->d_name);
        _cleanup_error_ Error damage = ERROR_INIT;
        TemplateManifest manifest;
        Template *one;

        if (!path)
            return error_set_errno(e, -ENOMEM, "cannot read %s", directory);
        if (strncmp(de->d_name, TEMPLATE_TEMPORARY, strlen(TEMPLATE_TEMPORARY)) == 0) {
            (void)fs_remove_tree(path);
            continue;
        }
        if (!template_key_is_valid(de->d_name))
            continue;
        if (template_manifest_read(path, &manifest, &damage) < 0) {
            template_say(t, LOG_WARNING, "removing what is no whole template: %s", error_message(&damage));
            (void)fs_remove_tree(path);
            continue;
        }
        one = template_add(t, de->d_name, TEMPLATE_RETIRED); /* until its key is known to be right */
        if (!one)
            return error_set_errno(e, -ENOMEM, "cannot read %s", directory);
        one->manifest = manifest;
    }
    return 0;
}

static void on_base(json_t *result, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateStore *t = userdata;
    TemplateBase base;

    t->job = NULL;
    if (failure || template_base_from(result, &base, &e) < 0) {
        set_reason(t, LOG_WARNING, error_message(failure ?: &e));
        t->base_retry_usec = loop_now() + TEMPLATE_RETRY_USEC;
        return;
    }
    if (!(base.features & VMM_TEMPLATE)) {
        set_reason(t, LOG_INFO, "this VMM cannot save and clone VMs: each is booted for its pod");
        t->base_retry_usec = UINT64_MAX;
        return;
    }
    /* Not before: a host whose VMM cannot do it needs no directory for it. */
    if (!t->prepared && (prepare_directory(t->settings, &e) < 0 || scan(t, &e) < 0)) {
        set_reason(t, LOG_WARNING, error_message(&e));
        t->base_retry_usec = UINT64_MAX;
        return;
    }
    t->prepared = true;
    free(t->reason);
    t->reason = NULL;
    t->base = base;
    t->base_known = true;
    write_inputs(t);
    sort_templates(t);
    while (t->n_wanted > 0)
        (void)want(t, &t->wanted[--t->n_wanted]);
    t->hooks.ready(t->hooks.userdata);
    template_schedule(t);
}

/* ---------------------------------------------------------------------------------- one after another */

static void go_on(TemplateStore *t)
{
    _cleanup_error_ Error e = ERROR_INIT;
    uint64_t now = loop_now();

    if (!t->started || t->job || t->maker)
        return;
    if (!t->base_known) {
        if (now >= t->base_retry_usec &&
            template_base_start(t->loop, t->settings, &t->base, on_base, t, &t->job, &e) < 0) {
            set_reason(t, LOG_WARNING, error_message(&e));
            t->base_retry_usec = now + TEMPLATE_RETRY_USEC;
        }
        return;
    }
    for (Template *one = t->templates; one && !t->busy; one = one->next)
        if (one->state == TEMPLATE_UNREAD)
            template_start_check(t, one);
    for (Template *one = t->templates; one && !t->busy; one = one->next)
        if (one->state == TEMPLATE_WANTED)
            template_start_making(t, one);
}

static void on_defer(LoopSource *source, void *userdata)
{
    TemplateStore *t = userdata;

    t->defer = loop_source_free(source);
    go_on(t);
}

void template_schedule(TemplateStore *t)
{
    if (!t->defer)
        (void)loop_add_defer(t->loop, on_defer, t, &t->defer);
}

/* A file that was replaced, by a refresh of the system extension say, makes all templates those of another
 * time. */
static bool base_holds(TemplateStore *t)
{
    if (!t->base_known)
        return false;
    if (template_base_holds(t->settings, &t->base) > 0)
        return true;
    template_say(t, LOG_INFO, "kernel, root file system or VMM was replaced: templates are made anew");
    t->base_known = false;
    t->base_retry_usec = 0;
    for (Template *one = t->templates; one; one = one->next)
        if (template_has_files(one) || one == t->busy)
            one->state = TEMPLATE_RETIRED;
    return false;
}

int template_store_get(TemplateStore *t, const TemplateClass *class, SandboxOrigin *ret)
{
    _cleanup_error_ Error reason = ERROR_INIT;
    Template *one;

    if (!base_holds(t)) {
        want_later(t, class);
        template_schedule(t);
        return 0;
    }
    one = want(t, class);
    if (!one)
        return 0;
    if (one->state != TEMPLATE_READY) {
        template_schedule(t);
        return 0;
    }
    free(t->origin);
    t->origin = template_directory(t, one);
    if (!t->origin)
        return 0;
    switch (template_check(t->origin, &one->manifest, false, &reason)) {
    case TEMPLATE_SOUND:
        *ret = (SandboxOrigin){.key = one->key, .directory = t->origin};
        return 1;
    case TEMPLATE_UNSURE:
        one->state = TEMPLATE_UNREAD;
        break;
    case TEMPLATE_DAMAGED:
        template_discard(t, one, error_message(&reason));
        break;
    }
    template_schedule(t);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ object */

int template_store_new(Loop *loop, const SandboxSettings *settings, const TemplateHooks *hooks,
                       TemplateStore **ret, Error *e)
{
    TemplateStore *t = calloc(1, sizeof(*t));

    if (!t)
        return error_set_errno(e, -ENOMEM, "cannot use templates");
    *t = (TemplateStore){.loop = loop, .settings = settings, .hooks = *hooks};
    read_inputs(t);
    *ret = t;
    return 0;
}

void template_store_start(TemplateStore *t)
{
    t->started = !t->stopped;
    template_schedule(t);
}

bool template_store_stop(TemplateStore *t)
{
    if (!t->stopped && t->maker)
        template_maker_cancel(t->maker);
    t->stopped = true;
    t->started = false;
    return t->maker;
}

TemplateStore *template_store_free(TemplateStore *t)
{
    if (!t)
        return NULL;
    loop_source_free(t->defer);
    job_free(t->job);
    template_maker_free(t->maker);
    while (t->templates)
        template_drop(t, t->templates);
    free(t->reason);
    free(t->origin);
    free(t);
    return NULL;
}

const char *template_store_reason(const TemplateStore *t)
{
    return t->reason;
}

size_t template_store_count(const TemplateStore *t)
{
    size_t n = 0;

    for (const Template *one = t->templates; one; one = one->next)
        n++;
    return n;
}

TemplateInfo template_store_info(const TemplateStore *t, size_t i)
{
    static const char *const names[] = {
        [TEMPLATE_WANTED] = "making",    [TEMPLATE_MAKING] = "making", [TEMPLATE_UNREAD] = "checking",
        [TEMPLATE_CHECKING] = "checking", [TEMPLATE_READY] = "ready",  [TEMPLATE_FAILED] = "failed",
        [TEMPLATE_RETIRED] = "retired",
    };
    const Template *one = t->templates;

    while (i-- > 0)
        one = one->next;
    return (TemplateInfo){.key = one->key, .state = names[one->state], .class = one->manifest.class,
                          .created_usec = one->manifest.created_usec, .bytes = one->manifest.bytes};
}
