/* SPDX-License-Identifier: MIT */
#pragma once

/* The templates of this host, one for each key (template-key.h), in directories below the configured one:
 *   KEY/            its files, root's and readable by the VMMs' group; KEY/template.json is its manifest
 *   .tmp-…          one that is being made
 *   inputs.json     digests of kernel, root file system and VMM, by the identity of their files
 * A template is made when one is first asked for, in the background; until then, and whenever something is
 * wrong with it, there is none, and VMs are booted. */

#include "sandbox/clone.h"
#include "sandbox/template-files.h"

typedef struct TemplateStore TemplateStore;

typedef struct TemplateHooks {
    /* Whether a VM that runs is a clone of it. */
    bool (*in_use)(const char *key, void *userdata);
    /* There are templates now, or more than before; or making one has ended. */
    void (*ready)(void *userdata);
    void (*log)(int priority, const char *message, void *userdata);
    void *userdata;
} TemplateHooks;

/* Nothing happens before template_store_start(). */
int template_store_new(Loop *loop, const SandboxSettings *settings, const TemplateHooks *hooks,
                       TemplateStore **ret, Error *e);
TemplateStore *template_store_free(TemplateStore *store);

/* Which templates are in use can be asked from now on. */
void template_store_start(TemplateStore *store);

/* 1 and the template, whose strings are valid until the next call; or 0: there is none (yet). */
int template_store_get(TemplateStore *store, const TemplateClass *class, SandboxOrigin *ret);

/* Begins nothing any more. True: something is still under way; hooks.ready tells of its end. */
bool template_store_stop(TemplateStore *store);

/* A clone came up, or did not. */
void template_store_worked(TemplateStore *store, const char *key);
void template_store_failed(TemplateStore *store, const char *key, const Error *e);

/* Removes what is of no use any more; to be called when a clone has ended. */
void template_store_collect(TemplateStore *store);

/* Why there can be no template at all, or NULL. */
const char *template_store_reason(const TemplateStore *store);

typedef struct TemplateInfo {
    const char *key, *state; /* "making", "checking", "ready", "failed", "retired" */
    TemplateClass class;
    uint64_t created_usec, bytes;
} TemplateInfo;

size_t template_store_count(const TemplateStore *store);
/* The i-th; strings are the store's. */
TemplateInfo template_store_info(const TemplateStore *store, size_t i);
