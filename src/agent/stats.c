/* SPDX-License-Identifier: MIT */

#include "agent/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "agent/cgroup.h"
#include "base/fd.h"

typedef Io__Containerd__Cgroups__V2__MemoryStat MemoryStat;
typedef Io__Containerd__Cgroups__V2__IOEntry IoEntry;

enum { STATS_FILE_MAX = 64 * 1024 };

/* The field of a message whose name the kernel has as a key. */
static uint64_t *field_by_name(ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);

    return f && f->type == PROTOBUF_C_TYPE_UINT64 ? (uint64_t *)((char *)message + f->offset) : NULL;
}

/* Takes lines "key value" into the fields of the same names. */
static void parse_flat(const char *text, ProtobufCMessage *message)
{
    const char *line = text;

    while (*line) {
        size_t n = strcspn(line, " \n");
        char name[64];

        if (n < sizeof(name) && line[n] == ' ') {
            uint64_t *field;

            memcpy(name, line, n);
            name[n] = 0;
            field = field_by_name(message, name);
            if (field)
                *field = strtoull(line + n + 1, NULL, 10);
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
}

void stats_parse_memory(const char *text, MemoryStat *ret)
{
    uint64_t anon = 0, file = 0;

    parse_flat(text, &ret->base);
    /* Two numbers of the kernel's that containerd has as one. */
    if (cgroup_event_value(text, "workingset_refault_anon", &anon) >= 0 &&
        cgroup_event_value(text, "workingset_refault_file", &file) >= 0)
        ret->workingset_refault = anon + file;
    if (cgroup_event_value(text, "workingset_activate_anon", &anon) >= 0 &&
        cgroup_event_value(text, "workingset_activate_file", &file) >= 0)
        ret->workingset_activate = anon + file;
}

static void parse_io_pair(const char *pair, IoEntry *entry)
{
    const char *equals = strchr(pair, '=');
    char name[16];
    uint64_t *field;

    if (!equals || (size_t)(equals - pair) >= sizeof(name))
        return;
    memcpy(name, pair, (size_t)(equals - pair));
    name[equals - pair] = 0;
    field = field_by_name(&entry->base, name);
    if (field)
        *field = strtoull(equals + 1, NULL, 10);
}

size_t stats_parse_io(const char *text, IoEntry *entries)
{
    _cleanup_free_ char *copy = strdup(text);
    char *save_line = NULL, *save_pair = NULL;
    size_t n = 0;

    if (!copy)
        return 0;
    for (char *line = strtok_r(copy, "\n", &save_line); line && n < STATS_DISKS_MAX;
         line = strtok_r(NULL, "\n", &save_line)) {
        char *device = strtok_r(line, " ", &save_pair), *colon = device ? strchr(device, ':') : NULL;

        if (!colon)
            continue;
        io__containerd__cgroups__v2__ioentry__init(&entries[n]);
        entries[n].major = strtoull(device, NULL, 10);
        entries[n].minor = strtoull(colon + 1, NULL, 10);
        for (char *pair = strtok_r(NULL, " ", &save_pair); pair; pair = strtok_r(NULL, " ", &save_pair))
            parse_io_pair(pair, &entries[n]);
        n++;
    }
    return n;
}

/* A file of the cgroup; NULL when there is none, as of a controller that is off. */
static char *read_text(int dir_fd, const char *name)
{
    _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    char *text = NULL;

    return fd >= 0 && fd_read_all(fd, STATS_FILE_MAX, &text, NULL) >= 0 ? text : NULL;
}

static void read_flat(int dir_fd, const char *name, ProtobufCMessage *message)
{
    _cleanup_free_ char *text = read_text(dir_fd, name);

    if (text)
        parse_flat(text, message);
}

/* One number; "max" is the largest there is, as containerd has it. */
static uint64_t read_number(int dir_fd, const char *name)
{
    _cleanup_free_ char *text = read_text(dir_fd, name);

    if (!text)
        return 0;
    return strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

static void read_memory(int dir_fd, MemoryStat *memory)
{
    _cleanup_free_ char *text = read_text(dir_fd, "memory.stat");

    if (text)
        stats_parse_memory(text, memory);
    memory->usage = read_number(dir_fd, "memory.current");
    memory->usage_limit = read_number(dir_fd, "memory.max");
    memory->max_usage = read_number(dir_fd, "memory.peak");
    memory->swap_usage = read_number(dir_fd, "memory.swap.current");
    memory->swap_limit = read_number(dir_fd, "memory.swap.max");
    memory->swap_max_usage = read_number(dir_fd, "memory.swap.peak");
}

static int pack(const StatsMetrics *metrics, uint8_t **ret, size_t *ret_n, Error *e)
{
    size_t n = protobuf_c_message_get_packed_size(&metrics->base);
    uint8_t *bytes = malloc(n ?: 1);

    if (!bytes)
        return error_set(e, -ENOMEM, "out of memory");
    *ret_n = protobuf_c_message_pack(&metrics->base, bytes);
    *ret = bytes;
    return 0;
}

int stats_read(const char *cgroup_directory, uint8_t **ret, size_t *ret_n, Error *e)
{
    _cleanup_close_ int dir_fd = open(cgroup_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    StatsMetrics metrics = IO__CONTAINERD__CGROUPS__V2__METRICS__INIT;
    Io__Containerd__Cgroups__V2__PidsStat pids = IO__CONTAINERD__CGROUPS__V2__PIDS_STAT__INIT;
    Io__Containerd__Cgroups__V2__CPUStat cpu = IO__CONTAINERD__CGROUPS__V2__CPUSTAT__INIT;
    MemoryStat memory = IO__CONTAINERD__CGROUPS__V2__MEMORY_STAT__INIT;
    Io__Containerd__Cgroups__V2__MemoryEvents events = IO__CONTAINERD__CGROUPS__V2__MEMORY_EVENTS__INIT;
    Io__Containerd__Cgroups__V2__IOStat io = IO__CONTAINERD__CGROUPS__V2__IOSTAT__INIT;
    _cleanup_free_ IoEntry *entries = NULL;
    _cleanup_free_ char *io_text = NULL;
    IoEntry *list[STATS_DISKS_MAX];

    if (dir_fd < 0)
        return error_set_errno(e, -errno, "cannot open the cgroup %s", cgroup_directory);
    pids.current = read_number(dir_fd, "pids.current");
    pids.limit = read_number(dir_fd, "pids.max");
    read_flat(dir_fd, "cpu.stat", &cpu.base);
    read_memory(dir_fd, &memory);
    read_flat(dir_fd, "memory.events", &events.base);
    io_text = read_text(dir_fd, "io.stat");
    entries = calloc(STATS_DISKS_MAX, sizeof(*entries));
    if (entries && io_text)
        io.n_usage = stats_parse_io(io_text, entries);
    for (size_t i = 0; i < io.n_usage; i++)
        list[i] = &entries[i];
    io.usage = list;
    metrics.pids = &pids;
    metrics.cpu = &cpu;
    metrics.memory = &memory;
    metrics.memory_events = &events;
    metrics.io = &io;
    return pack(&metrics, ret, ret_n, e);
}
