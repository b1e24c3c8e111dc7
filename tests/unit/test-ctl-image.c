/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "ctl/image.h"

/* x86-64 root, root-verity and root-verity-sig, as they lie on disk. */
static const unsigned char root_type[] = {0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d,
                                          0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09};
static const unsigned char signature_type[] = {0x05, 0x2b, 0x09, 0x41, 0xc8, 0x9f, 0x23, 0x45,
                                               0x99, 0x4f, 0x2d, 0xef, 0x04, 0x08, 0xb1, 0x76};

enum { SIZE = 4096 };

static void put(unsigned char *p, unsigned long value, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (unsigned char)(value >> (8 * i));
}

static unsigned char *new_disk(unsigned long lba, unsigned long count, unsigned long entry_size)
{
    unsigned char *disk = calloc(1, SIZE);

    assert_non_null(disk);
    memcpy(disk + 512, "EFI PART", 8);
    put(disk + 512 + 72, lba, 8);
    put(disk + 512 + 80, count, 4);
    put(disk + 512 + 84, entry_size, 4);
    memcpy(disk + 1024, root_type, 16);
    return disk;
}

static void test_signature(void **state)
{
    unsigned char *disk = new_disk(2, 8, 128);

    assert_false(image_has_signature(disk, SIZE));
    memcpy(disk + 1024 + 2 * 128, signature_type, 16);
    assert_true(image_has_signature(disk, SIZE));
    assert_false(image_has_signature(disk, 1024 + 2 * 128 + 100));
    assert_false(image_has_signature(disk, 600));
    assert_false(image_has_signature(disk, 0));
    disk[512] = 'X';
    assert_false(image_has_signature(disk, SIZE));
    free(disk);
}

static void test_bad_tables(void **state)
{
    static const unsigned long bad[][3] = {
        {2, 0xffffffff, 128}, {0xffffffffffffffff, 8, 128}, {2, 8, 0}, {2, 8, 0xffffffff}, {8, 8, 128},
        {2, 1024, 4096},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        unsigned char *disk = new_disk(bad[i][0], bad[i][1], bad[i][2]);

        assert_false(image_has_signature(disk, SIZE));
        free(disk);
    }
}

static void test_policies(void **state)
{
    static const char *const strict[] = {"root=signed+absent:usr=signed+absent", "usr=signed:root=absent",
                                         "root=signed+absent:usr=signed+absent:=unused", "~"};
    static const char *const lax[] = {
        "",
        "*",
        "root=verity+signed+absent:usr=verity+signed+absent",
        "root=signed+absent",
        "usr=signed+absent",
        "root=signed+absent:usr=signed+unprotected",
        "root=signed+absent:usr=signed+absent:=open",
        "root=signed+absent:usr=",
        "root:usr",
        "root=signedx:usr=signed",
    };

    for (size_t i = 0; i < sizeof(strict) / sizeof(strict[0]); i++)
        assert_true(image_policy_is_strict(strict[i]));
    for (size_t i = 0; i < sizeof(lax) / sizeof(lax[0]); i++)
        assert_false(image_policy_is_strict(lax[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_policies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
