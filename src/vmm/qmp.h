/* SPDX-License-Identifier: MIT */
#pragma once

/* QMP, QEMU's control protocol, as a state machine without I/O: bytes go in, messages come out; commands are
 * turned into lines. One JSON object per line in both directions (QEMU's docs/interop/qmp-spec). The VMM is
 * not trusted: a guest may have broken into it. So lines are bounded, and what does not fit the protocol ends
 * the conversation. */

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The longest answer we ask for, the list of a VM's devices, is far below that. */
#define QMP_LINE_MAX (256 * 1024)

typedef struct Qmp Qmp;

typedef enum QmpType {
    QMP_GREETING,
    QMP_RETURN,
    QMP_ERROR,
    QMP_EVENT,
} QmpType;

/* Strings belong to the message, which qmp_message_clear() releases. */
typedef struct QmpMessage {
    QmpType type;
    uint64_t id;      /* QMP_RETURN and QMP_ERROR: of the command that is answered */
    const char *name; /* QMP_EVENT: its name; QMP_ERROR: its class */
    const char *text; /* QMP_ERROR: the description, a sentence */
    json_t *data;     /* QMP_RETURN: the value; QMP_EVENT: its data, or NULL; QMP_GREETING: "QMP" */
    json_t *line;     /* keeps the rest alive */
} QmpMessage;

void qmp_message_clear(QmpMessage *m);
#define _cleanup_qmp_message_ _cleanup_(qmp_message_clear)

int qmp_new(Qmp **ret);
Qmp *qmp_free(Qmp *qmp);
DEFINE_CLEANUP_FUNC(Qmp *, qmp_free)

/* Takes bytes from the VMM. Call qmp_next() until it has no more after each: what is kept is then at most one
 * line. Returns 0, -ENOMEM, or -EMSGSIZE when far more is kept than one line may have. */
int qmp_feed(Qmp *qmp, const void *data, size_t n);

/* Gives the next complete message: 0 found, 1 none, negative when the protocol is broken (-EMSGSIZE: line too
 * long, -EBADMSG: anything else); then the conversation is over and each further call says the same. */
int qmp_next(Qmp *qmp, QmpMessage *ret, Error *e);

/* Makes the line of a command, with its newline, and gives it an id. Steals `arguments`, also on failure; it
 * may be NULL. The caller frees the line. */
int qmp_command(Qmp *qmp, const char *name, json_t *arguments, uint64_t *ret_id, char **ret_line,
                size_t *ret_size);
