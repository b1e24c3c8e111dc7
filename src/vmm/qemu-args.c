/* SPDX-License-Identifier: MIT */

#include "vmm/qemu-args.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"

#define MIB (1024ULL * 1024)

/* Collects arguments. The first failure sticks, so that the list can be written down as a list. */
typedef struct Args {
    char **v;
    size_t n;
    int failed;
} Args;

static void args_take(Args *a, char *text)
{
    char **grown;

    if (!text || a->failed < 0) {
        free(text);
        a->failed = a->failed < 0 ? a->failed : -ENOMEM;
        return;
    }
    grown = reallocarray(a->v, a->n + 2, sizeof(*grown));
    if (!grown) {
        free(text);
        a->failed = -ENOMEM;
        return;
    }
    a->v = grown;
    a->v[a->n++] = text;
    a->v[a->n] = NULL;
}

static void _printf_(3, 4) args_add(Args *a, const char *option, const char *format, ...)
{
    char *value = NULL;
    va_list ap;

    args_take(a, strdup(option));
    if (!format)
        return;
    va_start(ap, format);
    if (vasprintf(&value, format, ap) < 0)
        value = NULL;
    va_end(ap);
    args_take(a, value);
}

/* Steals `value`. */
static void args_add_json(Args *a, const char *option, json_t *value)
{
    args_take(a, strdup(option));
    args_take(a, value ? json_dumps(value, JSON_COMPACT) : NULL);
    json_decref(value);
}

char **qemu_args_free(char **args)
{
    for (char **p = args; p && *p; p++)
        free(*p);
    free(args);
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && memcmp(text + n - m, end, m) == 0;
}

QemuMachine qemu_machine_of(const char *binary)
{
    if (ends_with(binary, "-aarch64"))
        return QEMU_VIRT;
    if (ends_with(binary, "-x86_64"))
        return QEMU_Q35;
    return QEMU_MACHINE_OF_HOST;
}

unsigned qemu_slots_per_port(QemuMachine machine)
{
    return machine == QEMU_VIRT ? 1 : QEMU_SLOTS_PER_BRIDGE;
}

void qemu_slot_place(QemuMachine machine, unsigned slot, char ret_bus[static 8], char ret_address[static 8])
{
    if (machine == QEMU_VIRT) {
        snprintf(ret_bus, 8, "rp%u", slot % 1000);
        snprintf(ret_address, 8, "0");
        return;
    }
    snprintf(ret_bus, 8, "hp%u", slot / QEMU_SLOTS_PER_BRIDGE % 10);
    snprintf(ret_address, 8, "%x", 1 + slot % QEMU_SLOTS_PER_BRIDGE);
}

