/* SPDX-License-Identifier: MIT */
#pragma once

/* The shim's memory on disk: `cloudhv.json` in the sandbox's bundle. It is written before each side effect that
 * `delete` could not undo by names alone, so that a shim that was killed leaves nothing behind. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define RECORD_FILE "cloudhv.json"

typedef struct RecordDisk {
    char *container;
    char *path; /* of the scratch disk's file */
} RecordDisk;

typedef struct Record {
    char *socket;        /* path of the shim's socket */
    char *daemon_socket; /* "": the shim boots its VM itself */
    char *state_dir;     /* of a VM that the shim booted itself */
    char *netns;         /* path of the pod's network namespace; NULL: the shim's own, or none yet */
    pid_t pid;           /* of the shim; 0: none yet */
    uint64_t start_time; /* field 22 of /proc/PID/stat */
    RecordDisk *disks;
    size_t n_disks;
} Record;

/* -ENOENT when there is none. */
int record_read(const char *bundle, Record **ret, Error *e);
int record_write(const Record *record, const char *bundle, Error *e);

/* Adds or removes in memory only. */
int record_add_disk(Record *record, const char *container, const char *path);
void record_remove_disk(Record *record, const char *container);

Record *record_free(Record *record);
DEFINE_CLEANUP_FUNC(Record *, record_free)
#define _cleanup_record_ _cleanup_(record_freep)
