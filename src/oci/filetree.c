/* SPDX-License-Identifier: MIT */

#include "oci/filetree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"

#define WRITE_BACK_MAX (1U << 20)

typedef struct Walk {
    const char *source; /* for messages */
    const FileTreeLimits *limits;
    FileTree *tree;
    Error *e;
} Walk;

static int walk_directory(Walk *w, int fd, const char *path, unsigned depth);

static int no_memory(Walk *w)
{
    return error_set_errno(w->e, -ENOMEM, "cannot read %s", w->source);
}

/* "SOURCE/PATH" for messages, into a buffer that is cut off where it is too small. */
static const char *full_name(const Walk *w, const char *path, char buffer[static PATH_MAX])
{
    snprintf(buffer, PATH_MAX, "%s%s%s", w->source, *path ? "/" : "", path);
    return buffer;
}

static int fail(Walk *w, int number, const char *path, const char *what)
{
    char name[PATH_MAX];

    return error_set_errno(w->e, number, "cannot %s %s", what, full_name(w, path, name));
}

/* Counts `bytes` more; -EFBIG when that is too much. */
static int account(Walk *w, uint64_t bytes, const char *path)
{
    char name[PATH_MAX];

    if (bytes > w->limits->bytes || w->tree->bytes > w->limits->bytes - bytes)
        return error_set(w->e, -EFBIG, "%s does not fit into the %llu bytes that are left",
                         full_name(w, path, name), (unsigned long long)w->limits->bytes);
    w->tree->bytes += bytes;
    return 0;
}

/* A new entry with what `st` says; `data` is taken, also on failure. */
static int add_entry(Walk *w, const char *path, FileTreeType type, const struct stat *st, char *data,
                     size_t size)
{
    _cleanup_free_ char *owned = data, *copy = NULL;
    FileTree *tree = w->tree;
    FileTreeEntry *entries;
    char name[PATH_MAX];
    int r = account(w, size + strlen(path), path);

    if (r < 0)
        return r;
    if (tree->n_entries >= w->limits->entries)
        return error_set(w->e, -EFBIG, "%s is more than the %zu files that are left",
                         full_name(w, path, name), w->limits->entries);
    copy = strdup(path);
    entries = realloc(tree->entries, (tree->n_entries + 1) * sizeof(*entries));
    if (entries)
        tree->entries = entries;
    if (!entries || !copy)
        return no_memory(w);
    entries[tree->n_entries++] = (FileTreeEntry){
        .path = TAKE_PTR(copy),
        .type = type,
        .mode = st->st_mode & 07777,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .mtime_sec = st->st_mtim.tv_sec,
        .data = TAKE_PTR(owned),
        .size = size,
    };
    return 0;
}

/* `fd` is of the file; its size is what was read, since it may grow meanwhile. */
static int add_regular(Walk *w, int fd, const char *path, const struct stat *st)
{
    uint64_t left = w->limits->bytes - w->tree->bytes;
    _cleanup_free_ char *data = NULL;
    size_t size = 0;
    int r;

    r = fd_read_all(fd, left > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)left, &data, &size);
    if (r == -EFBIG)
        return account(w, left + 1, path);
    if (r < 0)
        return fail(w, r, path, "read");
    return add_entry(w, path, FILE_TREE_REGULAR, st, TAKE_PTR(data), size);
}

static int add_symlink(Walk *w, int directory, const char *name, const char *path, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(directory, name, target, sizeof(target));
    char *copy;

    if (n < 0)
        return fail(w, -errno, path, "read the link");
    if ((size_t)n == sizeof(target))
        return fail(w, -ENAMETOOLONG, path, "read the link");
    copy = strndup(target, (size_t)n);
    return copy ? add_entry(w, path, FILE_TREE_SYMLINK, st, copy, (size_t)n) : no_memory(w);
}

static int refuse_special(Walk *w, const char *path, mode_t mode)
{
    const char *what = S_ISBLK(mode)    ? "a block device"
                       : S_ISCHR(mode)  ? "a character device"
                       : S_ISSOCK(mode) ? "a socket"
                       : S_ISFIFO(mode) ? "a FIFO"
                                        : "of an unknown type";
    char name[PATH_MAX];

    return error_set(w->e, -EMEDIUMTYPE, "%s is %s, which cannot be copied into the guest",
                     full_name(w, path, name), what);
}

