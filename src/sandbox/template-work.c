/* SPDX-License-Identifier: MIT */

#include "sandbox/template-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <syslog.h>

#include "base/fd.h"
#include "base/fs.h"

/* Doublings of the time until the next try. */
#define RETRY_DOUBLINGS_MAX 7
/* Clones that may fail before the template is taken to be at fault. */
#define FAILURES_MAX 3

/* ------------------------------------------------------------------------------------------------ bounds */

static Template *least_used(TemplateStore *t, const Template *but)
{
    Template *least = NULL;

    for (Template *one = t->templates; one; one = one->next)
        if (one != but && one != t->busy && template_has_files(one) &&
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
            if (other != one && template_has_files(other)) {
                n++;
                sum += other->manifest.bytes;
            }
        if (n <= limits->max_templates && sum <= limits->templates_max_mb << 20)
            return true;
        least = least_used(t, one);
        if (!least)
            return false;
        template_say(t, LOG_INFO, "removing the template %s, the least used one, for another", least->key);
        template_remove_files(t, least->key);
        template_drop(t, least);
    }
}

void template_store_collect(TemplateStore *t)
{
    /* Which ones are of no use is known when it is known what they depend on. */
    if (!t->started || !t->base_known)
        return;
    for (Template *one = t->templates, *next; one; one = next) {
        next = one->next;
        if (one->state != TEMPLATE_RETIRED || t->hooks.in_use(one->key, t->hooks.userdata))
            continue;
        template_say(t, LOG_INFO, "removing the template %s, which no VM is a clone of and none will be",
                     one->key);
        template_remove_files(t, one->key);
        template_drop(t, one);
    }
}

/* ------------------------------------------------------------------------------------ what goes wrong */

static void delay(Template *one)
{
    unsigned n = one->failed_making < RETRY_DOUBLINGS_MAX ? one->failed_making : RETRY_DOUBLINGS_MAX;

    one->retry_usec = loop_now() + (TEMPLATE_RETRY_USEC << n);
    one->failed_making++;
    one->state = TEMPLATE_FAILED;
}

void template_discard(TemplateStore *t, Template *one, const char *why)
{
    template_say(t, LOG_WARNING, "the template %s is not used any more and will be made again: %s", one->key,
                 why);
    template_remove_files(t, one->key);
    one->state = TEMPLATE_WANTED;
    one->failed_clones = 0;
}

void template_store_worked(TemplateStore *t, const char *key)
{
    Template *one = template_find(t, key);

    if (one)
        one->failed_clones = 0;
}

void template_store_failed(TemplateStore *t, const char *key, const Error *e)
{
    Template *one = template_find(t, key);

    if (!one || one->state != TEMPLATE_READY)
        return;
    if (one->failed_clones++ == 0)
        template_say(t, LOG_WARNING, "a clone of the template %s did not come up: %s", key, error_message(e));
    if (e->number == -ESTALE || one->failed_clones >= FAILURES_MAX) {
        template_discard(t, one, e->number == -ESTALE ? error_message(e) : "its clones do not come up");
        /* Not at once, and ever more slowly, should that be in vain. */
        delay(one);
    } else
        one->state = TEMPLATE_UNREAD;
    template_schedule(t);
}

/* ------------------------------------------------------------------------------------------------- checks */

typedef struct CheckJob {
    const char *directory;
    const TemplateManifest *manifest;
} CheckJob;

static json_t *check(const void *argument, Error *e)
{
    const CheckJob *job = argument;

    return template_check(job->directory, job->manifest, true, e) == TEMPLATE_SOUND ? json_true() : NULL;
}

static void on_checked(_unused_ json_t *result, const Error *e, void *userdata)
{
    TemplateStore *t = userdata;
    Template *one = TAKE_PTR(t->busy);

    t->job = NULL;
    if (one->state == TEMPLATE_CHECKING) { /* and not retired meanwhile */
        if (e)
            template_discard(t, one, error_message(e));
        else {
            one->state = TEMPLATE_READY;
            t->hooks.ready(t->hooks.userdata);
        }
    }
    template_schedule(t);
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

void template_start_check(TemplateStore *t, Template *one)
{
    _cleanup_free_ char *directory = template_directory(t, one);
    _cleanup_error_ Error e = ERROR_INIT;
    CheckJob job = {.directory = directory, .manifest = &one->manifest};
    int r = directory ? take_identities(directory, &one->manifest) : -ENOMEM;

    if (r < 0)
        (void)error_set_errno(&e, r, "its files cannot be read");
    else
        r = job_start(t->loop, "it was read again", check, &job, on_checked, t, &t->job, &e);
    if (r < 0) {
        template_discard(t, one, error_message(&e));
        delay(one);
        return;
    }
    one->state = TEMPLATE_CHECKING;
    t->busy = one;
}

/* ------------------------------------------------------------------------------------------------- making */

static void making_failed(TemplateStore *t, Template *one, const Error *e)
{
    template_say(t, LOG_WARNING, "no template for VMs of %u vCPUs and %llu MiB, they are booted: %s",
                 one->manifest.class.vcpus, (unsigned long long)one->manifest.class.memory_mb,
                 error_message(e));
    delay(one);
}

static void made(TemplateStore *t, Template *one)
{
    const TemplateManifest *m = &one->manifest;

    one->state = TEMPLATE_READY;
    one->failed_making = 0;
    one->used_usec = loop_now();
    if (!make_room(t, one, m->bytes)) {
        template_discard(t, one, "there is no room for it (templates_max_mb), and the others are in use");
        delay(one);
        return;
    }
    template_say(t, LOG_INFO, "made the template %s for VMs of %u vCPUs and %llu MiB in %llu ms", one->key,
                 m->class.vcpus, (unsigned long long)m->class.memory_mb,
                 (unsigned long long)((loop_now() - one->begun_usec) / USEC_PER_MSEC));
}

static void on_made(const Error *e, void *userdata)
{
    TemplateStore *t = userdata;
    Template *one = TAKE_PTR(t->busy);
    _cleanup_free_ char *directory = template_directory(t, one);
    _cleanup_error_ Error failure = ERROR_INIT;

    t->maker = NULL;
    if (!e && !directory)
        (void)error_set_errno(&failure, -ENOMEM, "cannot read it");
    else if (!e)
        (void)template_manifest_read(directory, &one->manifest, &failure);
    if (!e && failure.number != 0)
        e = &failure;
    /* What it depends on may have changed meanwhile. */
    if (e && one->state == TEMPLATE_RETIRED)
        template_drop(t, one);
    else if (e)
        making_failed(t, one, e);
    else if (one->state == TEMPLATE_RETIRED)
        template_store_collect(t);
    else
        made(t, one);
    t->hooks.ready(t->hooks.userdata);
    template_schedule(t);
}

void template_start_making(TemplateStore *t, Template *one)
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
        making_failed(t, one, &e);
        return;
    }
    one->state = TEMPLATE_MAKING;
    one->begun_usec = loop_now();
    t->busy = one;
}
