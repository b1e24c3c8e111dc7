/* SPDX-License-Identifier: MIT */

#include "vmm/qemu-template.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/sha256.h"
#include "vmm/qemu-args.h"

#define MEMORY_NAME "ram"
#define STATE_NAME "state"
#define MANIFEST_NAME "qemu.json"
#define MANIFEST_VERSION 1
#define MANIFEST_MAX (64 * 1024)
/* Half a megabyte, as a rule. */
#define STATE_MAX (64 * 1024 * 1024)
/* Readable by clones, writable by nobody. */
#define COMPLETE_MODE 0440

struct QemuTemplate {
    char *directory;
    json_t *settings;
    gid_t gid;
    bool owns_files; /* until they are a template */
};

static int remove_file(const char *directory, const char *name)
{
    _cleanup_free_ char *path = fs_join(directory, name);

    if (!path)
        return -ENOMEM;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int open_file(const char *directory, const char *name, int flags, int *ret_fd, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, name);
    int fd = path ? open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600) : -1;

    if (fd < 0)
        return error_set_errno(e, path ? -errno : -ENOMEM, "cannot open %s of the template in %s", name,
                               directory);
    *ret_fd = fd;
    return 0;
}

/* What a template and its clones have to agree on. Kernel and root file system are in the memory, so to speak,
 * but only their owner knows whether they are what they were. */
static json_t *settings_of(const VmmSpec *spec, unsigned n_slots)
{
    struct stat st = {0};

    (void)stat(spec->rootfs, &st);
    return json_pack("{s:b, s:i, s:i, s:I, s:i, s:I, s:s}", "emulate", spec->emulate, "vcpus",
                     (int)spec->vcpus, "max_vcpus", (int)spec->max_vcpus, "memory", (json_int_t)spec->memory,
                     "slots", (int)n_slots, "rootfs_size", (json_int_t)st.st_size, "kernel_args",
                     spec->kernel_args);
}

/* Making one */

static int create_memory(const QemuTemplate *t, const VmmSpec *spec, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    int r;

    r = open_file(t->directory, MEMORY_NAME, O_RDWR | O_CREAT | O_EXCL, &fd, e);
    if (r < 0)
        return r;
    if (ftruncate(fd, (off_t)spec->memory) < 0 || fchown(fd, spec->uid, spec->gid) < 0) {
        r = error_set_errno(e, -errno, "cannot make the memory of the template in %s", t->directory);
        (void)remove_file(t->directory, MEMORY_NAME);
    }
    return r;
}

int qemu_template_new(const VmmSpec *spec, unsigned n_slots, QemuTemplate **ret, Error *e)
{
    _cleanup_(qemu_template_freep) QemuTemplate *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return error_set_errno(e, -ENOMEM, "cannot make a template");
    t->gid = spec->gid;
    t->directory = strdup(spec->template_directory);
    t->settings = settings_of(spec, n_slots);
    if (!t->directory || !t->settings)
        return error_set_errno(e, -ENOMEM, "cannot make a template");
    r = create_memory(t, spec, e);
    if (r < 0)
        return r;
    t->owns_files = true;
    *ret = TAKE_PTR(t);
    return 0;
}

QemuTemplate *qemu_template_free(QemuTemplate *t)
{
    if (!t)
        return NULL;
    if (t->owns_files) {
        qemu_template_remove_state(t);
        (void)remove_file(t->directory, MEMORY_NAME);
    }
    free(t->directory);
    json_decref(t->settings);
    free(t);
    return NULL;
}

const char *qemu_template_directory(const QemuTemplate *t)
{
    return t->directory;
}

char *qemu_template_memory_path(const char *directory)
{
    return fs_join(directory, MEMORY_NAME);
}

int qemu_template_create_state(QemuTemplate *t, int *ret_fd, Error *e)
{
    qemu_template_remove_state(t);
    return open_file(t->directory, STATE_NAME, O_WRONLY | O_CREAT | O_EXCL, ret_fd, e);
}

