/* SPDX-License-Identifier: MIT */

#include "agent/rebirth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

enum { FRAME_SIZE_MAX = 4 * 1024 * 1024 + 64 };

/* What precedes the frame in the memory file. The two sides are one program: there is no version. */
typedef struct Note {
    int32_t fd;
    uint32_t size;
    uint64_t nonce;
} Note;

static int write_note(const TtrpcHandover *h, int *ret_fd)
{
    const Note note = {.fd = h->fd, .size = (uint32_t)h->size, .nonce = h->nonce};
    _cleanup_close_ int fd = memfd_create("handover", 0);
    int r;

    if (fd < 0)
        return -errno;
    r = fd_write_full(fd, &note, sizeof(note));
    if (r >= 0)
        r = fd_write_full(fd, h->frame, h->size);
    if (r >= 0 && lseek(fd, 0, SEEK_SET) < 0)
        r = -errno;
    if (r < 0)
        return r;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int rebirth(const TtrpcCall *call, Error *e)
{
    char *const environment[] = {NULL};
    _cleanup_close_ int fd = -EBADF;
    TtrpcHandover h;
    char number[16];
    int r;

    r = ttrpc_call_hand_over(call, &h);
    if (r < 0)
        return error_set_errno(e, r, "the agent cannot execute itself anew in the middle of other calls");
    r = write_note(&h, &fd);
    ttrpc_handover_clear(&h);
    if (r >= 0 && h.fd >= 0)
        r = fd_set_cloexec(h.fd, false);
    if (r >= 0) {
        snprintf(number, sizeof(number), "%i", fd);
        execve("/proc/self/exe", (char *const[]){(char *)"init", (char *)REBIRTH_ARGUMENT, number, NULL},
               environment);
        r = -errno;
        if (h.fd >= 0)
            (void)fd_set_cloexec(h.fd, true);
    }
    return error_set_errno(e, r, "the agent cannot execute itself anew");
}

int rebirth_read(const char *argument, TtrpcHandover *ret, Error *e)
{
    _cleanup_free_ uint8_t *frame = NULL;
    _cleanup_close_ int fd = -EBADF;
    char *end;
    long number = strtol(argument, &end, 10);
    Note note;

    if (*end || number <= STDERR_FILENO || number > INT32_MAX)
        return error_set(e, -EINVAL, "the agent cannot go on with \"%.16s\", which is no descriptor", argument);
    fd = (int)number;
    if (fd_read_full(fd, &note, sizeof(note)) != (ssize_t)sizeof(note) || note.size > FRAME_SIZE_MAX)
        return error_set(e, -EBADMSG, "there is nothing to go on with for the agent");
    frame = malloc(note.size);
    if (!frame)
        return error_set(e, -ENOMEM, "out of memory");
    if (fd_read_full(fd, frame, note.size) != (ssize_t)note.size)
        return error_set(e, -EBADMSG, "there is less to go on with than there should be for the agent");
    if (note.fd >= 0 && fd_set_cloexec(note.fd, true) < 0)
        return error_set(e, -EBADF, "the agent has lost the host's connection");
    *ret = (TtrpcHandover){
        .fd = note.fd < 0 ? -EBADF : note.fd, .nonce = note.nonce, .frame = TAKE_PTR(frame), .size = note.size};
    return 0;
}
