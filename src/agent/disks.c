/* SPDX-License-Identifier: MIT */

#include "agent/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "base/fs.h"

enum { SERIAL_MAX = 256 };

struct DiskWait {
    Disks *disks;
    char *serial;
    DiskFn callback;
    void *userdata;
    LoopSource *timer;
    DiskWait *next;
};

struct Disks {
    Loop *loop;
    UeventSubscription *subscription;
    LoopSource *look; /* deferred: a new wait may be for a disk that is there */
    DiskWait *waits;
};

int disk_find(const char *sysfs_block, const char *serial, char **ret_name)
{
    _cleanup_closedir_ DIR *dir = opendir(sysfs_block);
    struct dirent *de;

    if (!dir)
        return -errno;
    while ((errno = 0, de = readdir(dir))) {
        _cleanup_free_ char *path = NULL, *text = NULL;

        if (de->d_name[0] == '.')
            continue;
        path = string_printf("%s/%s/serial", sysfs_block, de->d_name);
        if (!path)
            return -ENOMEM;
        /* Disks of other drivers, and those that are just going away, have no serial. */
        if (fs_read_file(path, SERIAL_MAX, &text, NULL) < 0)
            continue;
        text[strcspn(text, "\n")] = 0;
        if (strcmp(text, serial) != 0)
            continue;
        *ret_name = strdup(de->d_name);
        return *ret_name ? 0 : -ENOMEM;
    }
    return errno ? -errno : -ENOENT;
}

/* Whether the disk is there and answers. A node may refuse to open (ENXIO, ENODEV) right after its event;
 * then another event follows when it is ready. */
static int disk_try(const DiskWait *wait, char **ret_path)
{
    _cleanup_free_ char *name = NULL, *path = NULL;
    _cleanup_close_ int fd = -EBADF;
    int r;

    r = disk_find("/sys/block", wait->serial, &name);
    if (r < 0)
        return r;
    path = fs_join("/dev", name);
    if (!path)
        return -ENOMEM;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    *ret_path = TAKE_PTR(path);
    return 0;
}

static void disk_wait_end(DiskWait *wait, int number, const char *path)
{
    DiskFn callback = wait->callback;
    void *userdata = wait->userdata;

    disk_wait_cancel(wait);
    callback(number, path, userdata);
}

/* A callback may cancel any wait, so each find starts over. */
static void look(void *userdata)
{
    Disks *disks = userdata;

    for (DiskWait *wait = disks->waits; wait;) {
        _cleanup_free_ char *path = NULL;

        if (disk_try(wait, &path) < 0) {
            wait = wait->next;
            continue;
        }
        disk_wait_end(wait, 0, path);
        wait = disks->waits;
    }
}

static void on_look(LoopSource *source, void *userdata)
{
    Disks *disks = userdata;

    disks->look = loop_source_free(disks->look);
    look(disks);
}

static void on_timeout(LoopSource *source, void *userdata)
{
    disk_wait_end(userdata, -ETIMEDOUT, NULL);
}

int disks_new(Loop *loop, UeventMonitor *monitor, Disks **ret)
{
    Disks *disks = calloc(1, sizeof(*disks));
    int r;

    if (!disks)
        return -ENOMEM;
    disks->loop = loop;
    r = uevent_subscribe(monitor, "block", look, disks, &disks->subscription);
    if (r < 0) {
        free(disks);
        return r;
    }
    *ret = disks;
    return 0;
}

Disks *disks_free(Disks *disks)
{
    if (!disks)
        return NULL;
    while (disks->waits)
        disk_wait_cancel(disks->waits);
    loop_source_free(disks->look);
    uevent_unsubscribe(disks->subscription);
    free(disks);
    return NULL;
}

int disks_wait(Disks *disks, const char *serial, uint64_t timeout_usec, DiskFn callback, void *userdata,
               DiskWait **ret)
{
    DiskWait *wait = calloc(1, sizeof(*wait));
    int r;

    if (!wait)
        return -ENOMEM;
    *wait = (DiskWait){.disks = disks, .callback = callback, .userdata = userdata};
    wait->serial = strdup(serial);
    r = wait->serial ? loop_add_timer(disks->loop, timeout_usec, on_timeout, wait, &wait->timer) : -ENOMEM;
    if (r >= 0 && !disks->look)
        r = loop_add_defer(disks->loop, on_look, disks, &disks->look);
    wait->next = disks->waits;
    disks->waits = wait;
    if (r < 0) {
        disk_wait_cancel(wait);
        return r;
    }
    *ret = wait;
    return 0;
}

DiskWait *disk_wait_cancel(DiskWait *wait)
{
    if (!wait)
        return NULL;
    for (DiskWait **p = &wait->disks->waits; *p; p = &(*p)->next)
        if (*p == wait) {
            *p = wait->next;
            break;
        }
    loop_source_free(wait->timer);
    free(wait->serial);
    free(wait);
    return NULL;
}
