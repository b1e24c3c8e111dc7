/* SPDX-License-Identifier: MIT */

#include "ttrpc/crc32.h"

#include <endian.h>
#include <string.h>

/* Constant once filled: table[0] is the remainder of a byte, table[k] that of a byte followed by k zeros, so
 * that four bytes are folded in one step. Computed, since 4 KiB of numbers in the source cannot be read. */
static uint32_t table[4][256];

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[0][i] = c;
    }
    for (int k = 1; k < 4; k++)
        for (int i = 0; i < 256; i++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

uint32_t crc32_ieee(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint32_t c = UINT32_MAX;

    if (table[0][1] == 0)
        fill_table();
    for (; n >= 4; n -= 4, p += 4) {
        uint32_t word;

        memcpy(&word, p, sizeof(word));
        c ^= le32toh(word);
        c = table[3][c & 0xff] ^ table[2][c >> 8 & 0xff] ^ table[1][c >> 16 & 0xff] ^ table[0][c >> 24];
    }
    for (; n > 0; n--, p++)
        c = c >> 8 ^ table[0][(c ^ *p) & 0xff];
    return ~c;
}
