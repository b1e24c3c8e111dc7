/* SPDX-License-Identifier: MIT */

#include "sandbox/state.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"

#define STATE_FILE_MAX (1024 * 1024)

static void container_clear(SandboxContainer *c)
{
    for (size_t i = 0; i < c->n_serials; i++)
        free(c->serials[i]);
    free(c->serials);
    free(c->id);
    *c = (SandboxContainer){0};
}

void sandbox_state_clear(SandboxState *s)
{
    for (size_t i = 0; i < s->n_containers; i++)
        container_clear(&s->containers[i]);
    free(s->containers);
    free(s->namespace);
    free(s->sandbox_id);
    free(s->bundle);
    free(s->source);
    free(s->purpose);
    free(s->template);
    free(s->vm);
    free(s->kernel_release);
    json_decref(s->vmm);
    *s = (SandboxState){0};
}

char *state_file_path(const char *state_dir, const char *key)
{
    return string_printf("%s/sandboxes/%s.json", state_dir, key);
}

char *state_vm_directory(const char *state_dir, const char *key)
{
    return string_printf("%s/vm/%s", state_dir, key);
}

char *sandbox_state_vm_directory(const char *state_dir, const char *key, const SandboxState *state)
{
    return state_vm_directory(state_dir, state->vm ?: key);
}

int state_prepare_directory(const char *state_dir, Error *e)
{
    static const struct {
        const char *name;
        mode_t mode;
    } below[] = {
        {"sandboxes", 0700},
        {"vm", 0700},
    };
    int r = fs_mkdir_p(state_dir, 0711);

    if (r < 0)
        return error_set_errno(e, r, "cannot make the state directory %s", state_dir);
    for (size_t i = 0; i < ELEMENTSOF(below); i++) {
        _cleanup_free_ char *path = fs_join(state_dir, below[i].name);

        r = path ? fs_mkdir_p(path, below[i].mode) : -ENOMEM;
        if (r >= 0 && chmod(path, below[i].mode) < 0) /* whatever the umask was */
            r = -errno;
        if (r < 0)
            return error_set_errno(e, r, "cannot make %s/%s", state_dir, below[i].name);
    }
    return 0;
}

static json_t *containers_to_json(const SandboxState *s)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < s->n_containers; i++) {
        const SandboxContainer *c = &s->containers[i];
        json_t *disks = json_array();

        for (size_t k = 0; disks && k < c->n_serials; k++)
            json_array_append_new(disks, json_string(c->serials[k]));
        json_array_append_new(array, json_pack("{s:s, s:o}", "id", c->id, "disks", disks));
    }
    return array;
}

int sandbox_state_write(const char *state_dir, const char *key, const SandboxState *s, Error *e)
{
    _cleanup_free_ char *path = state_file_path(state_dir, key), *text = NULL;
    _cleanup_json_ json_t *j = NULL;
    int r;

    j = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s*, s:s*, s:s*, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:s*, s:b, "
                  "s:O*, s:o}",
                  "version", STATE_VERSION, "namespace", s->namespace, "sandbox", s->sandbox_id, "bundle",
                  s->bundle ?: "", "source", s->source ?: "", "purpose", s->purpose, "template", s->template,
                  "vm", s->vm, "shim_pid", (json_int_t)s->shim_pid,
                  "shim_start_time", (json_int_t)s->shim_start_time, "uid", (json_int_t)s->uid, "running",
                  (int)s->running, "vcpus", (json_int_t)s->vcpus, "memory_mb", (json_int_t)s->memory_mb,
                  "since_usec", (json_int_t)s->since_usec, "kernel_release", s->kernel_release, "emulated",
                  (int)s->emulated, "vmm", s->vmm, "containers", containers_to_json(s));
    text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (!path || !text)
        return error_set_errno(e, -ENOMEM, "cannot write the state of sandbox %s", s->sandbox_id);
    r = fs_write_file_atomic(path, text, strlen(text), 0600);
    if (r < 0)
        return error_set_errno(e, r, "cannot write %s", path);
    return 0;
}

static int read_string(json_t *j, const char *key, const char *what, char **ret, Error *e)
{
    const char *value = NULL;
    int r = json_get_string(j, key, what, &value, e);

    if (r <= 0)
        return r;
    *ret = strdup(value);
    return *ret ? 1 : error_set_errno(e, -ENOMEM, "cannot read %s", what);
}

static int read_containers(json_t *j, const char *path, SandboxState *s, Error *e)
{
    json_t *array = NULL, *item;
    size_t i;
    int r = json_get_array(j, "containers", path, &array, e);

    if (r <= 0)
        return r;
    json_array_foreach (array, i, item) {
        const char *id = NULL;
        json_t *disks = NULL, *serial;
        SandboxContainer *c;
        size_t k;

        r = json_get_string(item, "id", path, &id, e);
        if (r >= 0)
            r = json_get_array(item, "disks", path, &disks, e);
        if (r < 0)
            return r;
        if (!id)
            return error_set(e, -EBADMSG, "%s: a container has no id", path);
        c = sandbox_state_add_container(s, id);
        if (!c)
            return error_set_errno(e, -ENOMEM, "cannot read %s", path);
        json_array_foreach (disks, k, serial) {
            if (!json_is_string(serial))
                return error_set(e, -EBADMSG, "%s: a disk of container %s is no string", path, id);
            if (sandbox_container_add_serial(c, json_string_value(serial)) < 0)
                return error_set_errno(e, -ENOMEM, "cannot read %s", path);
        }
    }
    return 0;
}

