/* SPDX-License-Identifier: MIT */

#include "sandbox/template-make.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fs.h"
#include "base/trace.h"
#include "sandbox/clone.h"
#include "sandbox/vm-internal.h"

/* The disk from which the guest runs a container once: its own root file system. */
#define WARM_SERIAL "warm"
/* What a template needs on disk beside the memory, and what is left to others. */
#define SPARE_BYTES (64ULL << 20)

struct TemplateMaker {
    Loop *loop;
    const SandboxSettings *settings;
    TemplateClass class;
    char *directory, *temporary;
    Sandbox *sandbox;
    Job *job;
    bool saved;
    Error failure;
    TemplateMadeFn done;
    void *userdata;
};

TemplateMaker *template_maker_free(TemplateMaker *m)
{
    if (!m)
        return NULL;
    job_free(m->job);
    sandbox_free(m->sandbox);
    error_clear(&m->failure);
    free(m->directory);
    free(m->temporary);
    free(m);
    return NULL;
}

static void finish(TemplateMaker *m)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateMadeFn done = m->done;
    void *userdata = m->userdata;

    (void)error_move(&e, &m->failure);
    if (e.number != 0)
        (void)fs_remove_tree(m->temporary);
    template_maker_free(m);
    done(e.number != 0 ? &e : NULL, userdata);
}

/* Ends the VM; on_phase() goes on when it is gone. */
static void fail(TemplateMaker *m, const Error *e)
{
    if (m->failure.number == 0)
        (void)error_set(&m->failure, e->number, "%s", error_message(e));
    if (m->sandbox)
        sandbox_release(m->sandbox);
}

void template_maker_cancel(TemplateMaker *m)
{
    _cleanup_error_ Error e = ERROR_INIT;

    (void)error_set(&e, -ECANCELED, "the daemon ends");
    fail(m, &e);
}

/* ------------------------------------------------------------------------------------------ the manifest */

typedef struct ManifestJob {
    const char *directory;
    TemplateClass class;
} ManifestJob;

static json_t *make_manifest(const void *argument, Error *e)
{
    const ManifestJob *job = argument;
    TemplateManifest manifest;

    return template_manifest_make(job->directory, &job->class, &manifest, e) < 0 ? NULL : json_true();
}

static void on_manifest(_unused_ json_t *result, const Error *e, void *userdata)
{
    TemplateMaker *m = userdata;

    m->job = NULL;
    if (e)
        (void)error_set(&m->failure, e->number, "%s", error_message(e));
    else {
        TRACE("daemon.template.verified");
        if (rename(m->temporary, m->directory) < 0)
            (void)error_set_errno(&m->failure, -errno, "cannot rename the template to %s", m->directory);
        else
            TRACE("daemon.template.made");
    }
    finish(m);
}

static void start_manifest(TemplateMaker *m)
{
    ManifestJob job = {.directory = m->temporary, .class = m->class};

    if (chmod(m->temporary, 0750) < 0 || chown(m->temporary, 0, m->settings->gid) < 0)
        (void)error_set_errno(&m->failure, -errno, "cannot give %s to the VMMs' group", m->temporary);
    else
        (void)job_start(m->loop, "cannot keep the template", make_manifest, &job, on_manifest, m, &m->job,
                        &m->failure);
    if (!m->job)
        finish(m);
}

/* ------------------------------------------------------------------------------------------------ the VM */

static void on_saved(_unused_ Vmm *vmm, const Error *failure, void *userdata)
{
    TemplateMaker *m = userdata;

    if (failure) {
        fail(m, failure);
        return;
    }
    TRACE("daemon.template.saved");
    m->saved = true;
    sandbox_release(m->sandbox);
}

static void on_paused(Vmm *vmm, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateMaker *m = userdata;

    if (!failure && vmm_snapshot(vmm, m->temporary, on_saved, m, &e) < 0)
        failure = &e;
    if (failure)
        fail(m, failure);
}

static void on_unplugged(Vmm *vmm, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateMaker *m = userdata;

    if (!failure && vmm_pause(vmm, on_paused, m, &e) < 0)
        failure = &e;
    if (failure)
        fail(m, failure);
}

static void on_quiet(const TtrpcReply *reply, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateMaker *m = userdata;

    if (sandbox_get_phase(m->sandbox) != SANDBOX_READY)
        return;
    /* An agent that does not know the call has nothing to do first. */
    if (reply->code != TTRPC_UNIMPLEMENTED &&
        ttrpc_reply_error(reply, "preparing the VM to be saved", &e) < 0) {
        fail(m, &e);
        return;
    }
    TRACE("daemon.template.quiet");
    if (vmm_remove_disk(sandbox_get_vmm(m->sandbox), WARM_SERIAL, on_unplugged, m, &e) < 0)
        fail(m, &e);
}

