/* SPDX-License-Identifier: MIT */

#include "base/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

#define FILE_MAX (64 * 1024)

uint64_t procfs_sum(const char *text, const char *key)
{
    size_t n = strlen(key);
    uint64_t sum = 0;

    while (*text) {
        if (strncmp(text, key, n) == 0 && strchr(": \t", text[n]) && text[n])
            sum += strtoull(text + n + strspn(text + n, ": \t"), NULL, 10);
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return sum;
}

int procfs_read(const char *path, const char *const *keys, size_t n, uint64_t *ret)
{
    /* Such files have no size: what there is to be read is known at the end. */
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_free_ char *text = NULL;
    int r;

    if (fd < 0)
        return -errno;
    r = fd_read_all(fd, FILE_MAX, &text, NULL);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        ret[i] = procfs_sum(text, keys[i]);
    return 0;
}
