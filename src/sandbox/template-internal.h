/* SPDX-License-Identifier: MIT */
#pragma once

/* The insides of the store of templates, shared by its files: template.c (which templates there are, and which
 * is given out) and template-work.c (bounds, failures, checks and making, one thing at a time). */

#include "sandbox/template-make.h"
#include "sandbox/template.h"

/* Until the next try after a failure. */
#define TEMPLATE_RETRY_USEC (30 * USEC_PER_SEC)
/* Sizes asked for before it was known what templates depend on; more are asked for again. */
#define WANTED_MAX 8

typedef enum TemplateState {
    TEMPLATE_WANTED,   /* has no files: to be made */
    TEMPLATE_MAKING,
    TEMPLATE_UNREAD,   /* its large files have yet to be read */
    TEMPLATE_CHECKING,
    TEMPLATE_READY,
    TEMPLATE_FAILED,  /* has no files, and is not to be made before `retry_usec` */
    TEMPLATE_RETIRED, /* of another key than what there is now */
} TemplateState;

typedef struct Template Template;
struct Template {
    Template *next;
    char key[TEMPLATE_KEY_SIZE];
    TemplateState state;
    TemplateManifest manifest; /* of one without files: only its class */
    uint64_t used_usec, retry_usec, begun_usec;
    unsigned failed_making, failed_clones;
};

struct TemplateStore {
    Loop *loop;
    const SandboxSettings *settings;
    TemplateHooks hooks;
    Template *templates;
    TemplateBase base;
    bool base_known, started, stopped, prepared;
    uint64_t base_retry_usec;
    TemplateClass wanted[WANTED_MAX]; /* while it is not known */
    unsigned n_wanted;
    char *reason; /* why there is none */
    Job *job;     /* one at a time */
    TemplateMaker *maker;
    Template *busy; /* what job or maker is about */
    LoopSource *defer;
    char *origin; /* directory of the last answer */
};

/* For the journal. */
void template_say(TemplateStore *store, int priority, const char *format, ...) _printf_(3, 4);

bool template_has_files(const Template *one);
char *template_directory(const TemplateStore *store, const Template *one);
Template *template_find(TemplateStore *store, const char *key);
Template *template_add(TemplateStore *store, const char *key, TemplateState state);
void template_drop(TemplateStore *store, Template *one);
void template_remove_files(TemplateStore *store, const char *key);

/* Does what is to be done next, from the loop. */
void template_schedule(TemplateStore *store);

/* Not used any more, and to be made again; `why` goes to the journal. */
void template_discard(TemplateStore *store, Template *one, const char *why);
void template_start_check(TemplateStore *store, Template *one);
void template_start_making(TemplateStore *store, Template *one);
