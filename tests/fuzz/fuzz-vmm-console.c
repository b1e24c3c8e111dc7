/* SPDX-License-Identifier: MIT */

/* What a guest prints, as it appears in an error message: short, on one line, in printable ASCII. */

#include "fuzz.h"
#include "vmm/console.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};
    size_t max = take_u8(&in);
    char *tail = console_text_tail((const char *)in.bytes, in.n, max), *again;

    REQUIRE(tail && strlen(tail) <= max);
    for (const char *p = tail; *p; p++)
        REQUIRE(*p >= ' ' && *p < 0x7f);
    /* What is clean stays as it is. */
    again = console_text_tail(tail, strlen(tail), max);
    REQUIRE(again && strcmp(again, tail) == 0);
    free(again);
    free(tail);
    return 0;
}
