/* SPDX-License-Identifier: MIT */

/* The way to the agent: the Unix socket of the vsock device. */

#include "vmm/ch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "vmm/ch-requests.h"

/* The socket of the vsock device, which the VMM has bound, moves to where the VMM cannot exchange it, and the VMM can
 * bind no other: were the guest to reset itself, its VM could not be made a second time behind our back. */
int ch_channel_secure(Ch *ch, Error *e)
{
    _cleanup_free_ char *sockets = fs_join(ch->vmm.directory, CH_SOCKETS_NAME);
    _cleanup_close_ int fd = -EBADF;
    struct stat st;

    if (!sockets)
        return error_set_errno(e, -ENOMEM, "cannot take over a socket");
    fd = open(sockets, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || renameat(fd, CH_VSOCK, AT_FDCWD, ch->channel) < 0 || lstat(ch->channel, &st) < 0 ||
        chown(sockets, 0, 0) < 0 || chmod(sockets, 0755) < 0)
        return error_set_errno(e, -errno, "cannot take over the socket %s in %s", CH_VSOCK, sockets);
    if (!S_ISSOCK(st.st_mode)) {
        (void)unlink(ch->channel);
        return error_set(e, -EBADMSG, "Cloud Hypervisor made something else than a socket for the VM's vsock");
    }
    return 0;
}

/* A clone's guest still knows the connections that its template had, while its VMM begins to count the host's ports
 * anew: the first ones would meet those, and be refused. So as many ports as a template may have used are used up, by
 * asking for a port that nobody listens on; and when all are refused, the next connection comes after them. */

static void refused(Ch *ch, size_t i)
{
    ch->renewals[i].io = loop_source_free(ch->renewals[i].io);
    ch->renewals[i].fd = fd_close(ch->renewals[i].fd);
    for (i = 0; i < CH_RENEWALS; i++)
        if (ch->renewals[i].fd >= 0)
            return;
    vmm_enter(&ch->vmm);
    ch->on_renewed(ch);
    vmm_leave(&ch->vmm);
}

static void on_renewal(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Ch *ch = userdata;

    for (size_t i = 0; i < CH_RENEWALS; i++)
        if (ch->renewals[i].fd == fd) {
            refused(ch, i);
            return;
        }
}

int ch_channel_renew(Ch *ch, void (*on_renewed)(Ch *ch), Error *e)
{
    char line[32];
    int r = 0;

    ch->on_renewed = on_renewed;
    snprintf(line, sizeof(line), "CONNECT %i\n", CH_PORT_NOBODY);
    for (size_t i = 0; i < CH_RENEWALS && r >= 0; i++) {
        ch->renewals[i].fd = fd_connect_unix(ch->channel);
        if (ch->renewals[i].fd < 0)
            r = ch->renewals[i].fd;
        else if (write(ch->renewals[i].fd, line, strlen(line)) != (ssize_t)strlen(line))
            r = -EIO;
        else
            r = loop_add_io(ch->vmm.loop, ch->renewals[i].fd, EPOLLIN, on_renewal, ch, &ch->renewals[i].io);
    }
    return r < 0 ? error_set_errno(e, r, "cannot connect to the clone") : 0;
}

void ch_channel_free(Ch *ch)
{
    for (size_t i = 0; i < CH_RENEWALS; i++) {
        loop_source_free(ch->renewals[i].io);
        fd_close(ch->renewals[i].fd);
    }
}
