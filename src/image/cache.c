/* SPDX-License-Identifier: MIT */

#include "image/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"

#define INDEX_ENTRY_MAX 4096
#define TEMPORARY_PREFIX ".tmp-"
/* A temporary file of an index entry that has this age was left by a write that did not end. */
#define STALE_SECS 3600

/* What an entry of the index says. */
typedef struct IndexEntry {
    char digest[SHA256_HEX_SIZE];
    uint64_t size, inode, mtime_nsec; /* of the image's file when its content was last verified */
} IndexEntry;

void cached_image_clear(CachedImage *image)
{
    fd_close(image->fd);
    free(image->path);
    *image = CACHED_IMAGE_INIT;
}

static char *path_of(const ImageConfig *config, const char *directory, const char *name, const char *suffix)
{
    return string_printf("%s/%s/%s%s", config->cache_dir, directory, name, suffix);
}

int cache_prepare(const ImageConfig *config, Error *e)
{
    static const char *const below[] = {"images", "index", "locks", "scratch"};
    int r = fs_mkdir_p(config->cache_dir, 0700);

    if (r < 0)
        return error_set_errno(e, r, "cannot make the image cache %s", config->cache_dir);
    for (size_t i = 0; i < ELEMENTSOF(below); i++) {
        _cleanup_free_ char *path = fs_join(config->cache_dir, below[i]);

        if (!path)
            return error_set_errno(e, -ENOMEM, "cannot use the image cache");
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return error_set_errno(e, -errno, "cannot make %s", path);
    }
    return 0;
}

/* Files that no index entry names yet, and those that are being removed, exclude each other: makers hold "gc"
 * shared for the moment, image_gc() exclusively. */
static int lock_file(const ImageConfig *config, const char *name, int operation, Error *e)
{
    _cleanup_free_ char *path = path_of(config, "locks", name, "");
    _cleanup_close_ int fd = -EBADF;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot use the image cache");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open the lock %s", path);
    while (flock(fd, operation) < 0)
        if (errno != EINTR)
            return error_set_errno(e, -errno, "cannot lock %s", path);
    return TAKE_FD(fd);
}

int cache_lock(const ImageConfig *config, const char *identity, Error *e)
{
    char name[3] = {identity[0], identity[1], 0};

    return lock_file(config, name, LOCK_EX, e);
}

