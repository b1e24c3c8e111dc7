/* SPDX-License-Identifier: MIT */

#include "sandbox/vm-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/trace.h"

void sandbox_disk_change_free(DiskChange *c)
{
    for (size_t i = 0; i < c->n_disks; i++) {
        free(c->disks[i].serial);
        free(c->disks[i].path);
    }
    free(c->disks);
    free(c->container_id);
    error_clear(&c->failure);
    free(c);
}

static void on_change_begin(LoopSource *source, void *userdata);

/* Begins the change at the head of the queue, from the loop: `done` never runs inside a caller. */
static int schedule_begin(Sandbox *s)
{
    return loop_add_defer(s->loop, on_change_begin, s, &s->change_defer);
}

/* Ends the change at the head, and goes on with the next one. */
static void disk_change_finish(Sandbox *s, const Error *e)
{
    DiskChange *c = s->change;

    s->change = c->next;
    c->done(s, e, c->userdata);
    sandbox_disk_change_free(c);
    if (s->change && !s->change_defer && schedule_begin(s) < 0)
        sandbox_disk_change_abort(s);
}

void sandbox_disk_change_abort(Sandbox *s)
{
    const char *how = s->end_reason ? "the VM has ended: " : "", *why = s->end_reason;
    DiskChange *c = TAKE_PTR(s->change), *next;

    if (!why)
        why = s->phase == SANDBOX_GONE ? "the owner of the VM ends" : "the sandbox was released";
    s->change_defer = loop_source_free(s->change_defer);
    for (; c; c = next) {
        _cleanup_error_ Error e = ERROR_INIT;

        next = c->next;
        error_set(&e, -ECONNABORTED, "the disks of container %s cannot be changed: %s%s", c->container_id,
                  how, why);
        c->done(s, &e, c->userdata);
        sandbox_disk_change_free(c);
    }
}

static void disk_change_step(Sandbox *s);

static void on_disk_step(Vmm *vmm, const Error *failure, void *userdata)
{
    Sandbox *s = userdata;
    DiskChange *c = s->change;

    if (!c)
        return;
    if (c->failure.number != 0) { /* taking out again: whatever comes of it */
        c->n_done--;
        disk_change_step(s);
        return;
    }
    if (failure) {
        error_set(&c->failure, failure->number, "%s", error_message(failure));
        if (c->adding)
            disk_change_step(s);
        else
            disk_change_finish(s, &c->failure);
        return;
    }
    c->n_done++;
    disk_change_step(s);
}

static void disk_change_complete(Sandbox *s)
{
    DiskChange *c = s->change;
    _cleanup_error_ Error e = ERROR_INIT;

    if (!c->adding || c->failure.number != 0)
        sandbox_state_drop_container(&s->state, c->container_id);
    if (sandbox_write_state(s, &e) < 0 && c->failure.number == 0)
        error_move(&c->failure, &e);
    disk_change_finish(s, c->failure.number != 0 ? &c->failure : NULL);
}

static int add_next_disk(Sandbox *s, Error *e)
{
    DiskChange *c = s->change;
    _cleanup_close_ int fd = -EBADF;
    bool read_only = c->disks[c->n_done].read_only;
    const char *path = c->disks[c->n_done].path;
    struct stat st;

    fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open the disk %s of container %s", path, c->container_id);
    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the type of the disk %s", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(e, -EINVAL, "the disk %s of container %s is neither a file nor a block device", path,
                         c->container_id);
    return vmm_add_disk(
        s->vmm,
        &(VmmDisk){.serial = c->disks[c->n_done].serial, .fd = fd, .path = path, .read_only = read_only},
        on_disk_step, s, e);
}

/* Goes on with a change of disks: the next one, the one before when taking out again, or the end. */
static void disk_change_step(Sandbox *s)
{
    DiskChange *c = s->change;
    int r;

    if (c->failure.number != 0) {
        while (c->n_done > 0) {
            if (vmm_remove_disk(s->vmm, c->disks[c->n_done - 1].serial, on_disk_step, s, NULL) >= 0)
                return;
            c->n_done--;
        }
        disk_change_complete(s);
        return;
    }
    if (c->n_done == c->n_disks) {
        disk_change_complete(s);
        return;
    }
    if (c->adding) {
        r = add_next_disk(s, &c->failure);
        if (r == -EEXIST) { /* by a daemon that ended before it could say so */
            error_clear(&c->failure);
            c->n_done++;
        }
        if (r < 0)
            disk_change_step(s);
        else
            TRACE("daemon.add-container.disk-adding");
        return;
    }
    r = vmm_remove_disk(s->vmm, c->disks[c->n_done].serial, on_disk_step, s, &c->failure);
    if (r == -ENOENT) { /* never plugged, or unplugged by a daemon that ended then */
        error_clear(&c->failure);
        c->n_done++;
        disk_change_step(s);
    } else if (r < 0)
        disk_change_finish(s, &c->failure);
}

