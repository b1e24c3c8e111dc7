/* SPDX-License-Identifier: MIT */
#pragma once

/* The uids of VMMs. Each VM runs under one of its own, which is also the handle by which a VMM is found that
 * was started just before its starter died. Who has which is kept in one place for the whole host, since
 * killing by uid must never reach another owner's VM: UID_REGISTRY/N is a symbolic link to the state file of
 * N's sandbox. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define UID_REGISTRY "/run/cloudhv/uids"

/* Takes a uid of [base, base + count) that nobody has, for the sandbox whose state file is `owner`. -EUSERS
 * when all are taken. */
int uid_take(uid_t base, unsigned count, const char *owner, uid_t *ret, Error *e);

/* Finds the uid that was taken for `owner`: 1 when there is one, 0 when not. */
int uid_find(const char *owner, uid_t *ret);

/* Gives it back; a uid that somebody else has is left alone. */
void uid_give(uid_t uid, const char *owner);

/* Whether it is taken for `owner`. */
bool uid_belongs(uid_t uid, const char *owner);

/* Makes what `from` has `to`'s, in one step. -ESTALE when it is not `from`'s. */
int uid_move(uid_t uid, const char *from, const char *to);

/* Kills every process that runs under the uid, if it is the owner's, and waits for at most `timeout_usec`
 * until they are gone. Returns how many there were, or -ETIMEDOUT. */
int uid_kill(uid_t uid, const char *owner, uint64_t timeout_usec);

/* Kills and gives back what belongs to sandboxes below `state_dir` that have no state file any more. */
int uid_reclaim(const char *state_dir);