static bool is_digest(const char *text)
{
    return strlen(text) == SHA256_HEX_SIZE - 1 && strspn(text, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
}

static int entry_read(const char *path, IndexEntry *ret)
{
    _cleanup_json_ json_t *j = NULL;
    IndexEntry entry = {0};
    const char *digest = NULL;
    int r = json_read_file(path, INDEX_ENTRY_MAX, &j, NULL);

    if (r < 0)
        return r;
    if (json_get_string(j, "digest", path, &digest, NULL) != 1 || !is_digest(digest) ||
        json_get_uint(j, "size", path, 1, INT64_MAX, &entry.size, NULL) != 1 ||
        json_get_uint(j, "inode", path, 0, INT64_MAX, &entry.inode, NULL) != 1 ||
        json_get_uint(j, "mtime_nsec", path, 0, INT64_MAX, &entry.mtime_nsec, NULL) != 1)
        return -EBADMSG;
    memcpy(entry.digest, digest, SHA256_HEX_SIZE);
    *ret = entry;
    return 0;
}

static uint64_t mtime_nsec(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * 1000000000ULL + (uint64_t)st->st_mtim.tv_nsec;
}

static int entry_write(const char *path, const char *digest, const struct stat *st, Error *e)
{
    _cleanup_free_ char *text = string_printf(
        "{\"digest\": \"%s\", \"size\": %llu, \"inode\": %llu, \"mtime_nsec\": %llu}\n", digest,
        (unsigned long long)st->st_size, (unsigned long long)st->st_ino, (unsigned long long)mtime_nsec(st));
    int r = text ? fs_write_file_atomic(path, text, strlen(text), 0600) : -ENOMEM;

    return r < 0 ? error_set_errno(e, r, "cannot write %s", path) : 0;
}

/* Whether the file is what the entry says. Inode, size and time are enough when they have not changed;
 * otherwise the content is read. */
static int entry_verify(const char *index_path, const IndexEntry *entry, int fd, Error *e)
{
    char digest[SHA256_HEX_SIZE];
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the type of a cached image");
    if ((uint64_t)st.st_size == entry->size && (uint64_t)st.st_ino == entry->inode &&
        mtime_nsec(&st) == entry->mtime_nsec)
        return 1;
    r = sha256_fd_hex(fd, digest);
    if (r < 0)
        return error_set_errno(e, r, "cannot read a cached image");
    if (strcmp(digest, entry->digest) != 0)
        return 0;
    r = entry_write(index_path, digest, &st, e);
    return r < 0 ? r : 1;
}

int cache_find(const ImageConfig *config, const char *identity, CachedImage *ret, Error *e)
{
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;
    _cleanup_free_ char *index_path = path_of(config, "index", identity, "");
    IndexEntry entry;
    int r;

    if (!index_path)
        return error_set_errno(e, -ENOMEM, "cannot use the image cache");
    if (entry_read(index_path, &entry) < 0)
        return 0; /* missing or damaged: the image is made anew and entered again */
    image.path = path_of(config, "images", entry.digest, ".erofs");
    if (!image.path)
        return error_set_errno(e, -ENOMEM, "cannot use the image cache");
    image.fd = open(image.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (image.fd < 0)
        return errno == ENOENT ? 0
                               : error_set_errno(e, -errno, "cannot open the cached image %s", image.path);
    r = entry_verify(index_path, &entry, image.fd, e);
    if (r < 0)
        return r;
    if (r == 0) {
        (void)unlink(image.path);
        (void)unlink(index_path);
        return 0;
    }
    (void)utimensat(AT_FDCWD, index_path, NULL, 0);
    memcpy(image.digest, entry.digest, sizeof(image.digest));
    image.size = entry.size;
    *ret = image;
    image = CACHED_IMAGE_INIT;
    return 1;
}

int cache_new_file(const ImageConfig *config, int *ret_fd, char **ret_path, Error *e)
{
    _cleanup_free_ char *path = path_of(config, "images", TEMPORARY_PREFIX, "XXXXXX");
    _cleanup_close_ int fd = -EBADF, lock = -EBADF;

    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot make an image");
    lock = lock_file(config, "gc", LOCK_SH, e);
    if (lock < 0)
        return lock;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot make a file in %s/images", config->cache_dir);
    /* Whoever finds it unlocked knows that its maker has died. */
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int r = -errno;

        (void)unlink(path);
        return error_set_errno(e, r, "cannot lock %s", path);
    }
    *ret_fd = TAKE_FD(fd);
    *ret_path = TAKE_PTR(path);
    return 0;
}

/* Gives the finished file its name, or takes the one of the same content that is there already. */
static int name_image(int fd, const char *path, CachedImage *image, Error *e)
{
    char digest[SHA256_HEX_SIZE];
    _cleanup_close_ int existing = open(image->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (existing >= 0 && sha256_fd_hex(existing, digest) >= 0 && strcmp(digest, image->digest) == 0) {
        (void)unlink(path);
        image->fd = TAKE_FD(existing);
        return 0;
    }
    if (fsync(fd) < 0 || rename(path, image->path) < 0)
        return error_set_errno(e, -errno, "cannot keep the image %s", image->path);
    image->fd = open(image->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return image->fd < 0 ? error_set_errno(e, -errno, "cannot open the image %s", image->path) : 0;
}

int cache_add(const ImageConfig *config, const char *identity, int fd, const char *path, CachedImage *ret,
              Error *e)
{
    _cleanup_cached_image_ CachedImage image = CACHED_IMAGE_INIT;
    _cleanup_free_ char *index_path = NULL;
    _cleanup_close_ int lock = -EBADF;
    struct stat st;
    int r;

    if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0400) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return error_set_errno(e, -errno, "cannot keep an image");
    r = sha256_fd_hex(fd, image.digest);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the new image");
    if (!identity) {
        image.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (image.fd < 0)
            return error_set_errno(e, -errno, "cannot open the image %s", path);
        (void)unlink(path);
    } else {
        image.path = path_of(config, "images", image.digest, ".erofs");
        index_path = path_of(config, "index", identity, "");
        if (!image.path || !index_path)
            return error_set_errno(e, -ENOMEM, "cannot keep an image");
        lock = lock_file(config, "gc", LOCK_SH, e);
        if (lock < 0)
            return lock;
        r = name_image(fd, path, &image, e);
        if (r < 0)
            return r;
    }
    if (fstat(image.fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot read the size of an image");
    image.size = (uint64_t)st.st_size;
    if (index_path) {
        r = entry_write(index_path, image.digest, &st, e);
        if (r < 0)
            return r;
    }
    *ret = image;
    image = CACHED_IMAGE_INIT;
    return 0;
}

/* --------------------------------------------------------------------------------------------- clean-up */

typedef struct Used {
    char name[SHA256_HEX_SIZE]; /* of the index entry */
    IndexEntry entry;
    struct timespec when;
} Used;

static void remove_temporaries(int images_fd, DIR *dir)
{
    struct dirent *de;

    while ((de = readdir(dir))) {
        _cleanup_close_ int fd = -EBADF;

        if (strncmp(de->d_name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) != 0)
            continue;
        fd = openat(images_fd, de->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) >= 0)
            (void)unlinkat(images_fd, de->d_name, 0);
    }
}

static int compare_used(const void *a, const void *b)
{
    const struct timespec *x = &((const Used *)a)->when, *y = &((const Used *)b)->when;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec > y->tv_sec ? -1 : 1;
    return x->tv_nsec > y->tv_nsec ? -1 : x->tv_nsec < y->tv_nsec;
}

/* Reads the index, the most recently used first. */
static int read_index(const ImageConfig *config, Used **ret, size_t *ret_n, Error *e)
{
    _cleanup_free_ char *path = fs_join(config->cache_dir, "index");
    _cleanup_closedir_ DIR *dir = path ? opendir(path) : NULL;
    _cleanup_free_ Used *all = NULL;
    struct dirent *de;
    size_t n = 0;

    if (!dir)
        return error_set_errno(e, path ? -errno : -ENOMEM, "cannot read the index of images");
    while ((de = readdir(dir))) {
        _cleanup_free_ char *entry_path = fs_join(path, de->d_name);
        struct stat st;
        Used *p;

        if (de->d_name[0] == '.' || !entry_path)
            continue;
        p = reallocarray(all, n + 1, sizeof(*all));
        if (!p)
            return error_set_errno(e, -ENOMEM, "cannot read the index of images");
        all = p;
        if (stat(entry_path, &st) < 0)
            continue;
        if (!is_digest(de->d_name)) {
            if (st.st_mtim.tv_sec < time(NULL) - STALE_SECS)
                (void)unlink(entry_path);
            continue;
        }
        if (entry_read(entry_path, &all[n].entry) < 0) {
            (void)unlink(entry_path); /* damaged */
            continue;
        }
        memcpy(all[n].name, de->d_name, SHA256_HEX_SIZE);
        all[n].when = st.st_mtim;
        n++;
    }
    if (n > 0)
        qsort(all, n, sizeof(*all), compare_used);
    *ret = TAKE_PTR(all);
    *ret_n = n;
    return 0;
}

static bool digest_is_kept(const Used *all, size_t n, const char *digest)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].name[0] && strcmp(all[i].entry.digest, digest) == 0)
            return true;
    return false;
}

