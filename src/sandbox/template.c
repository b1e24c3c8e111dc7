/* SPDX-License-Identifier: MIT */

#include "sandbox/template.h"

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
#include "sandbox/template-make.h"

#define INPUTS "inputs.json"
#define INPUTS_MAX (64 * 1024)
/* After a failure, doubled with each more. */
#define RETRY_USEC (30 * USEC_PER_SEC)
#define RETRY_DOUBLINGS_MAX 7
/* Clones that may fail before the template is taken to be at fault. */
#define FAILURES_MAX 3

typedef enum TemplateState {
    TEMPLATE_WANTED,   /* has no files: to be made */
    TEMPLATE_MAKING,
    TEMPLATE_UNREAD,   /* its large files have yet to be read */
    TEMPLATE_CHECKING,
    TEMPLATE_READY,
    TEMPLATE_FAILED,  /* has no files, and is not to be made before `retry_usec` */
    TEMPLATE_RETIRED, /* of another key than what there is now */
} TemplateState;

typedef struct Template Template;
struct Template {
    Template *next;
    char key[TEMPLATE_KEY_SIZE];
    TemplateState state;
    TemplateManifest manifest; /* of one without files: only its class */
    uint64_t used_usec, retry_usec, begun_usec;
    unsigned failed_making, failed_clones;
};

struct TemplateStore {
    Loop *loop;
    const SandboxSettings *settings;
    TemplateHooks hooks;
    Template *templates;
    TemplateBase base;
    bool base_known, started;
    uint64_t base_retry_usec;
    char *reason; /* why there is none */
    Job *job;     /* one at a time */
    TemplateMaker *maker;
    Template *busy; /* what job or maker is about */
    LoopSource *defer;
    char *origin; /* directory of the last answer */
};

static void say(TemplateStore *t, int priority, const char *format, ...) _printf_(3, 4);
static void say(TemplateStore *t, int priority, const char *format, ...)
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

static bool has_files(const Template *one)
{
    return one->state != TEMPLATE_WANTED && one->state != TEMPLATE_MAKING && one->state != TEMPLATE_FAILED;
}

static char *directory_of(const TemplateStore *t, const Template *one)
{
    return fs_join(t->settings->clone.templates_dir, one->key);
}

static Template *find(TemplateStore *t, const char *key)
{
    for (Template *one = t->templates; one; one = one->next)
        if (strcmp(one->key, key) == 0)
            return one;
    return NULL;
}

static Template *add(TemplateStore *t, const char *key, TemplateState state)
{
    Template *one = calloc(1, sizeof(*one));

    if (!one)
        return NULL;
    snprintf(one->key, sizeof(one->key), "%s", key);
    one->state = state;
    one->next = t->templates;
    t->templates = one;
    return one;
}

static void drop(TemplateStore *t, Template *one)
{
    for (Template **p = &t->templates; *p; p = &(*p)->next)
        if (*p == one) {
            *p = one->next;
            break;
        }
    free(one);
}

/* The manifest first: without it, what a crash leaves of the rest is nothing. */
static void remove_files(TemplateStore *t, const char *key)
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
        say(t, LOG_WARNING, "cannot remove the template %s: %s", directory, strerrordesc_np(-r));
}

static void schedule(TemplateStore *t);

/* ------------------------------------------------------------------------------------------------ bounds */

static Template *least_used(TemplateStore *t, const Template *but)
{
    Template *least = NULL;

    for (Template *one = t->templates; one; one = one->next)
        if (one != but && one != t->busy && has_files(one) &&
            (!least || one->used_usec < least->used_usec) && !t->hooks.in_use(one->key, t->hooks.userdata))
            least = one;
    return least;
}

/* Makes room for `one` besides the others. False: they are all in use. */
static bool make_room(TemplateStore *t, const Template *one, uint64_t bytes)
{
    const SandboxCloneSettings *limits = &t->settings->clone;

    for (;;) {
        uint64_t n = 1, sum = bytes;
        Template *least;

        for (const Template *other = t->templates; other; other = other->next)
            if (other != one && has_files(other)) {
                n++;
                sum += other->manifest.bytes;
            }
        if (n <= limits->max_templates && sum <= limits->templates_max_mb << 20)
            return true;
        least = least_used(t, one);
        if (!least)
            return false;
        say(t, LOG_INFO, "removing the template %s, the least used one, for another", least->key);
        remove_files(t, least->key);
        drop(t, least);
    }
}

