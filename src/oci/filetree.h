/* SPDX-License-Identifier: MIT */
#pragma once

/* A file or a small directory of the host as a list of entries, to be copied into the guest; and the way back
 * of a single file. Symbolic links are kept as they are and never followed. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/error.h"

typedef enum FileTreeType {
    FILE_TREE_REGULAR,
    FILE_TREE_DIRECTORY,
    FILE_TREE_SYMLINK,
} FileTreeType;

typedef struct FileTreeEntry {
    char *path; /* relative, "" for the source itself */
    FileTreeType type;
    mode_t mode; /* permission bits */
    uid_t uid;
    gid_t gid;
    int64_t mtime_sec;
    char *data; /* contents, or the link's target; never NULL, NUL-terminated for convenience */
    size_t size;
} FileTreeEntry;

/* Parents come before what they hold; entries of a directory are in the order of their names. */
typedef struct FileTree {
    FileTreeEntry *entries;
    size_t n_entries;
    uint64_t bytes; /* of all data and names */
    dev_t device;   /* of the source: the way back checks that it is still the same file */
    ino_t inode;
} FileTree;

typedef struct FileTreeLimits {
    uint64_t bytes;
    size_t entries;
} FileTreeLimits;

#define FILE_TREE_ENTRIES_MAX 2048
#define FILE_TREE_DEPTH_MAX 32

/* Reads `path`, whose last component must not be a symbolic link. -EFBIG when it is larger than `limits`,
 * -EMEDIUMTYPE when there is a device, socket or FIFO in it; the message names it. */
int file_tree_read(const char *path, const FileTreeLimits *limits, FileTree **ret, Error *e);
FileTree *file_tree_free(FileTree *tree);
DEFINE_CLEANUP_FUNC(FileTree *, file_tree_free)
#define _cleanup_file_tree_ _cleanup_(file_tree_freep)

/* Replaces the contents of the single file that `tree` was read from; owner and mode stay. Fails with -ESTALE
 * when another file has its place. */
int file_tree_write_back(const char *path, const FileTree *tree, const void *data, size_t size, Error *e);
