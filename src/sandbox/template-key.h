/* SPDX-License-Identifier: MIT */
#pragma once

/* What a template depends on, as a key: kernel, root file system and VMM by the digests of their files, the
 * host's CPU, kernel and boot, the size of the VM and how it is configured. A template with another key is
 * never restored. */

#include "base/sha256.h"
#include "sandbox/job.h"
#include "sandbox/sandbox.h"

#define TEMPLATE_KEY_SIZE 33 /* hexadecimal digits, with the NUL */

typedef enum TemplateInput {
    TEMPLATE_KERNEL,
    TEMPLATE_ROOTFS,
    TEMPLATE_VMM,
    _TEMPLATE_INPUT_MAX,
} TemplateInput;

/* A file and its content. While the first part is unchanged, the digest is taken to be. */
typedef struct TemplateFileId {
    uint64_t device, inode, size, mtime_nsec, ctime_nsec;
    char digest[SHA256_HEX_SIZE];
} TemplateFileId;

typedef struct TemplateBase {
    TemplateFileId files[_TEMPLATE_INPUT_MAX];
    unsigned features; /* VmmFeature of this VMM; without VMM_TEMPLATE the rest is not set */
    char digest[SHA256_HEX_SIZE]; /* of all that is the same for each size of VM */
} TemplateBase;

/* Size of a VM. */
typedef struct TemplateClass {
    unsigned vcpus;
    uint64_t memory_mb;
} TemplateClass;

/* Finds all of it out, in a child: asks the VMM's program, and reads the files that `known` (of an earlier
 * time; may be zeroed) does not know. The result is for template_base_from(). */
int template_base_start(Loop *loop, const SandboxSettings *settings, const TemplateBase *known,
                        JobDoneFn done, void *userdata, Job **ret, Error *e);
/* The other way round too: as it is kept in a file. */
int template_base_from(json_t *json, TemplateBase *ret, Error *e);
json_t *template_base_to(const TemplateBase *base);

/* Whether the files are still those: 1, 0 or a negative errno. */
int template_base_holds(const SandboxSettings *settings, const TemplateBase *base);

void template_key(const SandboxSettings *settings, const TemplateBase *base, const TemplateClass *class,
                  char ret[static TEMPLATE_KEY_SIZE]);
bool template_key_is_valid(const char *name);

/* Fills in all but the digest. */
int template_file_stat(int fd, TemplateFileId *ret);
/* Whether it is the same file with the same times; of an input, with those of its content, since another link
 * to it changes nothing. */
bool template_file_same(const TemplateFileId *a, const TemplateFileId *b);
bool template_input_same(const TemplateFileId *a, const TemplateFileId *b);
