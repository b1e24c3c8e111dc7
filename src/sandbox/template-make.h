/* SPDX-License-Identifier: MIT */
#pragma once

/* Makes one template: boots a VM without a NIC that belongs to no pod, has its agent run a container once, so
 * that clones share what that leaves in memory, pauses and saves it, and ends it. All of that goes on in a
 * temporary directory, which gets its final name when every file has been read back into the manifest. */

#include "sandbox/template-files.h"

/* Temporary directories begin with it; what begins with it when nothing is being made is left by a crash. */
#define TEMPLATE_TEMPORARY ".tmp-"

typedef struct TemplateMaker TemplateMaker;

/* Called once, from the loop, when nothing of the VM is left; the maker is gone afterwards. */
typedef void (*TemplateMadeFn)(const Error *e, void *userdata);

/* `key` is the name that the directory gets below the configured one. */
int template_make(Loop *loop, const SandboxSettings *settings, const char *key, const TemplateClass *class,
                  TemplateMadeFn done, void *userdata, TemplateMaker **ret, Error *e);

/* Ends it; `done` follows. */
void template_maker_cancel(TemplateMaker *maker);

/* Forgets it; what is under way stays for the next start to clean up. NULL is fine. */
TemplateMaker *template_maker_free(TemplateMaker *maker);
