/* SPDX-License-Identifier: MIT */

#include "agent/trees.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agent/names.h"
#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"

typedef Cloudhv__Agent__V1__FileEntry FileEntry;

typedef struct Tree {
    char *name;
    char *container_id; /* "": stays until the end of the pod */
    struct Tree *next;
} Tree;

struct Trees {
    char *directory;
    int fd;
    size_t n;
    Tree *list;
};

static Tree *tree_free(Tree *tree)
{
    free(tree->name);
    free(tree->container_id);
    free(tree);
    return NULL;
}

int trees_new(const char *directory, Trees **ret, Error *e)
{
    Trees *trees = calloc(1, sizeof(*trees));

    if (!trees)
        return error_set(e, -ENOMEM, "out of memory");
    trees->directory = strdup(directory);
    trees->fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (!trees->directory || trees->fd < 0) {
        int r = error_set_errno(e, trees->directory ? -errno : -ENOMEM, "cannot open %s", directory);

        trees_free(trees);
        return r;
    }
    *ret = trees;
    return 0;
}

Trees *trees_free(Trees *trees)
{
    if (!trees)
        return NULL;
    while (trees->list) {
        Tree *tree = trees->list;

        trees->list = tree->next;
        tree_free(tree);
    }
    fd_close(trees->fd);
    free(trees->directory);
    free(trees);
    return NULL;
}

/* Opens below a directory, never through a symbolic link or a mount, never outside. */
static int open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static int tree_remember(Trees *trees, const char *name, const char *container_id, Error *e)
{
    Tree *tree;

    for (tree = trees->list; tree; tree = tree->next)
        if (strcmp(tree->name, name) == 0)
            return 0;
    if (trees->n >= AGENT_TREES_MAX)
        return error_set(e, -ENOSPC, "cannot add the tree %s: there are %i already", name, AGENT_TREES_MAX);
    tree = calloc(1, sizeof(*tree));
    if (tree) {
        tree->name = strdup(name);
        tree->container_id = strdup(container_id);
    }
    if (!tree || !tree->name || !tree->container_id) {
        if (tree)
            tree_free(tree);
        return error_set(e, -ENOMEM, "out of memory");
    }
    tree->next = trees->list;
    trees->list = tree;
    trees->n++;
    return 0;
}

/* Opens the directory that holds `path`, making what is missing on the way, and gives the last component. */
static int open_parent(int tree_fd, const char *path, int *ret_fd, const char **ret_last)
{
    _cleanup_close_ int dir_fd = open_beneath(tree_fd, ".", O_PATH | O_DIRECTORY, 0);

    while (dir_fd >= 0) {
        char component[NAME_MAX + 1];
        const char *slash = strchr(path, '/');
        int next;

        if (!slash) {
            *ret_fd = TAKE_FD(dir_fd);
            *ret_last = path;
            return 0;
        }
        snprintf(component, sizeof(component), "%.*s", (int)(slash - path), path);
        if (mkdirat(dir_fd, component, 0755) < 0 && errno != EEXIST)
            return -errno;
        next = open_beneath(dir_fd, component, O_PATH | O_DIRECTORY, 0);
        if (next < 0)
            return next;
        close(dir_fd);
        dir_fd = next;
        path = slash + 1;
    }
    return dir_fd;
}

/* Owner before mode: changing the owner clears bits of the mode. Time last. */
static int set_attributes(int fd, const FileEntry *entry)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)entry->mtime_sec}};

    if (fchown(fd, entry->uid, entry->gid) < 0 || fchmod(fd, entry->mode & 07777) < 0)
        return -errno;
    return entry->mtime_sec != 0 && futimens(fd, times) < 0 ? -errno : 0;
}

static int pwrite_full(int fd, const uint8_t *data, size_t n, uint64_t offset)
{
    while (n > 0) {
        ssize_t k = pwrite(fd, data, n, (off_t)offset);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        data += k;
        n -= (size_t)k;
        offset += (uint64_t)k;
    }
    return 0;
}

/* In place, so that a container that has the file mounted sees the change. */
static int add_regular(int dir_fd, const char *name, const FileEntry *entry)
{
    _cleanup_close_ int fd = open_beneath(dir_fd, name, O_WRONLY | O_CREAT | O_NONBLOCK, 0600);
    struct stat st;
    int r;

    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EEXIST;
    if (entry->offset > (uint64_t)st.st_size)
        return -EINVAL;
    if (ftruncate(fd, (off_t)entry->offset) < 0)
        return -errno;
    r = pwrite_full(fd, entry->data.data, entry->data.len, entry->offset);
    return r < 0 ? r : set_attributes(fd, entry);
}

