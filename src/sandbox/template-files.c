/* SPDX-License-Identifier: MIT */

#include "sandbox/template-files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"

#define MANIFEST "template.json"
#define MANIFEST_MAX (64 * 1024)
#define MANIFEST_VERSION 1
#define BLOCK (64 * 1024)

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* A digest of the content that does not read holes, nor depends on where there are some: blocks of zeros are
 * left out, the others come with their place. */
static int digest_file(int fd, uint64_t size, char ret[static SHA256_HEX_SIZE])
{
    static uint8_t buffer[BLOCK];
    uint64_t at = 0;
    Sha256 s;

    sha256_init(&s);
    while (at < size) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        size_t want = size - at < BLOCK ? (size_t)(size - at) : BLOCK, n = 0;

        if (data < 0 && errno == ENXIO)
            break;
        if (data > (off_t)at && (uint64_t)data / BLOCK > at / BLOCK) {
            at = (uint64_t)data / BLOCK * BLOCK;
            continue;
        }
        while (n < want) {
            ssize_t k = pread(fd, buffer + n, want - n, (off_t)(at + n));

            if (k < 0 && errno == EINTR)
                continue;
            if (k < 0)
                return -errno;
            if (k == 0)
                return -EIO; /* it has become shorter */
            n += (size_t)k;
        }
        if (!is_zero(buffer, n)) {
            sha256_add(&s, &at, sizeof(at));
            sha256_add(&s, buffer, n);
        }
        at += n;
    }
    sha256_add(&s, &size, sizeof(size));
    sha256_finish_hex(&s, ret);
    return 0;
}

static int open_file(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);

    return fd < 0 ? -errno : fd;
}

static int add_file(TemplateManifest *m, int dir_fd, const char *name, Error *e)
{
    _cleanup_close_ int fd = open_file(dir_fd, name);
    TemplateFile *f = &m->files[m->n_files];
    struct stat st;
    int r = fd;

    if (strlen(name) > TEMPLATE_NAME_MAX || m->n_files == TEMPLATE_FILES_MAX)
        return error_set(e, -E2BIG, "the template's file %s is one too many, or its name too long", name);
    if (r >= 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r >= 0 && !S_ISREG(st.st_mode))
        r = -EINVAL;
    if (r >= 0)
        r = template_file_stat(fd, &f->id);
    if (r >= 0)
        r = digest_file(fd, f->id.size, f->id.digest);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the template's file %s", name);
    snprintf(f->name, sizeof(f->name), "%s", name);
    m->bytes += (uint64_t)st.st_blocks * 512;
    m->n_files++;
    return 0;
}

static int write_manifest(const char *directory, const TemplateManifest *m, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, MANIFEST), *text = NULL;
    _cleanup_json_ json_t *j = NULL;
    json_t *files = json_array();
    int r;

    for (size_t i = 0; files && i < m->n_files; i++) {
        const TemplateFile *f = &m->files[i];

        (void)json_array_append_new(
            files, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "name", f->name, "digest", f->id.digest,
                             "device", (json_int_t)f->id.device, "inode", (json_int_t)f->id.inode, "size",
                             (json_int_t)f->id.size, "mtime_nsec", (json_int_t)f->id.mtime_nsec, "ctime_nsec",
                             (json_int_t)f->id.ctime_nsec));
    }
    j = json_pack("{s:i, s:I, s:I, s:I, s:I, s:o}", "version", MANIFEST_VERSION, "vcpus",
                  (json_int_t)m->class.vcpus, "memory_mb", (json_int_t)m->class.memory_mb, "created_usec",
                  (json_int_t)m->created_usec, "bytes", (json_int_t)m->bytes, "files", files);
    text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    if (!path || !text)
        return error_set_errno(e, -ENOMEM, "cannot write a template's manifest");
    r = fs_write_file_atomic(path, text, strlen(text), 0400);
    return r < 0 ? error_set_errno(e, r, "cannot write %s", path) : 0;
}

int template_manifest_make(const char *directory, const TemplateClass *class, TemplateManifest *ret, Error *e)
{
    _cleanup_closedir_ DIR *dir = opendir(directory);
    TemplateManifest m = {.class = *class};
    struct timespec now;
    struct dirent *de;
    int r;

    if (!dir)
        return error_set_errno(e, -errno, "cannot read the template %s", directory);
    while ((errno = 0, de = readdir(dir))) {
        if (de->d_name[0] == '.' || strcmp(de->d_name, MANIFEST) == 0)
            continue;
        r = add_file(&m, dirfd(dir), de->d_name, e);
        if (r < 0)
            return r;
    }
    if (errno != 0)
        return error_set_errno(e, -errno, "cannot read the template %s", directory);
    if (m.n_files == 0)
        return error_set(e, -ENODATA, "the VMM saved nothing into the template %s", directory);
    clock_gettime(CLOCK_REALTIME, &now);
    m.created_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / NSEC_PER_USEC;
    r = write_manifest(directory, &m, e);
    if (r < 0)
        return r;
    *ret = m;
    return 0;
}