void qemu_mac_string(const uint8_t mac[static 6], char ret[static 18])
{
    snprintf(ret, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

/* In a key=value option a comma is written twice. */
static char *escape_commas(const char *text)
{
    char *escaped = malloc(2 * strlen(text) + 1), *p = escaped;

    if (!escaped)
        return NULL;
    for (; *text; text++) {
        if (*text == ',')
            *p++ = ',';
        *p++ = *text;
    }
    *p = 0;
    return escaped;
}

static void add_machine(Args *a, const QemuSetup *s)
{
    const VmmSpec *spec = s->spec;
    _cleanup_free_ char *name = escape_commas(spec->name);

    args_add(a, "-name", "%s", name ?: "");
    if (!name)
        a->failed = -ENOMEM;
    args_add(a, "-nodefaults", NULL);
    args_add(a, "-no-user-config", NULL);
    /* A guest that resets itself has ended: as PID 1 the agent is what a container's init is to its host. */
    args_add(a, "-no-reboot", NULL);
    args_add(a, "-display", "none");
    args_add(a, "-vga", "none");
    args_add(a, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    /* virt's own choice of an interrupt controller is one for 8 CPUs, whatever the host has. */
    args_add(a, "-machine", "%s,memory-backend=mem0,%sgraphics=off,dump-guest-core=off,mem-merge=off",
             s->machine == QEMU_VIRT ? "virt" : "q35",
             s->machine == QEMU_VIRT ? "gic-version=max,acpi=off,"
                                     : "smm=off,vmport=off,hpet=off,sata=off,smbus=off,i8042=off,");
    if (spec->emulate) {
        /* The translation cache would otherwise grow to an eighth of the host's memory, for each VM. */
        args_add(a, "-accel", "tcg,tb-size=128");
        /* Arm's own cipher for signed pointers is half of what an emulation would do. */
        args_add(a, "-cpu", s->machine == QEMU_VIRT ? "max,pauth-impdef=on" : "max");
    } else {
        args_add(a, "-accel", "kvm");
        args_add(a, "-cpu", "host");
    }
    args_add(a, "-smp", "%u,maxcpus=%u", spec->vcpus, spec->max_vcpus);
    args_add(a, "-m", "%lluM", (unsigned long long)(spec->memory / MIB));
}

static void add_memory(Args *a, const QemuSetup *s)
{
    json_int_t size = (json_int_t)s->spec->memory;
    json_t *memory;

    if (s->memory == QEMU_MEMORY_ANONYMOUS) {
        args_add_json(
            a, "-object",
            json_pack("{s:s, s:s, s:I}", "qom-type", "memory-backend-ram", "id", "mem0", "size", size));
        return;
    }
    memory = json_pack("{s:s, s:s, s:I, s:s, s:b}", "qom-type", "memory-backend-file", "id", "mem0", "size",
                       size, "mem-path", s->memory_path, "share", s->memory == QEMU_MEMORY_FILE);
    /* These two came with QEMU 8.2: this is what templates need it for. */
    if (memory && s->memory == QEMU_MEMORY_PRIVATE &&
        json_object_update_new(memory, json_pack("{s:b, s:s}", "readonly", 1, "rom", "off")) < 0)
        a->failed = -ENOMEM;
    args_add_json(a, "-object", memory);
}

static void add_kernel(Args *a, const QemuSetup *s)
{
    args_add(a, "-kernel", "%s", s->kernel);
    /* Under emulation the kernel's own calibration is slow and, on a busy host, wrong; and its test of the timer
     * finds none, upon which it panics, when the host has other things to do for a moment. */
    if (s->spec->emulate && s->tsc_khz > 0)
        args_add(a, "-append", "%s tsc_early_khz=%u no_timer_check", s->spec->kernel_args, s->tsc_khz);
    else
        args_add(a, "-append", "%s", s->spec->kernel_args);
}

static void add_slots(Args *a, const QemuSetup *s)
{
    unsigned per_port = qemu_slots_per_port(s->machine);
    unsigned n = (s->n_slots + per_port - 1) / per_port;

    for (unsigned i = 0; i < n; i++) {
        char port[16], bus[16], address[16];

        snprintf(port, sizeof(port), "rp%u", i);
        snprintf(bus, sizeof(bus), "hp%u", i);
        snprintf(address, sizeof(address), "%x.%u", 0x10 + i / 8, i % 8);
        /* No I/O window: there is room for 15 of them at most, and modern virtio needs none. */
        args_add_json(a, "-device",
                      json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:b}", "driver", "pcie-root-port", "id",
                                port, "bus", "pcie.0", "addr", address, "chassis", (int)i + 1, "slot",
                                (int)i + 1, "io-reserve", 0, "multifunction", i % 8 == 0));
        if (s->machine == QEMU_VIRT)
            continue;
        args_add_json(a, "-device",
                      json_pack("{s:s, s:s, s:s}", "driver", "pcie-pci-bridge", "id", bus, "bus", port));
    }
}

static void add_root_disk(Args *a, const QemuSetup *s)
{
    char path[32];

    args_add(a, "-add-fd", "fd=%i,set=%i,opaque=root", s->rootfs_fd, QEMU_FDSET_ROOT);
    snprintf(path, sizeof(path), "/dev/fdset/%i", QEMU_FDSET_ROOT);
    /* All VMs share the file, and nobody writes it: no locks. */
    args_add_json(a, "-blockdev",
                  json_pack("{s:s, s:s, s:b, s:{s:s, s:s, s:s, s:b}}", "driver", "raw", "node-name", "root",
                            "read-only", 1, "file", "driver", s->rootfs_is_device ? "host_device" : "file",
                            "filename", path, "locking", "off", "read-only", 1));
    args_add_json(a, "-device",
                  json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-blk-pci", "id", "rootdev", "drive",
                            "root", "bus", "pcie.0", "addr", "2"));
}

static void add_socket(Args *a, const char *id, int fd)
{
    args_add(a, "-chardev", "socket,id=%s,fd=%i,server=on,wait=off", id, fd);
}

