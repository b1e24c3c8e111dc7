/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/program-version.h"
#include "vmm/qemu.h"

/* Cold boots and hot-plug as the driver does them. */
#define OLDEST 702
/* Private mappings of read-only files (8.2), migration to files (8.2) by descriptor sets (9.0), and all of it
 * tried. */
#define TEMPLATES 1000

int qemu_features_of_version(const char *version, unsigned *ret_features)
{
    unsigned major, minor;

    if (sscanf(version, "%2u.%2u", &major, &minor) != 2)
        return -EBADMSG;
    *ret_features = QEMU_FEATURES;
    if (100 * major + minor < TEMPLATES)
        *ret_features &= ~(unsigned)VMM_TEMPLATE;
    if (100 * major + minor < OLDEST)
        *ret_features = 0;
    return 0;
}

int qemu_probe(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e)
{
    static const char prefix[] = "QEMU emulator version ";
    char answer[PROGRAM_VERSION_MAX];
    int r;

    r = program_version(binary, timeout_usec, answer, e);
    if (r < 0)
        return r;
    r = strncmp(answer, prefix, strlen(prefix)) == 0
            ? qemu_features_of_version(answer + strlen(prefix), ret_features)
            : -EBADMSG;
    /* Without a kernel, a clone's virt would put another device tree over the template's; nobody tried more. */
    if (r >= 0 && qemu_machine_of(binary) == QEMU_VIRT)
        *ret_features &= ~(unsigned)VMM_TEMPLATE;
    if (r < 0) {
        answer[strcspn(answer, "\n")] = 0;
        return error_set(e, r, "%s is no QEMU: \"--version\" gives \"%.128s\"", binary, answer);
    }
    return 0;
}
