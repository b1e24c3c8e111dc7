/* SPDX-License-Identifier: MIT */

#include "net/rtnl.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

enum {
    ATTRIBUTES_SIZE = 512,
    RECEIVE_SIZE = 32 * 1024, /* what the kernel fills at most with one part of a dump */
    TIMEOUT_SECS = 5,
    DUMP_TRIES = 8,
};

struct Rtnl {
    int fd;
    uint32_t sequence;
    char *buffer;
};

int rtnl_new(Rtnl **ret, Error *e)
{
    _cleanup_rtnl_ Rtnl *rtnl = calloc(1, sizeof(*rtnl));
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK};
    struct timeval tv = {.tv_sec = TIMEOUT_SECS};
    int one = 1;

    if (!rtnl)
        return error_set_errno(e, -ENOMEM, "cannot make a netlink socket");
    rtnl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    rtnl->buffer = malloc(RECEIVE_SIZE);
    if (rtnl->fd < 0 || bind(rtnl->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        setsockopt(rtnl->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0)
        return error_set_errno(e, -errno, "cannot open a route netlink socket");
    if (!rtnl->buffer)
        return error_set_errno(e, -ENOMEM, "cannot make a netlink socket");
    /* Explanations are a bonus: a kernel that gives none is fine. */
    (void)setsockopt(rtnl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    (void)setsockopt(rtnl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    *ret = TAKE_PTR(rtnl);
    return 0;
}

Rtnl *rtnl_free(Rtnl *rtnl)
{
    if (!rtnl)
        return NULL;
    if (rtnl->fd >= 0)
        close(rtnl->fd);
    free(rtnl->buffer);
    free(rtnl);
    return NULL;
}

struct nl_msg *rtnl_message_new(uint16_t type, uint16_t flags, const void *header, size_t header_size,
                                size_t room)
{
    _cleanup_nlmsg_ struct nl_msg *message =
        nlmsg_alloc_size(NLMSG_SPACE(header_size) + ATTRIBUTES_SIZE + NLMSG_ALIGN(room));

    if (!message || !nlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, NLM_F_REQUEST | flags) ||
        nlmsg_append(message, (void *)header, header_size, NLMSG_ALIGNTO) < 0)
        return NULL;
    return TAKE_PTR(message);
}

static int rtnl_send(Rtnl *rtnl, struct nl_msg *message, uint16_t flags)
{
    struct nlmsghdr *nlh;

    if (!message)
        return -ENOMEM;
    nlh = nlmsg_hdr(message);
    nlh->nlmsg_flags |= NLM_F_REQUEST | flags;
    nlh->nlmsg_seq = ++rtnl->sequence;
    return send(rtnl->fd, nlh, nlh->nlmsg_len, 0) < 0 ? -errno : 0;
}

/* One datagram from the kernel; what others send is dropped. */
static int rtnl_receive(Rtnl *rtnl, int *ret_size)
{
    for (;;) {
        struct sockaddr_nl from = {0};
        struct iovec iov = {.iov_base = rtnl->buffer, .iov_len = RECEIVE_SIZE};
        struct msghdr mh = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = recvmsg(rtnl->fd, &mh, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (n == 0)
            return -ECONNRESET;
        if (mh.msg_flags & MSG_TRUNC)
            return -EMSGSIZE;
        if (from.nl_pid != 0)
            continue;
        *ret_size = (int)n;
        return 0;
    }
}

/* The kernel's words in an error message, NULL if it gave none. Valid until the next receive. */
static const char *extended_message(struct nlmsghdr *nlh)
{
    static const struct nla_policy policy[NLMSGERR_ATTR_MAX + 1] = {
        [NLMSGERR_ATTR_MSG] = {.type = NLA_STRING},
    };
    const struct nlmsgerr *error = nlmsg_data(nlh);
    size_t header_size = sizeof(*error);
    struct nlattr *tb[NLMSGERR_ATTR_MAX + 1];

    /* The request comes back before the attributes, unless it was left out (NETLINK_CAP_ACK). */
    if (!(nlh->nlmsg_flags & NLM_F_CAPPED) && error->msg.nlmsg_len > NLMSG_HDRLEN)
        header_size += error->msg.nlmsg_len - NLMSG_HDRLEN;
    if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS) || header_size > nlh->nlmsg_len ||
        nlmsg_parse(nlh, (int)header_size, tb, NLMSGERR_ATTR_MAX, policy) < 0 || !tb[NLMSGERR_ATTR_MSG])
        return NULL;
    return nla_get_string(tb[NLMSGERR_ATTR_MSG]);
}

/* Reads the answer to the last request. Returns 0 and gives the kernel's errno and words. */
static int read_ack(Rtnl *rtnl, int *ret_number, const char **ret_words)
{
    for (;;) {
        int remaining, r = rtnl_receive(rtnl, &remaining);

        if (r < 0)
            return r;
        for (struct nlmsghdr *nlh = (struct nlmsghdr *)rtnl->buffer; nlmsg_ok(nlh, remaining);
             nlh = nlmsg_next(nlh, &remaining)) {
            if (nlh->nlmsg_seq != rtnl->sequence || nlh->nlmsg_type != NLMSG_ERROR)
                continue;
            if (!nlmsg_valid_hdr(nlh, sizeof(struct nlmsgerr)))
                return -EBADMSG;
            *ret_number = ((const struct nlmsgerr *)nlmsg_data(nlh))->error;
            *ret_words = extended_message(nlh);
            return 0;
        }
    }
}

int rtnl_call(Rtnl *rtnl, struct nl_msg *message, Error *e, const char *format, ...)
{
    const char *words = NULL;
    int r, number = 0;

    r = rtnl_send(rtnl, message, NLM_F_ACK);
    if (r >= 0)
        r = read_ack(rtnl, &number, &words);
    if (r >= 0)
        r = number;
    if (r < 0 && e) {
        _cleanup_free_ char *what = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&what, format, ap) < 0)
            what = NULL;
        va_end(ap);
        if (words)
            error_set(e, r, "cannot %s: %s (kernel: %s)", what ?: "configure the network", strerror(-r),
                      words);
        else
            error_set_errno(e, r, "cannot %s", what ?: "configure the network");
    }
    return r;
}

