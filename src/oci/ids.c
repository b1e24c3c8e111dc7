/* SPDX-License-Identifier: MIT */

#include "oci/ids.h"

#include <errno.h>
#include <stddef.h>

static bool is_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* ^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$, as containerd's pkg/identifiers has it. */
bool id_is_valid(const char *id)
{
    size_t n = 0;
    char previous = '.';

    if (!id)
        return false;
    for (; id[n]; previous = id[n++]) {
        if (n >= ID_MAX)
            return false;
        if (is_alphanumeric(id[n]))
            continue;
        if ((id[n] != '.' && id[n] != '_' && id[n] != '-') || !is_alphanumeric(previous))
            return false;
    }
    return n > 0 && is_alphanumeric(previous);
}

int id_check(const char *id, const char *what, Error *e)
{
    if (id_is_valid(id))
        return 0;
    return error_set(
        e, -EINVAL,
        "%s \"%.80s\" is not valid: it must be words of letters and digits with one of \".\", \"_\", "
        "\"-\" between them, at most %i characters together",
        what, id ?: "", ID_MAX);
}
