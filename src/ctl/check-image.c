/* SPDX-License-Identifier: MIT */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "ctl/check.h"
#include "ctl/command.h"
#include "ctl/image.h"

#define NAME "containerd-cloudhypervisor"
#define POLICY_OPTION "--image-policy="
#define STRICT "root=signed+absent:usr=signed+absent"

enum { TABLE_SIZE = 64 * 1024 }; /* header and all entries of a GPT */

/* systemd-sysext(8), in its order; where an image of that name was merged from. */
static const char *const places[] = {"/etc/extensions", "/run/extensions", "/var/lib/extensions"};
static const char *const certificate_places[] = {"/etc/verity.d", "/run/verity.d", "/usr/local/lib/verity.d",
                                                 "/usr/lib/verity.d"};

static char *find_image(void)
{
    for (size_t i = 0; i < ELEMENTSOF(places); i++) {
        _cleanup_free_ char *path = string_printf("%s/" NAME ".raw", places[i]);

        if (path && access(path, F_OK) >= 0)
            return TAKE_PTR(path);
    }
    return NULL;
}

/* 1, 0, or a negative errno. */
static int is_signed(const char *path)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    _cleanup_free_ uint8_t *table = malloc(TABLE_SIZE);
    ssize_t n;

    if (fd < 0)
        return -errno;
    if (!table)
        return -ENOMEM;
    n = fd_read_full(fd, table, TABLE_SIZE);
    return n < 0 ? (int)n : image_has_signature(table, (size_t)n);
}

static bool has_certificate(void)
{
    for (size_t i = 0; i < ELEMENTSOF(certificate_places); i++) {
        _cleanup_closedir_ DIR *dir = opendir(certificate_places[i]);
        struct dirent *de;

        while (dir && (de = readdir(dir))) {
            size_t n = strlen(de->d_name);

            if (n > 4 && strcmp(de->d_name + n - 4, ".crt") == 0)
                return true;
        }
    }
    return false;
}

/* The policy by which systemd merges images, NULL where none is set (or systemd cannot be asked). */
static char *merge_policy(void)
{
    static const char *const argv[] = {
        "systemctl", "show", "--value", "-p", "ExecStart", "systemd-sysext.service", NULL};
    _cleanup_free_ char *text = NULL;
    char *found;

    if (command_output(argv, 65536, 5 * USEC_PER_SEC, &text, NULL) < 0)
        return NULL;
    found = strstr(text, POLICY_OPTION);
    if (!found)
        return NULL;
    found += strlen(POLICY_OPTION);
    found[strcspn(found, " \t\n;\"'")] = 0;
    return strdup(found);
}

static void check_policy(CheckContext *context)
{
    _cleanup_free_ char *policy = merge_policy();

    if (!policy)
        report_add(context->report, FINDING_NOTE, "image policy",
                   "have systemd-sysext.service refresh with " POLICY_OPTION STRICT
                   " (docs/install.md, Trust)",
                   "none is set: systemd merges unsigned images too");
    else if (!image_policy_is_strict(policy))
        report_add(context->report, FINDING_NOTE, "image policy", "use " STRICT,
                   "%s lets images without a signature in", policy);
    else if (!has_certificate())
        report_add(context->report, FINDING_NOTE, "image policy",
                   "put the image's certificate into /etc/verity.d (docs/install.md, Trust)",
                   "%s, but there is no certificate to check signatures with", policy);
    else
        report_add(context->report, FINDING_OK, "image policy", NULL, "%s", policy);
}

void check_image(CheckContext *context)
{
    _cleanup_free_ char *path = NULL;
    int r;

    if (access("/usr/lib/extension-release.d/extension-release." NAME, F_OK) < 0) {
        report_add(context->report, FINDING_OK, "image", NULL, "not installed as a system extension");
        return;
    }
    path = find_image();
    if (!path) {
        report_add(context->report, FINDING_OK, "image", NULL,
                   "the system extension is merged, from a directory or a place of its own");
        return;
    }
    r = is_signed(path);
    if (r < 0)
        report_add(context->report, FINDING_NOTE, "image", NULL, "cannot look at %s: %s", path, strerror(-r));
    else if (r == 0)
        report_add(context->report, FINDING_NOTE, "image", "use the signed image", "%s is not signed", path);
    else
        report_add(context->report, FINDING_OK, "image", NULL, "%s, with a signature", path);
    check_policy(context);
}