void template_store_collect(TemplateStore *t)
{
    if (!t->started)
        return;
    for (Template *one = t->templates, *next; one; one = next) {
        next = one->next;
        if (one->state != TEMPLATE_RETIRED || t->hooks.in_use(one->key, t->hooks.userdata))
            continue;
        say(t, LOG_INFO, "removing the template %s, which no VM is a clone of and none will be", one->key);
        remove_files(t, one->key);
        drop(t, one);
    }
}

/* ------------------------------------------------------------------------------------------- what goes wrong */

static void delay(Template *one)
{
    unsigned n = one->failed_making < RETRY_DOUBLINGS_MAX ? one->failed_making : RETRY_DOUBLINGS_MAX;

    one->retry_usec = loop_now() + (RETRY_USEC << n);
    one->failed_making++;
    one->state = TEMPLATE_FAILED;
}

static void discard(TemplateStore *t, Template *one, const char *why)
{
    say(t, LOG_WARNING, "the template %s is not used any more and will be made again: %s", one->key, why);
    remove_files(t, one->key);
    one->state = TEMPLATE_WANTED;
    one->failed_clones = 0;
}

void template_store_worked(TemplateStore *t, const char *key)
{
    Template *one = find(t, key);

    if (one)
        one->failed_clones = 0;
}

void template_store_failed(TemplateStore *t, const char *key, const Error *e)
{
    Template *one = find(t, key);

    if (!one || one->state != TEMPLATE_READY)
        return;
    if (one->failed_clones++ == 0)
        say(t, LOG_WARNING, "a clone of the template %s did not come up: %s", key, error_message(e));
    if (e->number == -ESTALE || one->failed_clones >= FAILURES_MAX) {
        discard(t, one, e->number == -ESTALE ? error_message(e) : "its clones do not come up");
        /* Not at once, and ever more slowly, should that be in vain. */
        delay(one);
    } else
        one->state = TEMPLATE_UNREAD;
    schedule(t);
}

/* ------------------------------------------------------------------------------------------------- checks */

typedef struct CheckJob {
    const char *directory;
    const TemplateManifest *manifest;
} CheckJob;

static json_t *check(const void *argument, Error *e)
{
    const CheckJob *job = argument;
    TemplateManifest manifest = *job->manifest;

    return template_check_wholly(job->directory, &manifest, e) == TEMPLATE_SOUND ? json_true() : NULL;
}

static void on_checked(_unused_ json_t *result, const Error *e, void *userdata)
{
    TemplateStore *t = userdata;
    Template *one = TAKE_PTR(t->busy);

    t->job = NULL;
    if (one->state == TEMPLATE_CHECKING) { /* and not retired meanwhile */
        if (e)
            discard(t, one, error_message(e));
        else {
            one->state = TEMPLATE_READY;
            t->hooks.ready(t->hooks.userdata);
        }
    }
    schedule(t);
}

/* The identities that the files have before they are read hold for what is read. */
static int take_identities(const char *directory, TemplateManifest *m)
{
    for (size_t i = 0; i < m->n_files; i++) {
        _cleanup_free_ char *path = fs_join(directory, m->files[i].name);
        _cleanup_close_ int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -EBADF;
        char digest[SHA256_HEX_SIZE];
        uint64_t size = m->files[i].id.size;
        int r;

        memcpy(digest, m->files[i].id.digest, sizeof(digest));
        r = fd < 0 ? -errno : template_file_stat(fd, &m->files[i].id);
        if (r < 0)
            return r;
        memcpy(m->files[i].id.digest, digest, sizeof(digest));
        m->files[i].id.size = size; /* if that has changed, it is damaged */
    }
    return 0;
}

static void start_check(TemplateStore *t, Template *one)
{
    _cleanup_free_ char *directory = directory_of(t, one);
    _cleanup_error_ Error e = ERROR_INIT;
    CheckJob job = {.directory = directory, .manifest = &one->manifest};
    int r = directory ? take_identities(directory, &one->manifest) : -ENOMEM;

    if (r < 0)
        (void)error_set_errno(&e, r, "its files cannot be read");
    else
        r = job_start(t->loop, "it was read again", check, &job, on_checked, t, &t->job, &e);
    if (r < 0) {
        discard(t, one, error_message(&e));
        delay(one);
        return;
    }
    one->state = TEMPLATE_CHECKING;
    t->busy = one;
}

