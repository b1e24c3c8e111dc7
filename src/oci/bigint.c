/* SPDX-License-Identifier: MIT */

#include "oci/bigint.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Characters of a number as JSON writes it. */
static bool in_number(char c)
{
    return (c >= '0' && c <= '9') || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-';
}

/* The length of the token that begins at `text`: a string, a number, or one character of anything else. */
static size_t token_length(const char *text, size_t n)
{
    size_t i = 1;

    if (text[0] == '"') {
        for (; i < n && text[i] != '"'; i++)
            if (text[i] == '\\')
                i++;
        return i < n ? i + 1 : n;
    }
    if (in_number(text[0]) && text[0] != 'e' && text[0] != 'E')
        while (i < n && in_number(text[i]))
            i++;
    return i;
}

static bool is_too_big(const char *token, size_t n)
{
    const char largest[] = "9223372036854775807";

    for (size_t i = 0; i < n; i++)
        if (token[i] < '0' || token[i] > '9')
            return false;
    if (n != sizeof(largest) - 1)
        return n > sizeof(largest) - 1;
    return memcmp(token, largest, n) > 0;
}

int bigint_widen(const char *text, size_t n, char **ret, size_t *ret_size)
{
    char *out;
    size_t size = 0, extra = 0;

    for (size_t i = 0, length; i < n; i += length) {
        length = token_length(text + i, n - i);
        extra += is_too_big(text + i, length) ? 2 : 0;
    }
    out = malloc(n + extra + 1);
    if (!out)
        return -ENOMEM;
    for (size_t i = 0, length; i < n; i += length) {
        length = token_length(text + i, n - i);
        memcpy(out + size, text + i, length);
        size += length;
        if (is_too_big(text + i, length)) {
            memcpy(out + size, "e0", 2);
            size += 2;
        }
    }
    out[size] = 0;
    *ret = out;
    *ret_size = size;
    return 0;
}

bool bigint_is(json_t *value)
{
    return json_is_real(value) && json_real_value(value) >= 9223372036854775807.0 &&
           json_real_value(value) <= 18446744073709551616.0;
}
