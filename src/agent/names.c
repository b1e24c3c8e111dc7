/* SPDX-License-Identifier: MIT */

#include "agent/names.h"

#include <limits.h>
#include <string.h>

static bool name_char_is_valid(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("._-+@:", c));
}

bool name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > AGENT_NAME_MAX || name[0] == '.' || name[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!name_char_is_valid(name[i]))
            return false;
    return true;
}

bool name_path_is_valid(const char *path)
{
    const char *p = path;

    if (strlen(path) >= PATH_MAX)
        return false;
    for (;;) {
        size_t n = strcspn(p, "/");

        if (n == 0 || n > NAME_MAX || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        if (p[n] == 0)
            return true;
        p += n + 1;
    }
}