static void add_channels(Args *a, const QemuSetup *s)
{
    args_add_json(a, "-object", json_pack("{s:s, s:s}", "qom-type", "rng-builtin", "id", "rng0"));
    args_add_json(a, "-device",
                  json_pack("{s:s, s:s, s:s, s:s}", "driver", "virtio-rng-pci", "rng", "rng0", "bus",
                            "pcie.0", "addr", "6"));
    args_add_json(a, "-device",
                  json_pack("{s:s, s:s, s:s, s:s, s:i}", "driver", "virtio-serial-pci", "id", "vs0", "bus",
                            "pcie.0", "addr", "7", "max_ports", 4));
    add_socket(a, "control", s->control_fd);
    args_add_json(a, "-device",
                  json_pack("{s:s, s:s, s:i, s:s, s:s}", "driver", "virtserialport", "bus", "vs0.0", "nr", 1,
                            "chardev", "control", "name", "cloudhv.control"));
    add_socket(a, "task", s->task_fd);
    args_add_json(a, "-device",
                  json_pack("{s:s, s:s, s:i, s:s, s:s}", "driver", "virtserialport", "bus", "vs0.0", "nr", 2,
                            "chardev", "task", "name", "cloudhv.task"));
    add_socket(a, "console", s->console_fd);
    args_add(a, "-serial", "chardev:console");
    add_socket(a, "qmp", s->qmp_fd);
    args_add(a, "-mon", "chardev=qmp,mode=control");
}

static void add_nics(Args *a, const QemuSetup *s)
{
    for (size_t i = 0; i < s->spec->n_nics; i++) {
        char id[32], netdev[32], address[32], mac[18];

        snprintf(id, sizeof(id), "nic%zu", i);
        snprintf(netdev, sizeof(netdev), "tap%zu", i);
        snprintf(address, sizeof(address), "%zx", 8 + i);
        qemu_mac_string(s->spec->nics[i].mac, mac);
        args_add(a, "-netdev", "tap,id=%s,fd=%i", netdev, s->nic_fds[i]);
        /* Nobody boots from the network: without the file, QEMU needs no boot ROMs installed. */
        args_add_json(a, "-device",
                      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-net-pci", "id", id,
                                "netdev", netdev, "mac", mac, "romfile", "", "bus", "pcie.0", "addr",
                                address));
    }
}

static int check_spec(const QemuSetup *s, Error *e)
{
    const VmmSpec *spec = s->spec;

    if (spec->vcpus < 1 || spec->max_vcpus < spec->vcpus || spec->max_vcpus > 255)
        return error_set(e, -EINVAL, "a VM cannot have %u of at most %u vCPUs", spec->vcpus, spec->max_vcpus);
    if (spec->memory < 16 * MIB || spec->memory % MIB != 0)
        return error_set(e, -EINVAL, "a VM cannot have %llu bytes of memory: whole MiB, 16 at least",
                         (unsigned long long)spec->memory);
    if (spec->n_nics > QEMU_NICS_MAX)
        return error_set(e, -E2BIG, "a VM cannot have %zu network interfaces: %i at most", spec->n_nics,
                         QEMU_NICS_MAX);
    if (s->n_slots > QEMU_SLOTS_MAX)
        return error_set(e, -E2BIG, "a VM cannot have %u hot-plug slots: %i at most", s->n_slots,
                         QEMU_SLOTS_MAX);
    return 0;
}

int qemu_args_build(const QemuSetup *s, char ***ret, Error *e)
{
    _cleanup_(qemu_args_freep) char **owned = NULL;
    Args a = {0};
    int r;

    r = check_spec(s, e);
    if (r < 0)
        return r;
    args_take(&a, strdup(s->spec->binary));
    add_machine(&a, s);
    add_memory(&a, s);
    if (!s->incoming)
        add_kernel(&a, s);
    if (s->machine == QEMU_Q35) /* virt has none */
        args_add_json(&a, "-device", json_pack("{s:s, s:s}", "driver", "vmgenid", "guid", "auto"));
    add_root_disk(&a, s);
    add_channels(&a, s);
    add_nics(&a, s);
    add_slots(&a, s);
    if (s->incoming) {
        args_add(&a, "-add-fd", "fd=%i,set=%i,opaque=state", s->state_fd, QEMU_FDSET_STATE);
        args_add(&a, "-incoming", "defer");
    }
    owned = a.v;
    if (a.failed < 0)
        return error_set_errno(e, a.failed, "cannot build the command line of %s", s->spec->binary);
    *ret = TAKE_PTR(owned);
    return 0;
}
