/* SPDX-License-Identifier: MIT */

#include "vmm/stderr-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/console.h"

#define SIZE (64 * 1024)

int stderr_file_new(void)
{
    _cleanup_close_ int fd = memfd_create("vmm-stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, SIZE) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -errno;
    return TAKE_FD(fd);
}

int stderr_file_open(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%i/fd/2", (int)pid);
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

char *stderr_file_tail(int fd, size_t max)
{
    _cleanup_free_ char *text = malloc(SIZE);
    ssize_t k;

    if (!text || fd < 0)
        return NULL;
    k = pread(fd, text, SIZE, 0);
    if (k <= 0)
        return NULL;
    return console_text_tail(text, strnlen(text, (size_t)k), max);
}