/* ------------------------------------------------------------------------------------------------- making */

static void on_made(const Error *e, void *userdata)
{
    TemplateStore *t = userdata;
    Template *one = TAKE_PTR(t->busy);
    _cleanup_free_ char *directory = directory_of(t, one);
    _cleanup_error_ Error failure = ERROR_INIT;

    t->maker = NULL;
    if (!e && !directory)
        (void)error_set_errno(&failure, -ENOMEM, "cannot read it");
    else if (!e)
        (void)template_manifest_read(directory, &one->manifest, &failure);
    if (e || failure.number != 0) {
        say(t, LOG_WARNING, "a template for VMs of %u vCPUs and %llu MiB could not be made, they are booted: %s",
            one->manifest.class.vcpus, (unsigned long long)one->manifest.class.memory_mb,
            error_message(e ?: &failure));
        if (one->state == TEMPLATE_RETIRED) /* while it was being made */
            drop(t, one);
        else
            delay(one);
    } else if (one->state != TEMPLATE_RETIRED) {
        one->state = TEMPLATE_READY;
        one->failed_making = 0;
        one->used_usec = loop_now();
        if (!make_room(t, one, one->manifest.bytes)) {
            discard(t, one, "there is no room for it (templates_max_mb), and the others are in use");
            delay(one);
        } else {
            say(t, LOG_INFO, "made the template %s for VMs of %u vCPUs and %llu MiB in %llu ms, %llu MiB on disk",
                one->key, one->manifest.class.vcpus, (unsigned long long)one->manifest.class.memory_mb,
                (unsigned long long)((loop_now() - one->begun_usec) / USEC_PER_MSEC),
                (unsigned long long)(one->manifest.bytes >> 20));
            t->hooks.ready(t->hooks.userdata);
        }
    }
    schedule(t);
}

static void start_making(TemplateStore *t, Template *one)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateClass class = one->manifest.class;
    int r = 0;

    if (!make_room(t, one, 0))
        r = error_set(&e, -ENOSPC, "there are %llu already (max_templates), and all are in use",
                      (unsigned long long)t->settings->clone.max_templates);
    if (r >= 0)
        r = template_make(t->loop, t->settings, one->key, &class, on_made, t, &t->maker, &e);
    if (r < 0) {
        say(t, LOG_WARNING, "a template for VMs of %u vCPUs and %llu MiB cannot be made, they are booted: %s",
            class.vcpus, (unsigned long long)class.memory_mb, error_message(&e));
        delay(one);
        return;
    }
    one->state = TEMPLATE_MAKING;
    one->begun_usec = loop_now();
    t->busy = one;
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
        } else if (has_files(one) || one == t->busy)
            one->state = TEMPLATE_RETIRED;
        else
            drop(t, one);
    }
    template_store_collect(t);
}

static void set_reason(TemplateStore *t, int priority, const char *reason)
{
    if (!t->reason || strcmp(t->reason, reason) != 0)
        say(t, priority, "%s", reason);
    free(t->reason);
    t->reason = strdup(reason);
}

static void on_base(json_t *result, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateStore *t = userdata;
    TemplateBase base;

    t->job = NULL;
    if (failure || template_base_from(result, &base, &e) < 0) {
        set_reason(t, LOG_WARNING, error_message(failure ?: &e));
        t->base_retry_usec = loop_now() + RETRY_USEC;
        return;
    }
    if (!(base.features & VMM_TEMPLATE)) {
        set_reason(t, LOG_INFO, "this VMM cannot save and clone VMs: each is booted for its pod");
        t->base_retry_usec = UINT64_MAX;
        return;
    }
    free(t->reason);
    t->reason = NULL;
    t->base = base;
    t->base_known = true;
    write_inputs(t);
    sort_templates(t);
    t->hooks.ready(t->hooks.userdata);
    schedule(t);
}

