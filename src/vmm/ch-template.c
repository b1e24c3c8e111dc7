/* SPDX-License-Identifier: MIT */

#include "vmm/ch-template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "vmm/ch-requests.h"

#define CONFIG_NAME "config.json"
#define STATE_NAME "state.json"
/* 2 and 45 KiB, as a rule. */
#define CONFIG_MAX (256 * 1024)
#define STATE_MAX (16 * 1024 * 1024)
/* Readable by clones, writable by nobody. */
#define COMPLETE_MODE 0440

/* Making one */

static void remove_file(const char *directory, const char *name)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    if (path)
        (void)unlink(path);
}

static int open_file(const char *directory, const char *name, int flags, int *ret_fd, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot open a template");
    *ret_fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    return *ret_fd < 0 ? error_set_errno(e, -errno, "cannot open %s", path) : 0;
}

int ch_template_begin(Ch *ch, const VmmSpec *spec, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    int r;

    r = open_file(spec->template_directory, CH_MEMORY, O_RDWR | O_CREAT | O_EXCL, &fd, e);
    if (r < 0)
        return r;
    ch->template_directory = strdup(spec->template_directory);
    if (!ch->template_directory) {
        remove_file(spec->template_directory, CH_MEMORY);
        return error_set_errno(e, -ENOMEM, "cannot make a template");
    }
    if (ftruncate(fd, (off_t)spec->memory) < 0 || fchown(fd, spec->uid, spec->gid) < 0 ||
        chown(spec->template_directory, spec->uid, spec->gid) < 0)
        return error_set_errno(e, -errno, "cannot make the memory of the template in %s", spec->template_directory);
    return 0;
}

static void remove_snapshot(Ch *ch)
{
    remove_file(ch->template_directory, CONFIG_NAME);
    remove_file(ch->template_directory, STATE_NAME);
}

void ch_template_abandon(Ch *ch)
{
    /* A directory that is gone has nothing to be removed either. */
    if (!ch->template_directory || chown(ch->template_directory, 0, ch->gid) < 0)
        return;
    remove_snapshot(ch);
    remove_file(ch->template_directory, CH_MEMORY);
}

