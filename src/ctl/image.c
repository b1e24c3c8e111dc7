/* SPDX-License-Identifier: MIT */

#include "ctl/image.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* UEFI specification, 5.3: a header in the second sector, then an array of entries. */
enum {
    SECTOR = 512,
    ENTRIES_LBA = 72, /* offsets in the header */
    N_ENTRIES = 80,
    ENTRY_SIZE = 84,
    ENTRIES_MAX = 1024,
};

/* Types root-verity-sig and usr-verity-sig of x86-64 and arm64, as they lie on disk: the first three groups
 * of a GUID are little-endian. */
static const uint8_t signature_types[][16] = {
    {0x05, 0x2b, 0x09, 0x41, 0xc8, 0x9f, 0x23, 0x45, 0x99, 0x4f, 0x2d, 0xef, 0x04, 0x08, 0xb1, 0x76},
    {0xe6, 0x9d, 0xb6, 0x6d, 0xf4, 0x29, 0x58, 0x47, 0xa7, 0xa5, 0x96, 0x21, 0x90, 0xf0, 0x0c, 0xe3},
    {0xfb, 0x33, 0xbb, 0xe7, 0xcf, 0x06, 0x81, 0x4e, 0x82, 0x73, 0xe5, 0x43, 0xb4, 0x13, 0xe2, 0xe2},
    {0xff, 0xe4, 0x3c, 0xc2, 0xbd, 0x44, 0x00, 0x4b, 0xb2, 0xd4, 0xb4, 0x1b, 0x34, 0x19, 0xe0, 0x2a},
};

static uint64_t read_le64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return le64toh(value);
}

static uint32_t read_le32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof(value));
    return le32toh(value);
}

bool image_has_signature(const void *data, size_t n)
{
    const uint8_t *header = (const uint8_t *)data + SECTOR;
    uint64_t lba;
    uint32_t count, size;

    if (n < 2 * SECTOR || memcmp(header, "EFI PART", 8) != 0)
        return false;
    lba = read_le64(header + ENTRIES_LBA);
    count = read_le32(header + N_ENTRIES);
    size = read_le32(header + ENTRY_SIZE);
    if (lba > n / SECTOR || size < 128 || size > 4096 || count > ENTRIES_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        size_t at = (size_t)lba * SECTOR + (size_t)i * size;

        if (at + size > n)
            return false;
        for (size_t k = 0; k < sizeof(signature_types) / sizeof(signature_types[0]); k++)
            if (memcmp((const uint8_t *)data + at, signature_types[k], 16) == 0)
                return true;
    }
    return false;
}

/* "signed+absent": each of the words between the plus signs. */
static bool flags_are_strict(const char *flags, size_t n)
{
    static const char *const allowed[] = {"signed", "absent", "unused"};

    if (n == 0)
        return false;
    while (n > 0) {
        size_t k = 0;
        bool found = false;

        while (k < n && flags[k] != '+')
            k++;
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
            found = found || (strlen(allowed[i]) == k && strncmp(flags, allowed[i], k) == 0);
        if (!found)
            return false;
        flags += k + (k < n);
        n -= k + (k < n);
    }
    return true;
}

bool image_policy_is_strict(const char *policy)
{
    bool root = false, usr = false, other = true;

    /* Alone these stand for a whole policy: "*" and "-" for all and nothing, "~" for ignoring all. */
    if (strcmp(policy, "~") == 0)
        return true;
    for (const char *p = policy; *p;) {
        size_t n = strcspn(p, ":"), k = strcspn(p, "=");
        bool strict = k < n && flags_are_strict(p + k + 1, n - k - 1);

        if (k >= n)
            return false;
        if (k == 0)
            other = strict;
        else if (k == 4 && strncmp(p, "root", 4) == 0)
            root = strict;
        else if (k == 3 && strncmp(p, "usr", 3) == 0)
            usr = strict;
        p += n + (p[n] == ':');
    }
    /* Partitions that no part names are ignored, which is what is wanted of all but these two. */
    return other && root && usr;
}
