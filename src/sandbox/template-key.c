/* SPDX-License-Identifier: MIT */

#include "sandbox/template-key.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/fd.h"
#include "base/fs.h"

/* Of everything that is said nowhere else: raised when templates are made differently. */
#define TEMPLATE_FORMAT "1"
#define CPUINFO_MAX (4U << 20)

int template_file_stat(int fd, TemplateFileId *ret)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    *ret = (TemplateFileId){
        .device = st.st_dev,
        .inode = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_nsec = (uint64_t)st.st_mtim.tv_sec * 1000000000ULL + (uint64_t)st.st_mtim.tv_nsec,
        .ctime_nsec = (uint64_t)st.st_ctim.tv_sec * 1000000000ULL + (uint64_t)st.st_ctim.tv_nsec,
    };
    return 0;
}

bool template_input_same(const TemplateFileId *a, const TemplateFileId *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime_nsec == b->mtime_nsec;
}

bool template_file_same(const TemplateFileId *a, const TemplateFileId *b)
{
    return template_input_same(a, b) && a->ctime_nsec == b->ctime_nsec;
}

/* As execvp() finds it. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH") ?: "/usr/bin:/bin";

    if (strchr(name, '/'))
        return strdup(name);
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, ":");
        char *file = string_printf("%.*s/%s", (int)n, p, name);

        if (!file || access(file, X_OK) == 0)
            return file;
        free(file);
        p += n + (p[n] == ':');
    }
    errno = ENOENT;
    return NULL;
}

static int open_input(const SandboxSettings *settings, TemplateInput input)
{
    _cleanup_free_ char *program = NULL;
    const char *path;
    int fd;

    switch (input) {
    case TEMPLATE_KERNEL:
        path = settings->kernel;
        break;
    case TEMPLATE_ROOTFS:
        path = settings->rootfs;
        break;
    default:
        path = program = find_program(settings->vmm_binary);
        break;
    }
    if (!path)
        return -errno;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int template_base_holds(const SandboxSettings *settings, const TemplateBase *base)
{
    for (TemplateInput i = 0; i < _TEMPLATE_INPUT_MAX; i++) {
        _cleanup_close_ int fd = open_input(settings, i);
        TemplateFileId now;
        int r = fd < 0 ? fd : template_file_stat(fd, &now);

        if (r < 0)
            return r;
        if (!template_input_same(&now, &base->files[i]))
            return 0;
    }
    return 1;
}

/* Lines of the first CPU that say what a guest with this CPU may rely on. */
static int add_cpu(Sha256 *s)
{
    static const char *const keys[] = {"vendor_id", "cpu family", "model", "stepping", "microcode", "flags",
                                       "Features", "CPU implementer", "CPU variant", "CPU part"};
    _cleanup_free_ char *text = NULL;
    char *end;
    int r = fs_read_file("/proc/cpuinfo", CPUINFO_MAX, &text, NULL);

    if (r < 0)
        return r;
    end = strstr(text, "\n\n");
    if (end)
        *end = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
                sha256_add_string(s, line);
                break;
            }
    }
    return 0;
}

static int add_host(Sha256 *s)
{
    _cleanup_free_ char *boot_id = NULL;
    struct utsname host;
    int r = fs_read_file("/proc/sys/kernel/random/boot_id", 128, &boot_id, NULL);

    if (r < 0)
        return r;
    if (uname(&host) < 0)
        return -errno;
    sha256_add_string(s, boot_id);
    sha256_add_string(s, host.release);
    sha256_add_string(s, host.version);
    sha256_add_string(s, host.machine);
    return add_cpu(s);
}

static int read_input(const SandboxSettings *settings, TemplateInput input, const TemplateFileId *known,
                      TemplateFileId *ret, Error *e)
{
    static const char *const names[_TEMPLATE_INPUT_MAX] = {"the guest's kernel", "the guest's root file system",
                                                           "the VMM's program"};
    _cleanup_close_ int fd = open_input(settings, input);
    int r = fd < 0 ? fd : template_file_stat(fd, ret);

    if (r >= 0) {
        if (known->digest[0] && template_input_same(known, ret))
            memcpy(ret->digest, known->digest, sizeof(ret->digest));
        else
            r = sha256_fd_hex(fd, ret->digest);
    }
    return r < 0 ? error_set_errno(e, r, "cannot read %s", names[input]) : 0;
}

typedef struct BaseJob {
    const SandboxSettings *settings;
    TemplateBase known;
} BaseJob;

