/* SPDX-License-Identifier: MIT */
#pragma once

/* What the fuzz targets share: taking an input apart, and what must hold. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fs.h"

/* A violated invariant ends the process, which libFuzzer reports together with the input. */
#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%i: %s does not hold\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The rest of an input; what is taken beyond its end reads as zero or is short. */
typedef struct Input {
    const uint8_t *bytes;
    size_t n;
} Input;

static inline uint8_t take_u8(Input *in)
{
    uint8_t value = 0;

    if (in->n > 0) {
        value = *in->bytes++;
        in->n--;
    }
    return value;
}

static inline uint16_t take_u16(Input *in)
{
    uint16_t high = take_u8(in);

    return (uint16_t)(high << 8 | take_u8(in));
}

/* At most `max` bytes. */
static inline Input take(Input *in, size_t max)
{
    Input part = {in->bytes, in->n < max ? in->n : max};

    in->bytes += part.n;
    in->n -= part.n;
    return part;
}

/* As a string that the caller frees; a NUL ends it. */
static inline char *take_string(Input *in, size_t max)
{
    Input part = take(in, max);
    char *text = part.n > 0 ? strndup((const char *)part.bytes, part.n) : strdup("");

    if (!text)
        abort();
    return text;
}

static char fuzz_directory_path[64];

static inline void fuzz_directory_remove(void)
{
    (void)fs_remove_tree(fuzz_directory_path);
}

/* A directory for files that a module insists on, in memory where that is possible; it goes with the process.
 */
static inline char *fuzz_directory(void)
{
    struct stat st;

    if (fuzz_directory_path[0])
        return fuzz_directory_path;
    snprintf(fuzz_directory_path, sizeof(fuzz_directory_path), "%s/cloudhv-fuzz.XXXXXX",
             stat("/dev/shm", &st) < 0 ? "/tmp" : "/dev/shm");
    if (!mkdtemp(fuzz_directory_path) || atexit(fuzz_directory_remove) != 0)
        abort();
    return fuzz_directory_path;
}

static inline void fuzz_write_file(const char *path, const uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "we");

    if (!f || (size > 0 && fwrite(data, size, 1, f) != 1) || fclose(f) != 0)
        abort();
}

/* As Go's protobuf wants strings to be: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
static inline bool is_utf8(const char *text)
{
    const uint8_t *s = (const uint8_t *)text;

    while (*s) {
        uint32_t c = *s++;
        unsigned n = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        static const uint32_t first[] = {0, 0x80, 0x800, 0x10000};

        if ((c >= 0x80 && c < 0xc0) || c >= 0xf8)
            return false;
        c &= n == 0 ? 0x7f : 0x3fU >> n;
        for (unsigned i = 0; i < n; i++, s++) {
            if ((*s & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*s & 0x3f);
        }
        if (c < first[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