/* ------------------------------------------------------------------------------------------ one after another */

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
            t->base_retry_usec = now + RETRY_USEC;
        }
        return;
    }
    for (Template *one = t->templates; one && !t->busy; one = one->next)
        if (one->state == TEMPLATE_UNREAD)
            start_check(t, one);
    for (Template *one = t->templates; one && !t->busy; one = one->next)
        if (one->state == TEMPLATE_WANTED)
            start_making(t, one);
}

static void on_defer(LoopSource *source, void *userdata)
{
    TemplateStore *t = userdata;

    t->defer = loop_source_free(source);
    go_on(t);
}

static void schedule(TemplateStore *t)
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
    say(t, LOG_INFO, "kernel, root file system or VMM was replaced: templates are made anew");
    t->base_known = false;
    t->base_retry_usec = 0;
    for (Template *one = t->templates; one; one = one->next)
        if (has_files(one) || one == t->busy)
            one->state = TEMPLATE_RETIRED;
    return false;
}

int template_store_get(TemplateStore *t, const TemplateClass *class, SandboxOrigin *ret)
{
    _cleanup_error_ Error reason = ERROR_INIT;
    char key[TEMPLATE_KEY_SIZE];
    Template *one;

    if (!base_holds(t)) {
        schedule(t);
        return 0;
    }
    template_key(t->settings, &t->base, class, key);
    one = find(t, key);
    if (!one)
        one = add(t, key, TEMPLATE_WANTED);
    if (!one)
        return 0;
    one->used_usec = loop_now();
    if (!has_files(one)) {
        one->manifest.class = *class;
        if (one->state == TEMPLATE_FAILED && one->used_usec >= one->retry_usec)
            one->state = TEMPLATE_WANTED;
    }
    if (one->state != TEMPLATE_READY) {
        schedule(t);
        return 0;
    }
    free(t->origin);
    t->origin = directory_of(t, one);
    if (!t->origin)
        return 0;
    switch (template_check_quickly(t->origin, &one->manifest, &reason)) {
    case TEMPLATE_SOUND:
        *ret = (SandboxOrigin){.key = one->key, .directory = t->origin};
        return 1;
    case TEMPLATE_UNSURE:
        one->state = TEMPLATE_UNREAD;
        break;
    case TEMPLATE_DAMAGED:
        discard(t, one, error_message(&reason));
        break;
    }
    schedule(t);
    return 0;
}

/* ------------------------------------------------------------------------------------------------ object */

static int prepare_directory(const SandboxSettings *settings, Error *e)
{
    const char *directory = settings->clone.templates_dir;
    struct statfs fs;
    int r = fs_mkdir_p(directory, 0750);

    if (r >= 0 && (chmod(directory, 0750) < 0 || chown(directory, 0, settings->gid) < 0 || statfs(directory, &fs) < 0))
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
            say(t, LOG_WARNING, "removing what is no whole template: %s", error_message(&damage));
            (void)fs_remove_tree(path);
            continue;
        }
        one = add(t, de->d_name, TEMPLATE_RETIRED); /* until its key is known to be right */
        if (!one)
            return error_set_errno(e, -ENOMEM, "cannot read %s", directory);
        one->manifest = manifest;
    }
    return 0;
}

int template_store_new(Loop *loop, const SandboxSettings *settings, const TemplateHooks *hooks,
                       TemplateStore **ret, Error *e)
{
    TemplateStore *t = calloc(1, sizeof(*t));
    _cleanup_error_ Error none = ERROR_INIT;
    int r;

    if (!t)
        return error_set_errno(e, -ENOMEM, "cannot use templates");
    *t = (TemplateStore){.loop = loop, .settings = settings, .hooks = *hooks};
    r = prepare_directory(settings, &none);
    if (r >= 0)
        r = scan(t, &none);
    if (r < 0) { /* a host without templates runs pods all the same */
        set_reason(t, LOG_WARNING, error_message(&none));
        t->base_retry_usec = UINT64_MAX;
    } else
        read_inputs(t);
    *ret = t;
    return 0;
}

void template_store_start(TemplateStore *t)
{
    t->started = true;
    schedule(t);
}

TemplateStore *template_store_free(TemplateStore *t)
{
    if (!t)
        return NULL;
    loop_source_free(t->defer);
    job_free(t->job);
    template_maker_free(t->maker);
    while (t->templates)
        drop(t, t->templates);
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
