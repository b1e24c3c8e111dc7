/* SPDX-License-Identifier: MIT */
#pragma once

/* Sends the trees of a container's plan to the agent, in messages of bounded size, one after the other. */

#include "oci/plan.h"
#include "ttrpc/ttrpc.h"

typedef struct FilesSender FilesSender;

/* `e` is NULL on success. The sender may be freed here. */
typedef void (*FilesFn)(FilesSender *sender, const Error *e, void *userdata);

/* `plan` and `container_id` must outlive the sender. Calls back from the loop, also when there is nothing to send.
 */
int files_send(Loop *loop, TtrpcClient *agent, const char *container_id, const OciPlan *plan, uint64_t timeout_usec,
               FilesFn callback, void *userdata, FilesSender **ret, Error *e);
FilesSender *files_sender_free(FilesSender *sender);