/* One entry of an open directory. The type is taken before it is opened, so that no FIFO or device is, and
 * compared afterwards. */
static int walk_entry(Walk *w, int directory, const char *name, const char *path, unsigned depth)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st, opened;
    char *none;
    int r;

    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(w, -errno, path, "look at");
    if (S_ISLNK(st.st_mode) && depth > 0)
        return add_symlink(w, directory, name, path, &st);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return refuse_special(w, path, st.st_mode);
    fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &opened) < 0)
        return fail(w, -errno, path, "open");
    if ((opened.st_mode & S_IFMT) != (st.st_mode & S_IFMT))
        return fail(w, -ESTALE, path, "open");
    if (depth == 0) {
        w->tree->device = opened.st_dev;
        w->tree->inode = opened.st_ino;
    }
    if (S_ISREG(opened.st_mode))
        return add_regular(w, fd, path, &opened);
    none = strdup("");
    r = none ? add_entry(w, path, FILE_TREE_DIRECTORY, &opened, none, 0) : no_memory(w);
    return r < 0 ? r : walk_directory(w, fd, path, depth);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* Names of a directory, sorted. Reads no more of them than may be taken. */
static int read_names(Walk *w, int fd, const char *path, char ***ret, size_t *ret_n)
{
    _cleanup_closedir_ DIR *d = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    char **names = NULL;
    struct dirent *entry;
    size_t n = 0;
    int r = 0;

    if (!d)
        return fail(w, -errno, path, "read");
    while (r == 0 && (errno = 0, entry = readdir(d))) {
        char **longer;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        longer = realloc(names, (n + 1) * sizeof(*names));
        if (longer)
            names = longer;
        if (!longer || !(names[n] = strdup(entry->d_name)))
            r = no_memory(w);
        else if (++n > w->limits->entries)
            r = fail(w, -EFBIG, path, "take all of");
    }
    if (r == 0 && errno)
        r = fail(w, -errno, path, "read");
    if (r < 0) {
        names_free(names, n);
        return r;
    }
    if (n > 0)
        qsort(names, n, sizeof(*names), compare_names);
    *ret = names;
    *ret_n = n;
    return 0;
}

static int walk_directory(Walk *w, int fd, const char *path, unsigned depth)
{
    char **names = NULL;
    size_t n = 0;
    int r;

    if (depth >= FILE_TREE_DEPTH_MAX)
        return fail(w, -EFBIG, path, "go deeper into");
    r = read_names(w, fd, path, &names, &n);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        _cleanup_free_ char *below = *path ? string_printf("%s/%s", path, names[i]) : strdup(names[i]);

        r = below ? walk_entry(w, fd, names[i], below, depth + 1) : no_memory(w);
    }
    names_free(names, n);
    return r;
}

int file_tree_read(const char *path, const FileTreeLimits *limits, FileTree **ret, Error *e)
{
    _cleanup_file_tree_ FileTree *tree = calloc(1, sizeof(*tree));
    Walk w = {.source = path, .limits = limits, .tree = tree, .e = e};
    int r;

    if (!tree)
        return no_memory(&w);
    r = walk_entry(&w, AT_FDCWD, path, "", 0);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(tree);
    return 0;
}

FileTree *file_tree_free(FileTree *tree)
{
    if (!tree)
        return NULL;
    for (size_t i = 0; i < tree->n_entries; i++) {
        free(tree->entries[i].path);
        free(tree->entries[i].data);
    }
    free(tree->entries);
    free(tree);
    return NULL;
}

int file_tree_write_back(const char *path, const FileTree *tree, const void *data, size_t size, Error *e)
{
    _cleanup_close_ int fd = -EBADF;
    struct stat st;
    int r;

    if (size > WRITE_BACK_MAX)
        return error_set(e, -EFBIG, "cannot write %s back: %zu bytes are more than %u", path, size,
                         WRITE_BACK_MAX);
    fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(e, -errno, "cannot write %s back", path);
    if (!S_ISREG(st.st_mode) || st.st_dev != tree->device || st.st_ino != tree->inode)
        return error_set(e, -ESTALE, "cannot write %s back: it is another file than the one that was mounted",
                         path);
    if (ftruncate(fd, 0) < 0)
        return error_set_errno(e, -errno, "cannot write %s back", path);
    r = fd_write_full(fd, data, size);
    return r < 0 ? error_set_errno(e, r, "cannot write %s back", path) : 0;
}
