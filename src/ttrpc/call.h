/* SPDX-License-Identifier: MIT */
#pragma once

/* The calls of one connection, on either side, as plain state: which stream ids are in flight, until when,
 * and what a frame that arrives means to them. No I/O, no clock: times are passed in, in microseconds. */

#include <stdbool.h>
#include <stdint.h>

#include "ttrpc/frame.h"
#include "ttrpc/ttrpc.h"

/* Calls in flight on one connection; one more answers ResourceExhausted. */
#define CALLS_MAX 1024u

/* First member of what the server and the client know about a call. */
typedef struct Call {
    uint32_t id;
    bool stream;       /* the peer expects data frames */
    bool finished;     /* the peer has its answer, or has gone; our own side still holds the call */
    uint64_t deadline; /* UINT64_MAX: none */
    struct Call *prev, *next;
} Call;

typedef struct CallTable {
    Call *first, *last; /* in order of their ids */
    unsigned count;
    uint32_t last_id; /* the highest that was ever used */
} CallTable;

/* Adds a call; table->last_id becomes its id. */
void call_table_add(CallTable *table, Call *call);
void call_table_remove(CallTable *table, Call *call);
/* A call that is not finished, or NULL. */
Call *call_table_find(const CallTable *table, uint32_t id);
/* The first unfinished call whose deadline is not after `now`, or NULL. */
Call *call_table_expired(const CallTable *table, uint64_t now);
/* The earliest deadline of an unfinished call; UINT64_MAX: none. */
uint64_t call_table_next_deadline(const CallTable *table);

/* The id of a client's next call; 0 when all are used up and the connection must be made anew. */
uint32_t call_table_next_id(const CallTable *table);

/* The absolute time of a limit that a request names; 0 or less: UINT64_MAX or `now`. */
uint64_t call_deadline(uint64_t now, int64_t timeout_nano);

/* What a frame means to a server. */
typedef enum CallAccept {
    CALL_ACCEPT_REQUEST, /* a new call */
    CALL_ACCEPT_IGNORE,  /* nothing to be done */
    CALL_ACCEPT_CANCEL,  /* the client wants no more of the stream *ret_call */
    CALL_ACCEPT_REFUSE,  /* answer with *ret_code and *ret_text under the frame's stream id */
} CallAccept;

CallAccept call_table_accept(CallTable *table, const Frame *frame, Call **ret_call, TtrpcCode *ret_code,
                             const char **ret_text);

/* What a frame means to a client. */
typedef enum CallAnswer {
    CALL_ANSWER_RESPONSE,  /* *ret_call ends with a response, to be decoded */
    CALL_ANSWER_MESSAGE,   /* one message of the stream *ret_call */
    CALL_ANSWER_LAST,      /* the same, and its end */
    CALL_ANSWER_END,       /* the stream has ended */
    CALL_ANSWER_OVERSIZED, /* the answer was too long and is lost: the call has failed */
    CALL_ANSWER_IGNORE,    /* belongs to a call that nobody waits for any more */
} CallAnswer;

/* -EPROTO for what no server may send. */
int call_table_answer(const CallTable *table, const Frame *frame, CallAnswer *ret, Call **ret_call);
