/* SPDX-License-Identifier: MIT */

#include <stdint.h>
#include <string.h>

#include "agent/uevent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ?: 1);
    Uevent u;

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (uevent_parse(copy, size, &u) >= 0 &&
        (u.action < copy || u.action + strlen(u.action) >= copy + size || u.subsystem < copy ||
         u.subsystem + strlen(u.subsystem) >= copy + size))
        abort();
    free(copy);
    return 0;
}