int sandbox_state_read(const char *state_dir, const char *key, SandboxState *ret, Error *e)
{
    _cleanup_free_ char *path = state_file_path(state_dir, key);
    _cleanup_sandbox_state_ SandboxState s = {0};
    _cleanup_json_ json_t *j = NULL;
    uint64_t version = 0, shim_pid = 0, uid = 0, vcpus = 0;
    json_t *vmm = NULL;
    int r;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot read the state of a sandbox");
    r = json_read_file(path, STATE_FILE_MAX, &j, e);
    if (r < 0)
        return r;
    if (!json_is_object(j))
        return error_set(e, -EBADMSG, "%s: not an object", path);
    if ((r = json_get_uint(j, "version", path, 0, UINT32_MAX, &version, e)) < 0)
        return r;
    if (version != STATE_VERSION)
        return error_set(e, -EPROTO, "%s: has version %llu, but this program reads version %i", path,
                         (unsigned long long)version, STATE_VERSION);
    if ((r = read_string(j, "namespace", path, &s.namespace, e)) < 0 ||
        (r = read_string(j, "sandbox", path, &s.sandbox_id, e)) < 0 ||
        (r = read_string(j, "bundle", path, &s.bundle, e)) < 0 ||
        (r = read_string(j, "source", path, &s.source, e)) < 0 ||
        (r = read_string(j, "purpose", path, &s.purpose, e)) < 0 ||
        (r = read_string(j, "template", path, &s.template, e)) < 0 ||
        (r = read_string(j, "vm", path, &s.vm, e)) < 0 ||
        (r = read_string(j, "kernel_release", path, &s.kernel_release, e)) < 0 ||
        (r = json_get_uint(j, "shim_pid", path, 0, INT32_MAX, &shim_pid, e)) < 0 ||
        (r = json_get_uint(j, "shim_start_time", path, 0, INT64_MAX, &s.shim_start_time, e)) < 0 ||
        (r = json_get_uint(j, "uid", path, 1, UINT32_MAX - 1, &uid, e)) < 0 ||
        (r = json_get_bool(j, "running", path, &s.running, e)) < 0 ||
        (r = json_get_uint(j, "vcpus", path, 0, UINT32_MAX, &vcpus, e)) < 0 ||
        (r = json_get_uint(j, "memory_mb", path, 0, INT64_MAX, &s.memory_mb, e)) < 0 ||
        (r = json_get_uint(j, "since_usec", path, 0, INT64_MAX, &s.since_usec, e)) < 0 ||
        (r = json_get_bool(j, "emulated", path, &s.emulated, e)) < 0 ||
        (r = json_get_object(j, "vmm", path, &vmm, e)) < 0 || (r = read_containers(j, path, &s, e)) < 0)
        return r;
    if (!s.namespace || !s.sandbox_id || uid == 0)
        return error_set(e, -EBADMSG, "%s: namespace, sandbox or uid is missing", path);
    if (s.vm && (strlen(s.vm) != SANDBOX_KEY_SIZE - 1 ||
                 strspn(s.vm, "0123456789abcdef") != SANDBOX_KEY_SIZE - 1))
        return error_set(e, -EBADMSG, "%s: \"%s\" names no directory of a VM", path, s.vm);
    s.shim_pid = (uint32_t)shim_pid;
    s.uid = (uid_t)uid;
    s.vcpus = (unsigned)vcpus;
    s.vmm = json_incref(vmm);
    *ret = s;
    s = (SandboxState){0};
    return 0;
}

SandboxContainer *sandbox_state_find_container(SandboxState *s, const char *id)
{
    for (size_t i = 0; i < s->n_containers; i++)
        if (strcmp(s->containers[i].id, id) == 0)
            return &s->containers[i];
    return NULL;
}

SandboxContainer *sandbox_state_add_container(SandboxState *s, const char *id)
{
    SandboxContainer *c = reallocarray(s->containers, s->n_containers + 1, sizeof(*c));

    if (!c)
        return NULL;
    s->containers = c;
    c += s->n_containers;
    *c = (SandboxContainer){.id = strdup(id)};
    if (!c->id)
        return NULL;
    s->n_containers++;
    return c;
}

void sandbox_state_drop_container(SandboxState *s, const char *id)
{
    SandboxContainer *c = sandbox_state_find_container(s, id);

    if (!c)
        return;
    container_clear(c);
    s->n_containers--;
    memmove(c, c + 1, (size_t)(s->containers + s->n_containers - c) * sizeof(*c));
}

int sandbox_container_add_serial(SandboxContainer *c, const char *serial)
{
    char **p = reallocarray(c->serials, c->n_serials + 1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    c->serials = p;
    p[c->n_serials] = strdup(serial);
    if (!p[c->n_serials])
        return -ENOMEM;
    c->n_serials++;
    return 0;
}
