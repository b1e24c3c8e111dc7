/* SPDX-License-Identifier: MIT */
#pragma once

/* The files of a template, and the manifest beside them (template.json) by which damage is noticed. What the
 * VMM puts into the directory is its driver's business: here each is a name, an identity and a digest. */

#include "sandbox/template-key.h"

#define TEMPLATE_FILES_MAX 16
#define TEMPLATE_NAME_MAX 63
/* Files up to this size are read at each use; of larger ones, the memory, identity has to do. */
#define TEMPLATE_SMALL_MAX (4ULL << 20)

typedef struct TemplateFile {
    char name[TEMPLATE_NAME_MAX + 1];
    TemplateFileId id;
} TemplateFile;

typedef struct TemplateManifest {
    TemplateClass class;
    uint64_t created_usec; /* CLOCK_REALTIME */
    uint64_t bytes;        /* on disk */
    TemplateFile files[TEMPLATE_FILES_MAX];
    size_t n_files;
} TemplateManifest;

/* Reads all files, which takes a while, and writes the manifest. */
int template_manifest_make(const char *directory, const TemplateClass *class, TemplateManifest *ret, Error *e);
int template_manifest_read(const char *directory, TemplateManifest *ret, Error *e);

typedef enum TemplateVerdict {
    TEMPLATE_DAMAGED,
    TEMPLATE_UNSURE, /* a large file is not the one that was read: it has to be read again */
    TEMPLATE_SOUND,
} TemplateVerdict;

/* Quick enough to be done before each restore, unless `wholly`: then all is read, and the verdict is sure.
 * `reason` says what is damaged. */
TemplateVerdict template_check(const char *directory, const TemplateManifest *manifest, bool wholly,
                               Error *reason);