static json_t *find_base(const void *argument, Error *e)
{
    const BaseJob *job = argument;
    const SandboxSettings *settings = job->settings;
    TemplateBase base = {0};
    Sha256 s;
    int r;

    if (vmm_probe(settings->driver, settings->vmm_binary, settings->operation_timeout_usec, &base.features,
                  e) < 0)
        return NULL;
    if (!(base.features & VMM_TEMPLATE))
        return template_base_to(&base);
    sha256_init(&s);
    sha256_add_string(&s, TEMPLATE_FORMAT);
    sha256_add_string(&s, vmm_driver_name(settings->driver));
    for (TemplateInput i = 0; i < _TEMPLATE_INPUT_MAX; i++) {
        if (read_input(settings, i, &job->known.files[i], &base.files[i], e) < 0)
            return NULL;
        sha256_add_string(&s, base.files[i].digest);
    }
    r = add_host(&s);
    if (r < 0) {
        (void)error_set_errno(e, r, "cannot find out what the host is");
        return NULL;
    }
    sha256_finish_hex(&s, base.digest);
    return template_base_to(&base);
}

int template_base_start(Loop *loop, const SandboxSettings *settings, const TemplateBase *known,
                        JobDoneFn done, void *userdata, Job **ret, Error *e)
{
    BaseJob job = {.settings = settings, .known = *known};

    return job_start(loop, "templates cannot be used", find_base, &job, done, userdata, ret, e);
}

json_t *template_base_to(const TemplateBase *base)
{
    json_t *files = json_array();

    for (TemplateInput i = 0; files && i < _TEMPLATE_INPUT_MAX; i++) {
        const TemplateFileId *f = &base->files[i];

        (void)json_array_append_new(
            files, json_pack("{s:I, s:I, s:I, s:I, s:I, s:s}", "device", (json_int_t)f->device, "inode",
                             (json_int_t)f->inode, "size", (json_int_t)f->size, "mtime_nsec",
                             (json_int_t)f->mtime_nsec, "ctime_nsec", (json_int_t)f->ctime_nsec, "digest",
                             f->digest));
    }
    return json_pack("{s:I, s:s, s:o}", "features", (json_int_t)base->features, "digest", base->digest, "files",
                     files);
}

static int digest_from(json_t *json, const char *what, char ret[static SHA256_HEX_SIZE], Error *e)
{
    const char *digest = "";
    int r = json_get_string(json, "digest", what, &digest, e);

    if (r < 0)
        return r;
    if (strlen(digest) >= SHA256_HEX_SIZE)
        return error_set(e, -EBADMSG, "%s: that is no digest", what);
    snprintf(ret, SHA256_HEX_SIZE, "%s", digest);
    return 0;
}

int template_base_from(json_t *json, TemplateBase *ret, Error *e)
{
    static const char what[] = "what templates are made of";
    TemplateBase base = {0};
    json_t *files = NULL;
    uint64_t features = 0;
    int r;

    r = json_get_uint(json, "features", what, 0, UINT32_MAX, &features, e);
    if (r >= 0)
        r = digest_from(json, what, base.digest, e);
    if (r >= 0)
        r = json_get_array(json, "files", what, &files, e);
    for (TemplateInput i = 0; r >= 0 && i < _TEMPLATE_INPUT_MAX; i++) {
        json_t *file = json_array_get(files, i);
        TemplateFileId *f = &base.files[i];

        if (!json_is_object(file))
            return error_set(e, -EBADMSG, "%s: a file is missing", what);
        if ((r = json_get_uint(file, "device", what, 0, INT64_MAX, &f->device, e)) < 0 ||
            (r = json_get_uint(file, "inode", what, 0, INT64_MAX, &f->inode, e)) < 0 ||
            (r = json_get_uint(file, "size", what, 0, INT64_MAX, &f->size, e)) < 0 ||
            (r = json_get_uint(file, "mtime_nsec", what, 0, INT64_MAX, &f->mtime_nsec, e)) < 0 ||
            (r = json_get_uint(file, "ctime_nsec", what, 0, INT64_MAX, &f->ctime_nsec, e)) < 0)
            return r;
        r = digest_from(file, what, f->digest, e);
    }
    if (r < 0)
        return r;
    base.features = (unsigned)features;
    *ret = base;
    return 0;
}

void template_key(const SandboxSettings *settings, const TemplateBase *base, const TemplateClass *class,
                  char ret[static TEMPLATE_KEY_SIZE])
{
    char hex[SHA256_HEX_SIZE], numbers[160];
    Sha256 s;

    snprintf(numbers, sizeof(numbers), "%u vcpus, %llu MiB, %u containers, emulated %i, gid %u", class->vcpus,
             (unsigned long long)class->memory_mb, settings->max_containers, settings->emulate, settings->gid);
    sha256_init(&s);
    sha256_add_string(&s, base->digest);
    sha256_add_string(&s, numbers);
    sha256_add_string(&s, settings->kernel_args);
    sha256_finish_hex(&s, hex);
    memcpy(ret, hex, TEMPLATE_KEY_SIZE - 1);
    ret[TEMPLATE_KEY_SIZE - 1] = 0;
}

bool template_key_is_valid(const char *name)
{
    return strlen(name) == TEMPLATE_KEY_SIZE - 1 && strspn(name, "0123456789abcdef") == TEMPLATE_KEY_SIZE - 1;
}
