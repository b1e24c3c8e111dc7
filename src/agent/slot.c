/* SPDX-License-Identifier: MIT */

#include "agent/slot.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fs.h"

enum { ADDRESS_MAX = 64 };

/* "0000:02:00.0" */
static bool is_function(const char *name)
{
    size_t n = strlen(name);

    return n >= 12 && name[n - 2] == '.' && name[n - 5] == ':' && name[n - 8] == ':' &&
           strspn(name, "0123456789abcdef:.") == n;
}

/* The directory of the PCI function that a device is below, the one nearest to it. Shortens `path`. */
static bool find_function(char *path)
{
    char *slash;

    while ((slash = strrchr(path, '/'))) {
        if (is_function(slash + 1))
            return true;
        *slash = 0;
    }
    return false;
}

/* Whether the function is right below a port whose hot-plug the kernel serves: its service 4 (PCIE_PORT_SERVICE_HP)
 * has a driver. */
static int is_below_port(const char *function)
{
    _cleanup_free_ char *port = strndup(function, (size_t)(strrchr(function, '/') - function)), *driver = NULL;

    if (!port)
        return -ENOMEM;
    driver = string_printf("%s%s:pcie004/driver", port, strrchr(port, '/') ?: "");
    if (!driver)
        return -ENOMEM;
    return access(driver, F_OK) >= 0;
}

/* A slot's address is that of the function in it, without the function's number. */
static int find_slot(const char *slots, const char *function, char **ret)
{
    const char *address = strrchr(function, '/') + 1;
    _cleanup_closedir_ DIR *dir = opendir(slots);
    struct dirent *de;

    if (!dir)
        return -errno;
    while ((errno = 0, de = readdir(dir))) {
        _cleanup_free_ char *path = string_printf("%s/%s/address", slots, de->d_name), *text = NULL;

        if (!path)
            return -ENOMEM;
        if (de->d_name[0] == '.' || fs_read_file(path, ADDRESS_MAX, &text, NULL) < 0)
            continue;
        text[strcspn(text, "\n")] = 0;
        if (strlen(text) != strlen(address) - 2 || strncmp(text, address, strlen(text)) != 0)
            continue;
        *ret = string_printf("%s/%s/power", slots, de->d_name);
        return *ret ? 0 : -ENOMEM;
    }
    return errno ? -errno : -ENOENT;
}

int slot_power_off(const char *sysfs, dev_t device)
{
    _cleanup_free_ char *link = NULL, *path = NULL, *slots = fs_join(sysfs, "bus/pci/slots"), *power = NULL;
    int r;

    link = string_printf("%s/dev/block/%u:%u", sysfs, major(device), minor(device));
    if (!link || !slots)
        return -ENOMEM;
    path = realpath(link, NULL);
    if (!path)
        return errno == ENOENT ? 0 : -errno;
    if (!find_function(path))
        return 0;
    r = is_below_port(path);
    if (r <= 0)
        return r;
    r = find_slot(slots, path, &power);
    if (r >= 0)
        r = fs_write_existing(power, "0");
    return r < 0 ? r : 1;
}
