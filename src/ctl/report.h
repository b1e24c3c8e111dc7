/* SPDX-License-Identifier: MIT */
#pragma once

/* What `cloudhvctl check` found, one entry for each thing that was looked at: printed line by line, or as
 * JSON for programs. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/cleanup.h"

typedef enum Finding {
    FINDING_OK,
    FINDING_NOTE, /* works, but somebody may want to know */
    FINDING_FAIL, /* pods cannot run, or not as configured */
    _FINDING_MAX,
} Finding;

typedef struct Report Report;

/* NULL when out of memory. */
Report *report_new(void);
Report *report_free(Report *report);
DEFINE_CLEANUP_FUNC(Report *, report_free)
#define _cleanup_report_ _cleanup_(report_freep)

/* Adds an entry. `remedy` says what to do about it (NULL: nothing to be done). An entry that cannot be kept
 * for want of memory is one that failed: report_ok() is false then. */
void report_add(Report *report, Finding finding, const char *name, const char *remedy, const char *format,
                ...) _printf_(5, 6);

/* No entry is FINDING_FAIL. */
bool report_ok(const Report *report);
size_t report_count(const Report *report, Finding finding);

/* Text for people, or {"ok": …, "checks": [{"name", "result", "message", "remedy"}]}. A negative errno when
 * it cannot be written. */
int report_print(const Report *report, FILE *to);
int report_print_json(const Report *report, FILE *to);
