/* SPDX-License-Identifier: MIT */
#pragma once

/* An OCI bundle as containerd makes it: its config.json, read, and what the shim has to know of it before
 * anything is started. Reading accepts more than the guest can run: spec.h decides what takes effect. */

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

#define BUNDLE_CONFIG_MAX (4U << 20) /* bytes of config.json */

typedef enum BundleKind {
    BUNDLE_PLAIN,     /* no CRI: a pod of one container */
    BUNDLE_SANDBOX,   /* the CRI's sandbox container */
    BUNDLE_CONTAINER, /* a container in a CRI sandbox */
} BundleKind;

typedef struct Bundle {
    json_t *spec; /* owned; all pointers below are into it */
    BundleKind kind;
    const char *sandbox_id; /* of the CRI; NULL for a plain container */
    json_t *annotations;    /* object, or NULL */
    json_t *resources;      /* linux.resources, or NULL */
    const char *hostname;   /* "" for none */
    const char *domainname;
    const char *cgroups_path; /* "" for none */
    bool own_netns;           /* a network namespace is wanted; false: the node's, which is refused later */
    const char *netns_path;   /* NULL: a new one is to be made */
    bool terminal;
    bool root_readonly;
} Bundle;

/* Reads DIRECTORY/config.json. */
int bundle_load(const char *directory, Bundle **ret, Error *e);

/* The same from text; `what` names it in errors. Does no I/O. */
int bundle_parse(const char *text, size_t n, const char *what, Bundle **ret, Error *e);

Bundle *bundle_free(Bundle *bundle);
DEFINE_CLEANUP_FUNC(Bundle *, bundle_free)
#define _cleanup_bundle_ _cleanup_(bundle_freep)

/* An annotation's value, or NULL. */
const char *bundle_annotation(const Bundle *bundle, const char *name);