static void on_plugged(_unused_ Vmm *vmm, const Error *failure, void *userdata)
{
    Cloudhv__Agent__V1__QuiesceRequest request = CLOUDHV__AGENT__V1__QUIESCE_REQUEST__INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    TemplateMaker *m = userdata;
    int r;

    if (failure) {
        fail(m, failure);
        return;
    }
    request.warm_disk = (char *)WARM_SERIAL;
    r = ttrpc_client_call(m->sandbox->control,
                          &(TtrpcCallSpec){.service = &cloudhv__agent__v1__control__descriptor,
                                           .method = "Quiesce",
                                           .request = &request.base,
                                           .timeout_usec = m->settings->boot_timeout_usec},
                          on_quiet, m, NULL);
    if (r < 0) {
        (void)error_set_errno(&e, r, "cannot call the agent in the VM");
        fail(m, &e);
    }
}

static void plug(TemplateMaker *m)
{
    const char *path = m->settings->rootfs;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    _cleanup_error_ Error e = ERROR_INIT;
    VmmDisk disk = {.serial = WARM_SERIAL, .fd = fd, .path = path, .read_only = true};

    if (fd < 0)
        (void)error_set_errno(&e, -errno, "cannot open %s", path);
    else
        (void)vmm_add_disk(sandbox_get_vmm(m->sandbox), &disk, on_plugged, m, &e);
    if (e.number != 0)
        fail(m, &e);
}

static void on_phase(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata)
{
    TemplateMaker *m = userdata;

    switch (phase) {
    case SANDBOX_READY:
        plug(m);
        break;
    case SANDBOX_GONE:
        if (e && m->failure.number == 0)
            (void)error_set(&m->failure, e->number, "%s", error_message(e));
        m->sandbox = sandbox_free(sandbox);
        if (m->failure.number == 0 && m->saved)
            start_manifest(m);
        else
            finish(m);
        break;
    default:
        break;
    }
}

static int check_space(const TemplateMaker *m, Error *e)
{
    uint64_t need = (m->class.memory_mb << 20) + SPARE_BYTES;
    struct statvfs st;

    if (statvfs(m->temporary, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the free space of %s", m->temporary);
    if (st.f_bavail * st.f_frsize < need) /* a VMM whose memory cannot be written dies */
        return error_set(e, -ENOSPC, "%s has %llu MiB free, a template of %llu MiB needs %llu",
                         m->settings->clone.templates_dir,
                         (unsigned long long)(st.f_bavail * st.f_frsize >> 20),
                         (unsigned long long)m->class.memory_mb, (unsigned long long)(need >> 20));
    return 0;
}

int template_make(Loop *loop, const SandboxSettings *settings, const char *key, const TemplateClass *class,
                  TemplateMadeFn done, void *userdata, TemplateMaker **ret, Error *e)
{
    SandboxIdle idle = {.purpose = "template", .vcpus = class->vcpus, .memory_mb = class->memory_mb};
    TemplateMaker *m = calloc(1, sizeof(*m));
    int r = -ENOMEM;

    if (!m)
        return error_set_errno(e, r, "cannot make a template");
    *m = (TemplateMaker){
        .loop = loop, .settings = settings, .class = *class, .done = done, .userdata = userdata};
    m->directory = fs_join(settings->clone.templates_dir, key);
    m->temporary = string_printf("%s/" TEMPLATE_TEMPORARY "XXXXXX", settings->clone.templates_dir);
    if (!m->directory || !m->temporary) {
        template_maker_free(m);
        return error_set_errno(e, r, "cannot make a template");
    }
    if (!mkdtemp(m->temporary)) {
        r = error_set_errno(e, -errno, "cannot make a directory for a template in %s",
                            settings->clone.templates_dir);
        template_maker_free(m);
        return r;
    }
    idle.snapshot_to = m->temporary;
    r = check_space(m, e);
    if (r >= 0)
        r = sandbox_prepare(loop, settings, &idle, on_phase, m, &m->sandbox, e);
    if (r < 0) {
        (void)fs_remove_tree(m->temporary);
        template_maker_free(m);
        return r;
    }
    TRACE("daemon.template.begun");
    *ret = m;
    return 0;
}