/* Takes a file from the VMM. */
static int seal(Ch *ch, const char *name, off_t max, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    r = open_file(ch->template_directory, name, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    if (fchown(fd, 0, ch->gid) < 0 || fchmod(fd, COMPLETE_MODE) < 0 || fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot take over %s of the template in %s", name, ch->template_directory);
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size == 0 || st.st_size > max)
        return error_set(e, -EIO, "Cloud Hypervisor wrote a strange %s into the template in %s (%lld bytes)", name,
                         ch->template_directory, (long long)st.st_size);
    return 0;
}

static int change_config(Ch *ch, Error *e)
{
    _cleanup_free_ char *path = fs_join(ch->template_directory, CONFIG_NAME), *text = NULL;
    _cleanup_json_ json_t *config = NULL;
    int r;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot complete a template");
    r = json_read_file(path, CONFIG_MAX, &config, e);
    if (r < 0)
        return r;
    r = ch_config_for_clones(config);
    text = r >= 0 ? json_dumps(config, JSON_COMPACT) : NULL;
    if (r >= 0)
        r = text ? fs_write_file_atomic(path, text, strlen(text), COMPLETE_MODE) : -ENOMEM;
    if (r >= 0 && chown(path, 0, ch->gid) < 0)
        r = -errno;
    return r < 0 ? error_set_errno(e, r, "cannot make clones of what %s says", path) : 0;
}

static int complete(Ch *ch, Error *e)
{
    int r;

    /* From here on nobody else makes or exchanges anything in it. */
    if (chown(ch->template_directory, 0, ch->gid) < 0)
        return error_set_errno(e, -errno, "cannot take over the template in %s", ch->template_directory);
    r = seal(ch, CH_MEMORY, INT64_MAX, e);
    if (r >= 0)
        r = seal(ch, STATE_NAME, STATE_MAX, e);
    if (r >= 0)
        r = seal(ch, CONFIG_NAME, CONFIG_MAX, e);
    return r < 0 ? r : change_config(ch, e);
}

static void on_saved(ChClient *client, json_t *value, const Error *failure, void *userdata)
{
    _cleanup_error_ Error e = ERROR_INIT;
    Ch *ch = userdata;

    ch->snapshotting = false;
    if (failure && failure->number == -ECONNRESET) {
        ch_finish(ch->snapshot_op, failure);
        return;
    }
    /* Too late counts as failed, too: its owner was told so. */
    if (!failure && ch->snapshot_op && complete(ch, &e) >= 0) {
        free(ch->template_directory);
        ch->template_directory = NULL;
    } else {
        remove_snapshot(ch);
    }
    ch_finish(ch->snapshot_op, failure ?: e.number ? &e : NULL);
}

int ch_snapshot(Vmm *vmm, const char *directory, VmmOp *op, Error *e)
{
    Ch *ch = ch_of(vmm);
    int r;

    if (!ch->template_directory)
        return error_set(e, -EINVAL, "the VM was not started as one that becomes a template");
    if (strcmp(ch->template_directory, directory) != 0)
        return error_set(e, -EINVAL, "its memory is in %s, not in %s", ch->template_directory, directory);
    if (ch->snapshotting || ch->state_changing)
        return error_set(e, -EBUSY, "it is just being saved, paused or resumed");
    if (ch->devices)
        return error_set(e, -EBUSY, "it has hot-plugged devices, which a template must not have");
    remove_snapshot(ch);
    r = ch_put(ch, "vm.snapshot", ch_snapshot_config(), -EBADF, on_saved, ch);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a request to Cloud Hypervisor");
    ch->snapshotting = true;
    vmm_op_keep(op, &ch->snapshot_op);
    return 0;
}

/* Using one */

/* What both have to say at this place. */
static int compare(json_t *have, json_t *wanted, const char *what, Error *e)
{
    _cleanup_free_ char *a = NULL, *b = NULL;

    if ((!have && !wanted) || json_equal(have, wanted))
        return 0;
    a = have ? json_dumps(have, JSON_ENCODE_ANY) : NULL;
    b = wanted ? json_dumps(wanted, JSON_ENCODE_ANY) : NULL;
    return error_set(e, -EINVAL, "it was made with %s %.256s, not %.256s", what, a ?: "none", b ?: "none");
}

static json_t *zone_of(json_t *config)
{
    return json_array_get(json_object_get(json_object_get(config, "memory"), "zones"), 0);
}

static int check_config(json_t *config, const char *directory, const VmmSpec *spec, Error *e)
{
    VmmSpec same = *spec;
    _cleanup_json_ json_t *wanted = NULL;
    json_t *a, *b;
    int r;

    same.template_directory = directory;
    wanted = ch_vm_config(&same);
    if (!wanted)
        return error_set_errno(e, -ENOMEM, "cannot check a template");
    if (!json_is_false(json_object_get(zone_of(config), "shared")))
        return error_set(e, -EINVAL, "clones would write its memory");
    a = json_object_get(config, "cpus");
    b = json_object_get(wanted, "cpus");
    r = compare(json_object_get(a, "boot_vcpus"), json_object_get(b, "boot_vcpus"), "vCPUs", e);
    if (r >= 0)
        r = compare(json_object_get(a, "max_vcpus"), json_object_get(b, "max_vcpus"), "at most as many vCPUs as", e);
    a = zone_of(config);
    b = zone_of(wanted);
    if (r >= 0)
        r = compare(json_object_get(a, "size"), json_object_get(b, "size"), "bytes of memory", e);
    if (r >= 0 && (json_object_get(b, "hotplug_size") || !json_is_null(json_object_get(a, "hotplug_size"))))
        r = compare(json_object_get(a, "hotplug_size"), json_object_get(b, "hotplug_size"), "bytes to grow by", e);
    a = json_object_get(config, "payload");
    b = json_object_get(wanted, "payload");
    return r < 0 ? r
                 : compare(json_object_get(a, "cmdline"), json_object_get(b, "cmdline"), "the kernel's command line", e);
}

static int check_memory(const char *directory, const VmmSpec *spec, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    r = open_file(directory, CH_MEMORY, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "its memory");
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != spec->memory)
        return error_set(e, -EINVAL, "its memory has %lld bytes, not %llu", (long long)st.st_size,
                         (unsigned long long)spec->memory);
    if ((st.st_mode & 0222) != 0)
        return error_set(e, -EINVAL, "its memory can be written");
    return 0;
}

int ch_template_check(const char *directory, const VmmSpec *spec, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, CONFIG_NAME), *state = fs_join(directory, STATE_NAME);
    _cleanup_error_ Error why = ERROR_INIT;
    _cleanup_json_ json_t *config = NULL;
    int r;

    if (!path || !state)
        return error_set_errno(e, -ENOMEM, "cannot check a template");
    r = json_read_file(path, CONFIG_MAX, &config, &why);
    if (r == -ENOENT)
        return error_set(e, r, "there is no template in %s", directory);
    if (r >= 0)
        r = check_config(config, directory, spec, &why);
    if (r >= 0)
        r = check_memory(directory, spec, &why);
    if (r >= 0 && access(state, R_OK) < 0)
        r = error_set_errno(&why, -errno, "its state");
    if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
        return error_move(e, &why);
    if (r < 0)
        return error_set(e, -ESTALE, "the template in %s is of no use: %s", directory, error_message(&why));
    return 0;
}
