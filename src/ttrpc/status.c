/* SPDX-License-Identifier: MIT */

#include <errno.h>

#include "ttrpc/ttrpc.h"

TtrpcCode ttrpc_code_from_errno(int number)
{
    switch (-number) {
    case 0:
        return TTRPC_OK;
    case ECANCELED:
        return TTRPC_CANCELED;
    case EINVAL:
    case ENAMETOOLONG:
    case EILSEQ:
    case E2BIG:
    case ELOOP:
        return TTRPC_INVALID_ARGUMENT;
    case ETIMEDOUT:
    case ETIME:
        return TTRPC_DEADLINE_EXCEEDED;
    case ENOENT:
    case ESRCH:
        return TTRPC_NOT_FOUND;
    case EEXIST:
        return TTRPC_ALREADY_EXISTS;
    case EPERM:
    case EACCES:
        return TTRPC_PERMISSION_DENIED;
    case ENOBUFS:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case EMSGSIZE:
    case EFBIG:
    case EUSERS:
        return TTRPC_RESOURCE_EXHAUSTED;
    case EBUSY:
    case EISCONN:
    case ENOTEMPTY:
    case ENOTDIR:
    case EISDIR:
    case EROFS:
    case ENODEV:
    case ESHUTDOWN:
        return TTRPC_FAILED_PRECONDITION;
    case ECONNABORTED:
    case ESTALE:
        return TTRPC_ABORTED;
    case ERANGE:
    case EOVERFLOW:
        return TTRPC_OUT_OF_RANGE;
    case EOPNOTSUPP:
    case ENOSYS:
        return TTRPC_UNIMPLEMENTED;
    case ENOTCONN:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EAGAIN:
        return TTRPC_UNAVAILABLE;
    case EPROTO:
    case EBADF:
    case EFAULT:
        return TTRPC_INTERNAL;
    case EBADMSG:
        return TTRPC_DATA_LOSS;
    default:
        return TTRPC_UNKNOWN;
    }
}

int ttrpc_code_to_errno(TtrpcCode code)
{
    switch (code) {
    case TTRPC_OK:
        return 0;
    case TTRPC_CANCELED:
        return -ECANCELED;
    case TTRPC_INVALID_ARGUMENT:
        return -EINVAL;
    case TTRPC_DEADLINE_EXCEEDED:
        return -ETIMEDOUT;
    case TTRPC_NOT_FOUND:
        return -ENOENT;
    case TTRPC_ALREADY_EXISTS:
        return -EEXIST;
    case TTRPC_PERMISSION_DENIED:
        return -EPERM;
    case TTRPC_RESOURCE_EXHAUSTED:
        return -ENOBUFS;
    case TTRPC_FAILED_PRECONDITION:
        return -EBUSY;
    case TTRPC_ABORTED:
        return -ECONNABORTED;
    case TTRPC_OUT_OF_RANGE:
        return -ERANGE;
    case TTRPC_UNIMPLEMENTED:
        return -EOPNOTSUPP;
    case TTRPC_INTERNAL:
        return -EPROTO;
    case TTRPC_UNAVAILABLE:
        return -ENOTCONN;
    case TTRPC_DATA_LOSS:
        return -EBADMSG;
    case TTRPC_UNKNOWN:
        break;
    }
    return -EIO;
}

int ttrpc_reply_error(const TtrpcReply *reply, const char *what, Error *e)
{
    if (reply->code == TTRPC_OK)
        return 0;
    return error_set(e, ttrpc_code_to_errno(reply->code), "%s: %s", what,
                     reply->message && *reply->message ? reply->message : "failed without a message");
}
