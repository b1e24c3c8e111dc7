/* SPDX-License-Identifier: MIT */

#include "vmm/ch-requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"

#define MIB (1024ULL * 1024)
#define ZONE "mem0"
/* virtio-mem's block: what is added later comes in such pieces. */
#define HOTPLUG_UNIT (2 * MIB)

int ch_check_spec(const VmmSpec *spec, Error *e)
{
    if (spec->emulate)
        return error_set(e, -EOPNOTSUPP, "VMM driver cloud-hypervisor does not support emulation");
    if (spec->vcpus < 1 || spec->max_vcpus < spec->vcpus || spec->max_vcpus > 254)
        return error_set(e, -EINVAL, "a VM cannot have %u of at most %u vCPUs", spec->vcpus, spec->max_vcpus);
    if (spec->memory < 16 * MIB || spec->memory % MIB != 0)
        return error_set(e, -EINVAL, "a VM cannot have %llu bytes of memory: whole MiB, 16 at least",
                         (unsigned long long)spec->memory);
    if (spec->max_memory > spec->memory && (spec->max_memory - spec->memory) % HOTPLUG_UNIT != 0)
        return error_set(e, -EINVAL, "a VM of %llu bytes cannot grow to %llu: by whole 2 MiB only",
                         (unsigned long long)spec->memory, (unsigned long long)spec->max_memory);
    return 0;
}

static json_t *memory_config(const VmmSpec *spec)
{
    bool template = spec->template_directory;
    _cleanup_json_ json_t *zone = NULL;

    zone = json_pack("{s:s, s:I, s:b}", "id", ZONE, "size", (json_int_t)spec->memory, "shared", template);
    if (zone && template && json_object_set_new(zone, "file", json_string(CH_TEMPLATE "/" CH_MEMORY)) < 0)
        return NULL;
    if (zone && spec->max_memory > spec->memory &&
        json_object_set_new(zone, "hotplug_size", json_integer((json_int_t)(spec->max_memory - spec->memory))) < 0)
        return NULL;
    /* Without huge pages: a guest that touches a page here and there would pay for 2 MiB each time. */
    return json_pack("{s:i, s:b, s:s, s:[O]}", "size", 0, "thp", 0, "hotplug_method", "VirtioMem", "zones", zone);
}

static json_t *payload_config(const VmmSpec *spec)
{
    /* Memory that is added later is used at once, and can be given back. */
    _cleanup_free_ char *args =
        string_printf("%s%s", spec->kernel_args,
                      spec->max_memory > spec->memory ? " memhp_default_state=online_movable" : "");

    return args ? json_pack("{s:s, s:s}", "kernel", CH_KERNEL, "cmdline", args) : NULL;
}

json_t *ch_vm_config(const VmmSpec *spec)
{
    /* The serial console is the VMM's standard output. */
    return json_pack("{s:{s:i, s:i, s:b}, s:o, s:o, s:[{s:s, s:s, s:b, s:b, s:s}], s:{s:s}, s:{s:s}, s:{s:s}, "
                     "s:{s:i, s:s, s:s}}",
                     "cpus", "boot_vcpus", (int)spec->vcpus, "max_vcpus", (int)spec->max_vcpus, "nested", 0, //
                     "memory", memory_config(spec),                                                          //
                     "payload", payload_config(spec),                                                        //
                     "disks", "id", "root", "path", CH_ROOTFS, "readonly", 1, "sparse", 0, "image_type", "Raw", //
                     "rng", "src", "/dev/urandom",                                                           //
                     "serial", "mode", "Tty",                                                                //
                     "console", "mode", "Off",                                                               //
                     "vsock", "cid", 3, "socket", CH_SOCKETS "/" CH_VSOCK, "id", "vsock");
}

json_t *ch_disk_config(const char *id, const char *serial, bool read_only)
{
    _cleanup_free_ char *path = string_printf("%s/%s", CH_DISKS, serial);

    /* Always raw: what a guest writes must never be read as an image format with a backing file. "sparse" is for
     * discarding, and warns where there is nothing to discard. */
    return path ? json_pack("{s:s, s:s, s:s, s:b, s:b, s:s}", "id", id, "path", path, "serial", serial, "readonly",
                            read_only, "sparse", !read_only, "image_type", "Raw")
                : NULL;
}

json_t *ch_net_config(const char *id, const uint8_t mac[static 6])
{
    char text[18];

    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return json_pack("{s:s, s:s, s:i, s:i}", "id", id, "mac", text, "num_queues", 2, "queue_size", 256);
}

json_t *ch_remove_device(const char *id)
{
    return json_pack("{s:s}", "id", id);
}

json_t *ch_resize_cpus(unsigned vcpus)
{
    return json_pack("{s:i}", "desired_vcpus", (int)vcpus);
}

json_t *ch_resize_memory(uint64_t bytes)
{
    return json_pack("{s:s, s:I}", "id", ZONE, "desired_ram", (json_int_t)bytes);
}

json_t *ch_snapshot_config(void)
{
    return json_pack("{s:s}", "destination_url", "file://" CH_TEMPLATE);
}

json_t *ch_restore_config(void)
{
    return json_pack("{s:s, s:b}", "source_url", "file://" CH_TEMPLATE, "resume", 1);
}

int ch_config_for_clones(json_t *config)
{
    json_t *zone = json_array_get(json_object_get(json_object_get(config, "memory"), "zones"), 0);
    const char *file = json_string_value(json_object_get(zone, "file"));

    if (!file || strcmp(file, CH_TEMPLATE "/" CH_MEMORY) != 0)
        return -EINVAL;
    return json_object_set_new(zone, "shared", json_false()) < 0 ? -ENOMEM : 0;
}

int ch_parse_version(const char *text, unsigned *ret)
{
    unsigned long value;
    char *end;

    if (*text == 'v')
        text++;
    if (*text < '0' || *text > '9')
        return -EINVAL;
    value = strtoul(text, &end, 10);
    if (value > 9999 || (*end && *end != '.' && *end != '-'))
        return -EINVAL;
    *ret = (unsigned)value;
    return 0;
}