static int read_file(json_t *json, const char *path, TemplateFile *f, Error *e)
{
    const char *name = "", *digest = "";
    int r;

    if ((r = json_get_string(json, "name", path, &name, e)) < 0 ||
        (r = json_get_string(json, "digest", path, &digest, e)) < 0 ||
        (r = json_get_uint(json, "device", path, 0, INT64_MAX, &f->id.device, e)) < 0 ||
        (r = json_get_uint(json, "inode", path, 0, INT64_MAX, &f->id.inode, e)) < 0 ||
        (r = json_get_uint(json, "size", path, 0, INT64_MAX, &f->id.size, e)) < 0 ||
        (r = json_get_uint(json, "mtime_nsec", path, 0, INT64_MAX, &f->id.mtime_nsec, e)) < 0 ||
        (r = json_get_uint(json, "ctime_nsec", path, 0, INT64_MAX, &f->id.ctime_nsec, e)) < 0)
        return r;
    if (!*name || strlen(name) > TEMPLATE_NAME_MAX || strchr(name, '/') ||
        strlen(digest) != SHA256_HEX_SIZE - 1)
        return error_set(e, -EBADMSG, "%s: a file has no proper name or digest", path);
    snprintf(f->name, sizeof(f->name), "%s", name);
    snprintf(f->id.digest, sizeof(f->id.digest), "%s", digest);
    return 0;
}

int template_manifest_read(const char *directory, TemplateManifest *ret, Error *e)
{
    _cleanup_free_ char *path = fs_join(directory, MANIFEST);
    _cleanup_json_ json_t *j = NULL;
    json_t *files = NULL, *file;
    TemplateManifest m = {0};
    uint64_t version = 0, vcpus = 0;
    size_t i;
    int r;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot read a template's manifest");
    r = json_read_file(path, MANIFEST_MAX, &j, e);
    if (r < 0)
        return r;
    if ((r = json_get_uint(j, "version", path, 0, UINT32_MAX, &version, e)) < 0 ||
        (r = json_get_uint(j, "vcpus", path, 1, 1024, &vcpus, e)) < 0 ||
        (r = json_get_uint(j, "memory_mb", path, 1, 1 << 24, &m.class.memory_mb, e)) < 0 ||
        (r = json_get_uint(j, "created_usec", path, 0, INT64_MAX, &m.created_usec, e)) < 0 ||
        (r = json_get_uint(j, "bytes", path, 0, INT64_MAX, &m.bytes, e)) < 0 ||
        (r = json_get_array(j, "files", path, &files, e)) < 0)
        return r;
    if (version != MANIFEST_VERSION || vcpus == 0 || json_array_size(files) == 0 ||
        json_array_size(files) > TEMPLATE_FILES_MAX)
        return error_set(e, -EBADMSG, "%s: another version, or without files", path);
    m.class.vcpus = (unsigned)vcpus;
    json_array_foreach (files, i, file) {
        r = read_file(file, path, &m.files[m.n_files], e);
        if (r < 0)
            return r;
        m.n_files++;
    }
    *ret = m;
    return 0;
}

static TemplateVerdict check_file(int dir_fd, const TemplateFile *f, bool wholly, Error *reason)
{
    _cleanup_close_ int fd = open_file(dir_fd, f->name);
    TemplateFileId now;
    int r = fd < 0 ? fd : template_file_stat(fd, &now);

    if (r >= 0 && now.size != f->id.size) {
        (void)error_set(reason, -EBADMSG, "its file %s has %llu bytes, not %llu", f->name,
                        (unsigned long long)now.size, (unsigned long long)f->id.size);
        return TEMPLATE_DAMAGED;
    }
    if (r >= 0 && !wholly && now.size > TEMPLATE_SMALL_MAX)
        return template_file_same(&now, &f->id) ? TEMPLATE_SOUND : TEMPLATE_UNSURE;
    if (r >= 0)
        r = digest_file(fd, now.size, now.digest);
    if (r < 0)
        (void)error_set_errno(reason, r, "its file %s cannot be read", f->name);
    else if (strcmp(now.digest, f->id.digest) != 0)
        (void)error_set(reason, -EBADMSG, "its file %s is not what was written", f->name);
    else
        return TEMPLATE_SOUND;
    return TEMPLATE_DAMAGED;
}

TemplateVerdict template_check(const char *directory, const TemplateManifest *m, bool wholly, Error *reason)
{
    _cleanup_close_ int dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    TemplateVerdict worst = TEMPLATE_SOUND;

    if (dir_fd < 0) {
        (void)error_set_errno(reason, -errno, "its directory cannot be read");
        return TEMPLATE_DAMAGED;
    }
    for (size_t i = 0; i < m->n_files && worst != TEMPLATE_DAMAGED; i++) {
        TemplateVerdict v = check_file(dir_fd, &m->files[i], wholly, reason);

        worst = v < worst ? v : worst;
    }
    return worst;
}