typedef struct Dump {
    int answer_type;
    RtnlFn callback;
    void *userdata;
    bool done, interrupted;
    int failure; /* of the callback: the rest of the dump is still read, so that the socket stays usable */
} Dump;

static int dump_datagram(Rtnl *rtnl, Dump *dump, int remaining)
{
    for (struct nlmsghdr *nlh = (struct nlmsghdr *)rtnl->buffer; nlmsg_ok(nlh, remaining) && !dump->done;
         nlh = nlmsg_next(nlh, &remaining)) {
        if (nlh->nlmsg_seq != rtnl->sequence)
            continue;
        if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
            dump->interrupted = true;
        if (nlh->nlmsg_type == NLMSG_DONE || nlh->nlmsg_type == NLMSG_ERROR) {
            int number = 0;

            if (nlmsg_valid_hdr(nlh, sizeof(number)))
                memcpy(&number, nlmsg_data(nlh), sizeof(number));
            dump->done = true;
            if (number < 0)
                return number;
        } else if (nlh->nlmsg_type == dump->answer_type && dump->failure == 0) {
            int r = dump->callback(nlh, dump->userdata);

            if (r < 0)
                dump->failure = r;
        }
    }
    return 0;
}

int rtnl_dump(Rtnl *rtnl, struct nl_msg *message, int answer_type, RtnlFn callback,
              void (*restart)(void *userdata), void *userdata, Error *e)
{
    for (int i = 0; i < DUMP_TRIES; i++) {
        Dump dump = {.answer_type = answer_type, .callback = callback, .userdata = userdata};
        int r;

        r = rtnl_send(rtnl, message, NLM_F_DUMP);
        while (r >= 0 && !dump.done) {
            int size;

            r = rtnl_receive(rtnl, &size);
            if (r >= 0)
                r = dump_datagram(rtnl, &dump, size);
        }
        if (r < 0)
            return error_set_errno(e, r, "cannot list the kernel's network configuration");
        if (!dump.interrupted)
            /* The callback has its own words. */
            return dump.failure;
        if (restart)
            restart(userdata);
        if (e)
            error_clear(e);
    }
    return error_set(e, -EAGAIN, "cannot list the kernel's network configuration: it keeps changing");
}
