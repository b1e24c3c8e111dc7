/* SPDX-License-Identifier: MIT */

#include "ctl/report.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/json.h"

typedef struct Entry {
    Finding finding;
    const char *name;
    char *message;
    char *remedy;
} Entry;

struct Report {
    Entry *entries;
    size_t n_entries;
    bool incomplete; /* memory ran out */
};

static const char *const finding_names[_FINDING_MAX] = {
    [FINDING_OK] = "ok", [FINDING_NOTE] = "note", [FINDING_FAIL] = "fail"};

Report *report_new(void)
{
    return calloc(1, sizeof(Report));
}

Report *report_free(Report *report)
{
    if (!report)
        return NULL;
    for (size_t i = 0; i < report->n_entries; i++) {
        free(report->entries[i].message);
        free(report->entries[i].remedy);
    }
    free(report->entries);
    free(report);
    return NULL;
}

void report_add(Report *report, Finding finding, const char *name, const char *remedy, const char *format,
                ...)
{
    Entry *entries = reallocarray(report->entries, report->n_entries + 1, sizeof(*entries));
    Entry entry = {.finding = finding, .name = name};
    va_list ap;

    if (!entries) {
        report->incomplete = true;
        return;
    }
    report->entries = entries;
    va_start(ap, format);
    if (vasprintf(&entry.message, format, ap) < 0)
        entry.message = NULL;
    va_end(ap);
    if (remedy)
        entry.remedy = strdup(remedy);
    if (!entry.message || (remedy && !entry.remedy)) {
        free(entry.message);
        free(entry.remedy);
        report->incomplete = true;
        return;
    }
    report->entries[report->n_entries++] = entry;
}

size_t report_count(const Report *report, Finding finding)
{
    size_t n = 0;

    for (size_t i = 0; i < report->n_entries; i++)
        n += report->entries[i].finding == finding;
    return n;
}

bool report_ok(const Report *report)
{
    return !report->incomplete && report_count(report, FINDING_FAIL) == 0;
}

int report_print(const Report *report, FILE *to)
{
    for (size_t i = 0; i < report->n_entries; i++) {
        const Entry *entry = &report->entries[i];

        fprintf(to, "%-4s  %-14s %s\n", finding_names[entry->finding], entry->name, entry->message);
        if (entry->remedy)
            fprintf(to, "      %-14s -> %s\n", "", entry->remedy);
    }
    if (report->incomplete)
        fputs("fail  (memory ran out: this is not all)\n", to);
    if (report_ok(report))
        fputs("This host can run pods.\n", to);
    else
        fprintf(to, "This host cannot run pods as configured: %zu of %zu checks failed.\n",
                report_count(report, FINDING_FAIL), report->n_entries);
    return fflush(to) == 0 ? 0 : -errno;
}

int report_print_json(const Report *report, FILE *to)
{
    _cleanup_json_ json_t *root = NULL;
    json_t *checks = json_array();

    root = json_pack("{s:b, s:o}", "ok", report_ok(report), "checks", checks);
    if (!root)
        return -ENOMEM;
    for (size_t i = 0; i < report->n_entries; i++) {
        const Entry *entry = &report->entries[i];

        if (json_array_append_new(checks, json_pack("{s:s, s:s, s:s, s:s?}", "name", entry->name, "result",
                                                    finding_names[entry->finding], "message", entry->message,
                                                    "remedy", entry->remedy)) < 0)
            return -ENOMEM;
    }
    if (json_dumpf(root, to, JSON_INDENT(2)) < 0 || fputc('\n', to) == EOF || fflush(to) != 0)
        return -EIO;
    return 0;
}