void qemu_template_remove_state(QemuTemplate *t)
{
    (void)remove_file(t->directory, MANIFEST_NAME);
    (void)remove_file(t->directory, STATE_NAME);
}

/* Takes a file from whoever has it. */
static int seal(int fd, gid_t gid)
{
    return fchown(fd, 0, gid) < 0 || fchmod(fd, COMPLETE_MODE) < 0 ? -errno : 0;
}

/* Tells whether it still is the same file, and as it was. */
static char *identity_of(const struct stat *st)
{
    return string_printf("%llx.%llx.%lld.%09ld", (unsigned long long)st->st_ino,
                         (unsigned long long)st->st_size, (long long)st->st_mtim.tv_sec,
                         (long)st->st_mtim.tv_nsec);
}

static int describe_memory(const QemuTemplate *t, char **ret, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    r = open_file(t->directory, MEMORY_NAME, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    r = seal(fd, t->gid);
    if (r >= 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r < 0)
        return error_set_errno(e, r, "cannot take over the memory of the template in %s", t->directory);
    *ret = identity_of(&st);
    return *ret ? 0 : error_set_errno(e, -ENOMEM, "cannot complete a template");
}

static int describe_state(const QemuTemplate *t, char digest[static SHA256_HEX_SIZE], Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    r = open_file(t->directory, STATE_NAME, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    r = seal(fd, t->gid);
    if (r >= 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r >= 0 && (st.st_size == 0 || st.st_size > STATE_MAX))
        return error_set(e, -EIO, "QEMU wrote %lld bytes as the state of the template in %s",
                         (long long)st.st_size, t->directory);
    if (r >= 0)
        r = sha256_fd_hex(fd, digest);
    return r < 0 ? error_set_errno(e, r, "cannot read the state of the template in %s", t->directory) : 0;
}

int qemu_template_complete(QemuTemplate *t, const QemuTemplateOrigin *origin, Error *e)
{
    _cleanup_free_ char *memory = NULL, *path = NULL, *text = NULL;
    _cleanup_json_ json_t *manifest = NULL;
    char digest[SHA256_HEX_SIZE];
    int r;

    r = describe_memory(t, &memory, e);
    if (r >= 0)
        r = describe_state(t, digest, e);
    if (r < 0)
        return r;
    manifest = json_pack("{s:i, s:s, s:i, s:s, s:s, s:O}", "version", MANIFEST_VERSION, "qemu",
                         origin->qemu_version, "used_slots", (int)origin->used_slots, "ram", memory, "state",
                         digest, "settings", t->settings);
    text = manifest ? json_dumps(manifest, JSON_INDENT(2)) : NULL;
    path = fs_join(t->directory, MANIFEST_NAME);
    r = text && path ? fs_write_file_atomic(path, text, strlen(text), COMPLETE_MODE) : -ENOMEM;
    if (r < 0)
        return error_set_errno(e, r, "cannot complete the template in %s", t->directory);
    t->owns_files = false;
    return 0;
}

/* Using one */

typedef struct Manifest {
    const char *qemu, *ram, *state;
    uint64_t used_slots;
    json_t *settings;
} Manifest;

static int read_manifest(json_t *json, const char *path, Manifest *ret, Error *e)
{
    uint64_t version = 0;
    Manifest m = {0};
    int r;

    r = json_get_uint(json, "version", path, MANIFEST_VERSION, MANIFEST_VERSION, &version, e);
    if (r >= 0)
        r = json_get_string(json, "qemu", path, &m.qemu, e);
    if (r >= 0)
        r = json_get_uint(json, "used_slots", path, 0, QEMU_SLOTS_MAX, &m.used_slots, e);
    if (r >= 0)
        r = json_get_string(json, "ram", path, &m.ram, e);
    if (r >= 0)
        r = json_get_string(json, "state", path, &m.state, e);
    if (r >= 0)
        r = json_get_object(json, "settings", path, &m.settings, e);
    if (r < 0)
        return r;
    if (version == 0 || !m.qemu || !m.ram || !m.state || !m.settings)
        return error_set(e, -EINVAL, "%s: version, qemu, ram, state or settings is missing", path);
    *ret = m;
    return 0;
}

static int check_settings(const Manifest *m, const VmmSpec *spec, unsigned n_slots, Error *e)
{
    _cleanup_json_ json_t *wanted = settings_of(spec, n_slots);
    const char *key;
    json_t *value;

    if (!wanted)
        return error_set_errno(e, -ENOMEM, "cannot check a template");
    json_object_foreach (wanted, key, value) {
        json_t *have = json_object_get(m->settings, key);
        _cleanup_free_ char *a = NULL, *b = NULL;

        if (json_equal(value, have))
            continue;
        a = have ? json_dumps(have, JSON_ENCODE_ANY) : NULL;
        b = json_dumps(value, JSON_ENCODE_ANY);
        return error_set(e, -EINVAL, "it was made with %s %.256s, not %.256s", key, a ?: "unknown", b ?: "");
    }
    return 0;
}

static int check_memory(const char *directory, const Manifest *m, Error *e)
{
    _cleanup_free_ char *identity = NULL;
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    r = open_file(directory, MEMORY_NAME, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "its memory");
    if ((st.st_mode & 0222) != 0)
        return error_set(e, -EINVAL, "its memory can be written");
    identity = identity_of(&st);
    if (!identity)
        return error_set_errno(e, -ENOMEM, "its memory");
    if (strcmp(identity, m->ram) != 0)
        return error_set(e, -EINVAL, "its memory was changed since");
    return 0;
}

/* Reads all of it: it is small, and a damaged one would make a guest that is subtly wrong. */
static int open_state(const char *directory, const Manifest *m, int *ret_fd, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    char digest[SHA256_HEX_SIZE];
    struct stat st;
    int r;

    r = open_file(directory, STATE_NAME, O_RDONLY, &fd, e);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "its state");
    if (!S_ISREG(st.st_mode) || st.st_size > STATE_MAX)
        return error_set(e, -EINVAL, "its state is no file of at most %i bytes", STATE_MAX);
    r = sha256_fd_hex(fd, digest);
    if (r >= 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    if (r < 0)
        return error_set_errno(e, r, "its state");
    if (strcmp(digest, m->state) != 0)
        return error_set(e, -EINVAL, "its state is damaged: %lld bytes that are not what was written",
                         (long long)st.st_size);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_checked(const char *directory, json_t *json, const char *path, const VmmSpec *spec,
                        unsigned n_slots, int *ret_state_fd, QemuTemplateOrigin *ret, Error *e)
{
    _cleanup_free_ char *version = NULL;
    Manifest m;
    int r;

    r = read_manifest(json, path, &m, e);
    if (r >= 0)
        r = check_settings(&m, spec, n_slots, e);
    if (r >= 0)
        r = check_memory(directory, &m, e);
    if (r < 0)
        return r;
    version = strdup(m.qemu);
    if (!version)
        return error_set_errno(e, -ENOMEM, "cannot check a template");
    r = open_state(directory, &m, ret_state_fd, e);
    if (r < 0)
        return r;
    *ret = (QemuTemplateOrigin){.qemu_version = TAKE_PTR(version), .used_slots = (unsigned)m.used_slots};
    return 0;
}

int qemu_template_open(const char *directory, const VmmSpec *spec, unsigned n_slots, int *ret_state_fd,
                       QemuTemplateOrigin *ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, MANIFEST_NAME);
    _cleanup_error_ Error why = ERROR_INIT;
    _cleanup_json_ json_t *json = NULL;
    int r;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot check a template");
    r = json_read_file(path, MANIFEST_MAX, &json, &why);
    if (r == -ENOENT)
        return error_set(e, r, "there is no template in %s", directory);
    if (r >= 0)
        r = open_checked(directory, json, path, spec, n_slots, ret_state_fd, ret, &why);
    if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
        return error_move(e, &why);
    if (r < 0)
        return error_set(e, -ESTALE, "the template in %s is of no use: %s", directory, error_message(&why));
    return 0;
}
