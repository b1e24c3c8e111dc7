/* SPDX-License-Identifier: MIT */

#include "ttrpc/call.h"

#include <errno.h>

#include "base/cleanup.h"

void call_table_add(CallTable *table, Call *call)
{
    call->prev = table->last;
    call->next = NULL;
    if (table->last)
        table->last->next = call;
    else
        table->first = call;
    table->last = call;
    table->count++;
    table->last_id = call->id;
}

void call_table_remove(CallTable *table, Call *call)
{
    if (call->prev)
        call->prev->next = call->next;
    else
        table->first = call->next;
    if (call->next)
        call->next->prev = call->prev;
    else
        table->last = call->prev;
    call->prev = call->next = NULL;
    table->count--;
}

Call *call_table_find(const CallTable *table, uint32_t id)
{
    for (Call *c = table->first; c && c->id <= id; c = c->next)
        if (c->id == id)
            return c->finished ? NULL : c;
    return NULL;
}

Call *call_table_expired(const CallTable *table, uint64_t now)
{
    for (Call *c = table->first; c; c = c->next)
        if (!c->finished && c->deadline <= now)
            return c;
    return NULL;
}

uint64_t call_table_next_deadline(const CallTable *table)
{
    uint64_t next = UINT64_MAX;

    for (Call *c = table->first; c; c = c->next)
        if (!c->finished && c->deadline < next)
            next = c->deadline;
    return next;
}

uint32_t call_table_next_id(const CallTable *table)
{
    if (table->last_id == 0)
        return 1;
    return table->last_id > UINT32_MAX - 2 ? 0 : table->last_id + 2;
}

uint64_t call_deadline(uint64_t now, int64_t timeout_nano)
{
    if (timeout_nano == 0)
        return UINT64_MAX;
    if (timeout_nano < 0)
        return now;
    return now + (uint64_t)timeout_nano / NSEC_PER_USEC;
}

static CallAccept refuse(TtrpcCode code, const char *text, TtrpcCode *ret_code, const char **ret_text)
{
    *ret_code = code;
    *ret_text = text;
    return CALL_ACCEPT_REFUSE;
}

static CallAccept accept_request(CallTable *table, const Frame *frame, TtrpcCode *ret_code,
                                 const char **ret_text)
{
    if (frame->stream_id <= table->last_id)
        return refuse(TTRPC_INVALID_ARGUMENT, "the stream id of a request must be higher than all before it",
                      ret_code, ret_text);
    table->last_id = frame->stream_id;
    if (frame->oversized)
        return refuse(TTRPC_RESOURCE_EXHAUSTED, "the request is longer than the limit of 4 MiB", ret_code,
                      ret_text);
    if (frame->flags & FRAME_REMOTE_OPEN)
        return refuse(TTRPC_UNIMPLEMENTED, "streams of requests are not served", ret_code, ret_text);
    if (table->count >= CALLS_MAX)
        return refuse(TTRPC_RESOURCE_EXHAUSTED, "too many calls in flight on this connection", ret_code,
                      ret_text);
    return CALL_ACCEPT_REQUEST;
}

CallAccept call_table_accept(CallTable *table, const Frame *frame, Call **ret_call, TtrpcCode *ret_code,
                             const char **ret_text)
{
    Call *call;

    /* Types of a later version of the protocol are passed over, as Go's server does. */
    if (frame->type != FRAME_REQUEST && frame->type != FRAME_DATA)
        return CALL_ACCEPT_IGNORE;
    if (frame->stream_id % 2 != 1)
        return refuse(TTRPC_INVALID_ARGUMENT, "the stream id of a client's call must be odd", ret_code,
                      ret_text);
    if (frame->type == FRAME_REQUEST)
        return accept_request(table, frame, ret_code, ret_text);

    /* Data for a call that has ended may have crossed its answer. */
    if (frame->stream_id > table->last_id)
        return refuse(TTRPC_INVALID_ARGUMENT, "data for a stream that was never opened", ret_code, ret_text);
    call = call_table_find(table, frame->stream_id);
    if (!call || !call->stream || !(frame->flags & FRAME_REMOTE_CLOSED))
        return CALL_ACCEPT_IGNORE;
    *ret_call = call;
    return CALL_ACCEPT_CANCEL;
}

int call_table_answer(const CallTable *table, const Frame *frame, CallAnswer *ret, Call **ret_call)
{
    Call *call;

    if (frame->type != FRAME_RESPONSE && frame->type != FRAME_DATA) {
        *ret = CALL_ANSWER_IGNORE;
        return 0;
    }
    if (frame->stream_id % 2 != 1 || frame->stream_id > table->last_id)
        return -EPROTO;
    call = call_table_find(table, frame->stream_id);
    if (!call) {
        *ret = CALL_ANSWER_IGNORE;
        return 0;
    }
    if (frame->oversized)
        *ret = CALL_ANSWER_OVERSIZED;
    else if (frame->type == FRAME_RESPONSE)
        *ret = CALL_ANSWER_RESPONSE;
    else if (!call->stream)
        return -EPROTO;
    else if (frame->flags & FRAME_NO_DATA)
        *ret = frame->flags & FRAME_REMOTE_CLOSED ? CALL_ANSWER_END : CALL_ANSWER_IGNORE;
    else
        *ret = frame->flags & FRAME_REMOTE_CLOSED ? CALL_ANSWER_LAST : CALL_ANSWER_MESSAGE;
    *ret_call = call;
    return 0;
}