static int add_directory(int dir_fd, const char *name, const FileEntry *entry)
{
    _cleanup_close_ int fd = -EBADF;

    if (mkdirat(dir_fd, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    return set_attributes(fd, entry);
}

/* Under another name first: a link that is replaced (Kubernetes' "..data") changes in one step. */
static int add_symlink(int dir_fd, const char *name, const FileEntry *entry)
{
    static const char temporary[] = "..cloudhv-link";
    char target[PATH_MAX];
    int r;

    if (entry->data.len == 0 || entry->data.len >= sizeof(target) ||
        memchr(entry->data.data, 0, entry->data.len))
        return -EINVAL;
    memcpy(target, entry->data.data, entry->data.len);
    target[entry->data.len] = 0;
    if (unlinkat(dir_fd, temporary, 0) < 0 && errno != ENOENT)
        return -errno;
    if (symlinkat(target, dir_fd, temporary) < 0)
        return -errno;
    if (fchownat(dir_fd, temporary, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        renameat(dir_fd, temporary, dir_fd, name) < 0) {
        r = -errno;
        (void)unlinkat(dir_fd, temporary, 0);
        return r;
    }
    return 0;
}

static int add_at(int dir_fd, const char *name, const FileEntry *entry)
{
    switch (entry->type) {
    case CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__REGULAR:
        return add_regular(dir_fd, name, entry);
    case CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__DIRECTORY:
        return add_directory(dir_fd, name, entry);
    case CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__SYMLINK:
        return add_symlink(dir_fd, name, entry);
    default:
        return -EINVAL;
    }
}

static int add_entry(Trees *trees, const char *tree, const FileEntry *entry)
{
    _cleanup_close_ int tree_fd = -EBADF, dir_fd = -EBADF;
    const char *last;
    int r;

    if (entry->path[0] == 0) {
        /* The tree itself: a single file, or a directory whose attributes matter. */
        if (entry->type == CLOUDHV__AGENT__V1__FILE_ENTRY__TYPE__SYMLINK)
            return -EINVAL;
        return add_at(trees->fd, tree, entry);
    }
    if (!name_path_is_valid(entry->path))
        return -EINVAL;
    if (mkdirat(trees->fd, tree, 0755) < 0 && errno != EEXIST)
        return -errno;
    tree_fd = open_beneath(trees->fd, tree, O_PATH | O_DIRECTORY, 0);
    if (tree_fd < 0)
        return tree_fd;
    r = open_parent(tree_fd, entry->path, &dir_fd, &last);
    return r < 0 ? r : add_at(dir_fd, last, entry);
}

int trees_add(Trees *trees, const Cloudhv__Agent__V1__AddFilesRequest *request, Error *e)
{
    int r;

    if (!name_is_valid(request->tree))
        return error_set(e, -EINVAL, "not a name for a tree: \"%.140s\"", request->tree);
    if (request->container_id[0] && !name_is_valid(request->container_id))
        return error_set(e, -EINVAL, "not a container id: \"%.140s\"", request->container_id);
    r = tree_remember(trees, request->tree, request->container_id, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < request->n_entries; i++) {
        r = add_entry(trees, request->tree, request->entries[i]);
        if (r < 0)
            return error_set_errno(e, r, "cannot add \"%.256s\" to the tree %s", request->entries[i]->path,
                                   request->tree);
    }
    return 0;
}

static int read_at_most(int fd, size_t max, void **ret, size_t *ret_n, bool *ret_truncated)
{
    _cleanup_free_ char *data = NULL;
    struct stat st;
    size_t want;
    ssize_t n;
    char more;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    want = st.st_size < 0 || (uint64_t)st.st_size > max ? max : (size_t)st.st_size;
    data = malloc(want ?: 1);
    if (!data)
        return -ENOMEM;
    n = fd_read_full(fd, data, want);
    if (n < 0)
        return (int)n;
    *ret_truncated = (size_t)n == want && fd_read_full(fd, &more, 1) == 1;
    *ret = TAKE_PTR(data);
    *ret_n = (size_t)n;
    return 0;
}

int trees_read(Trees *trees, const char *tree, const char *path, size_t max, void **ret, size_t *ret_n,
               bool *ret_truncated, Error *e)
{
    _cleanup_close_ int tree_fd = -EBADF, fd = -EBADF;
    int r;

    if (!name_is_valid(tree) || (path[0] && !name_path_is_valid(path)))
        return error_set(e, -EINVAL, "not a file of a tree: \"%.140s\", \"%.256s\"", tree, path);
    if (max == 0 || max > AGENT_TREE_READ_MAX)
        max = AGENT_TREE_READ_MAX;
    if (path[0] == 0) {
        fd = open_beneath(trees->fd, tree, O_RDONLY | O_NONBLOCK, 0);
    } else {
        tree_fd = open_beneath(trees->fd, tree, O_PATH | O_DIRECTORY, 0);
        fd = tree_fd < 0 ? tree_fd : open_beneath(tree_fd, path, O_RDONLY | O_NONBLOCK, 0);
    }
    if (fd < 0)
        return error_set_errno(e, fd, "cannot open \"%.256s\" of the tree %s", path, tree);
    r = read_at_most(fd, max, ret, ret_n, ret_truncated);
    return r < 0 ? error_set_errno(e, r, "cannot read \"%.256s\" of the tree %s", path, tree) : 0;
}

void trees_remove_container(Trees *trees, const char *container_id)
{
    for (Tree **p = &trees->list; *p;) {
        Tree *tree = *p;
        _cleanup_free_ char *path = NULL;
        int r;

        if (strcmp(tree->container_id, container_id) != 0) {
            p = &tree->next;
            continue;
        }
        path = fs_join(trees->directory, tree->name);
        r = path ? fs_remove_tree(path) : -ENOMEM;
        if (r < 0)
            log_error_errno(r, "cannot remove the tree %s", tree->name);
        *p = tree->next;
        trees->n--;
        tree_free(tree);
    }
}