static void on_change_begin(LoopSource *source, void *userdata)
{
    Sandbox *s = userdata;

    s->change_defer = loop_source_free(source);
    if (s->change)
        disk_change_step(s);
}

/* Puts a change at the end of the queue; takes it. */
static int disk_change_begin(Sandbox *s, DiskChange *c, Error *e)
{
    DiskChange **p = &s->change;
    int r = s->change ? 0 : schedule_begin(s);

    if (r < 0) {
        sandbox_disk_change_free(c);
        return error_set_errno(e, r, "cannot change the disks of sandbox %s", s->state.sandbox_id);
    }
    while (*p)
        p = &(*p)->next;
    *p = c;
    return 0;
}

static int check_can_change(Sandbox *s, Error *e)
{
    if (s->phase != SANDBOX_RUNNING)
        return error_set(e, -ESHUTDOWN, "sandbox %s is %s%s%s", s->state.sandbox_id,
                         sandbox_phase_name(s->phase), s->end_reason ? ": " : "", s->end_reason ?: "");
    return 0;
}

static DiskChange *disk_change_new(const char *container_id, size_t n_disks, SandboxDoneFn done,
                                   void *userdata)
{
    DiskChange *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->disks = calloc(n_disks ?: 1, sizeof(*c->disks));
    c->container_id = strdup(container_id);
    c->done = done;
    c->userdata = userdata;
    if (!c->disks || !c->container_id) {
        sandbox_disk_change_free(c);
        return NULL;
    }
    return c;
}

static bool container_has_disks(const SandboxContainer *c, Cloudhv__Daemon__V1__Disk *const *disks,
                                size_t n_disks)
{
    if (c->n_serials != n_disks)
        return false;
    for (size_t i = 0; i < n_disks; i++)
        if (strcmp(c->serials[i], disks[i]->serial) != 0)
            return false;
    return true;
}

int sandbox_add_container(Sandbox *s, const char *container_id, Cloudhv__Daemon__V1__Disk *const *disks,
                          size_t n_disks, SandboxDoneFn done, void *userdata, Error *e)
{
    SandboxContainer *container;
    unsigned limit = s->settings->max_containers;
    DiskChange *c;
    bool known;
    int r = check_can_change(s, e);

    if (r < 0)
        return r;
    container = sandbox_state_find_container(&s->state, container_id);
    known = container;
    if (known && !container_has_disks(container, disks, n_disks))
        return error_set(e, -EEXIST, "container %s has other disks already", container_id);
    if (!known && limit > 0 && s->state.n_containers >= limit)
        return error_set(e, -ENOSPC, "sandbox %s has %u containers already (max_containers_per_vm)",
                         s->state.sandbox_id, limit);
    c = disk_change_new(container_id, n_disks, done, userdata);
    if (!c)
        return error_set_errno(e, -ENOMEM, "cannot add container %s", container_id);
    c->adding = true;
    /* A repeated call goes through the disks too: whether they are there, the VMM knows better than the
     * state. */
    if (!known)
        container = sandbox_state_add_container(&s->state, container_id);
    r = container ? 0 : -ENOMEM;
    for (size_t i = 0; r >= 0 && i < n_disks; i++) {
        c->disks[i].serial = strdup(disks[i]->serial);
        c->disks[i].path = strdup(disks[i]->path);
        c->disks[i].read_only = disks[i]->read_only;
        c->n_disks++;
        if (!c->disks[i].serial || !c->disks[i].path)
            r = -ENOMEM;
        else if (!known)
            r = sandbox_container_add_serial(container, disks[i]->serial);
    }
    if (r >= 0)
        r = sandbox_write_state(s, e);
    else
        error_set_errno(e, r, "cannot add container %s", container_id);
    if (r < 0) {
        if (!known)
            sandbox_state_drop_container(&s->state, container_id);
        sandbox_disk_change_free(c);
        return r;
    }
    TRACE("daemon.add-container.state-written");
    return disk_change_begin(s, c, e);
}

int sandbox_remove_container(Sandbox *s, const char *container_id, SandboxDoneFn done, void *userdata,
                             Error *e)
{
    SandboxContainer *known;
    DiskChange *c;
    int r = check_can_change(s, e);

    if (r < 0)
        return r;
    known = sandbox_state_find_container(&s->state, container_id);
    c = disk_change_new(container_id, known ? known->n_serials : 0, done, userdata);
    if (!c)
        return error_set_errno(e, -ENOMEM, "cannot remove container %s", container_id);
    for (size_t i = 0; known && i < known->n_serials; i++) {
        c->disks[i].serial = strdup(known->serials[i]);
        c->n_disks++;
        if (!c->disks[i].serial) {
            sandbox_disk_change_free(c);
            return error_set_errno(e, -ENOMEM, "cannot remove container %s", container_id);
        }
    }
    return disk_change_begin(s, c, e);
}
