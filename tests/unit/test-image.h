/* SPDX-License-Identifier: MIT */
#pragma once

/* A cache directory of its own for each test of src/image, on a disk: much of it is about sparse files, and a
 * tmpfs has no layers to give. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "image/cache.h"
#include "image/image.h"

typedef struct Fixture {
    char top[64];
    char cache_dir[96];
    ImageConfig config;
} Fixture;

static inline int fixture_setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));

    *state = f;
    snprintf(f->top, sizeof(f->top), "/var/tmp/test-image.XXXXXX");
    if (!mkdtemp(f->top) || chmod(f->top, 0711) < 0)
        return -1;
    snprintf(f->cache_dir, sizeof(f->cache_dir), "%s/some/cache", f->top);
    f->config = (ImageConfig){.cache_dir = f->cache_dir,
                              .cache_max = 1 << 20,
                              .image_max = 8 << 20,
                              .mkfs_erofs = FAKE_MKFS,
                              .mke2fs = "/sbin/mke2fs",
                              .timeout_usec = 20 * USEC_PER_SEC};
    return cache_prepare(&f->config, NULL);
}

static inline int fixture_teardown(void **state)
{
    Fixture *f = *state;
    int r = fs_remove_tree(f->top);

    free(f);
    return r;
}

/* A path below the fixture's directory, valid for a while. */
static inline char *below(const Fixture *f, const char *name)
{
    static char paths[16][256];
    static unsigned next;
    char *path = paths[next++ % 16];

    snprintf(path, sizeof(paths[0]), "%s/%s", f->top, name);
    return path;
}

static inline char *in_cache(const Fixture *f, const char *directory, const char *name)
{
    static char paths[16][256];
    static unsigned next;
    char *path = paths[next++ % 16];

    snprintf(path, sizeof(paths[0]), "%s/%s/%s", f->cache_dir, directory, name);
    return path;
}

static inline bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline char *make_directory(const Fixture *f, const char *name)
{
    char *path = below(f, name);

    assert_int_equal(fs_mkdir_p(path, 0755), 0);
    return path;
}

static inline void put_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
    close(fd);
}

static inline unsigned count_entries(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *de;
    unsigned n = 0;

    assert_non_null(dir);
    while ((de = readdir(dir)))
        n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
    closedir(dir);
    return n;
}

static inline void need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("needs root\n");
    skip();
}

/* The view of the layers is a mount of it. */
static inline void need_overlay(void)
{
    _cleanup_free_ char *known = NULL;
    bool there;

    need_root();
    there = fs_read_file("/proc/filesystems", 1 << 20, &known, NULL) >= 0 && strstr(known, "\toverlay\n");
    free(TAKE_PTR(known)); /* a skip runs no cleanup */
    if (there)
        return;
    print_message("no overlay file system here\n");
    skip();
}

#define assert_words(e, words)                                                                               \
    do {                                                                                                     \
        if (!strstr(error_message(e), words))                                                                \
            fail_msg("\"%s\" is not in \"%s\"", words, error_message(e));                                    \
    } while (0)