/* Drops the least recently used entries beyond `cache_max`; the most recent one always stays. */
static void drop_entries(const ImageConfig *config, Used *all, size_t n)
{
    uint64_t total = 0;

    for (size_t i = 0; i < n; i++) {
        if (digest_is_kept(all, i, all[i].entry.digest))
            continue;
        if (i == 0 || total + all[i].entry.size <= config->cache_max) {
            total += all[i].entry.size;
            continue;
        }
        _cleanup_free_ char *path = path_of(config, "index", all[i].name, "");

        if (path)
            (void)unlink(path);
        all[i].name[0] = 0;
    }
}

int image_gc(const ImageConfig *config, Error *e)
{
    _cleanup_close_ int lock = lock_file(config, "gc", LOCK_EX, e);
    _cleanup_free_ char *path = fs_join(config->cache_dir, "images");
    _cleanup_closedir_ DIR *dir = NULL;
    _cleanup_free_ Used *all = NULL;
    struct dirent *de;
    size_t n = 0;
    int r;

    if (lock < 0)
        return lock;
    dir = path ? opendir(path) : NULL;
    if (!dir)
        return error_set_errno(e, path ? -errno : -ENOMEM, "cannot read the images in %s", config->cache_dir);
    remove_temporaries(dirfd(dir), dir);
    r = read_index(config, &all, &n, e);
    if (r < 0)
        return r;
    drop_entries(config, all, n);
    rewinddir(dir);
    while ((de = readdir(dir))) {
        char digest[SHA256_HEX_SIZE];

        if (strlen(de->d_name) != SHA256_HEX_SIZE - 1 + 6 ||
            strcmp(de->d_name + SHA256_HEX_SIZE - 1, ".erofs") != 0)
            continue;
        memcpy(digest, de->d_name, SHA256_HEX_SIZE - 1);
        digest[SHA256_HEX_SIZE - 1] = 0;
        if (!digest_is_kept(all, n, digest))
            (void)unlinkat(dirfd(dir), de->d_name, 0);
    }
    return 0;
}
