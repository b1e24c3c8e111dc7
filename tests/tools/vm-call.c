/* SPDX-License-Identifier: MIT */

/* Owns VMs, for tests: reads commands, one a line, and answers each when it is done with "COMMAND NAME ok ..." or
 * "COMMAND NAME error NUMBER MESSAGE"; the end of a VMM is "exit NAME ok REASON". Commands do not wait for each
 * other.
 *
 *     vm-call DIRECTORY BINARY KERNEL ROOTFS KERNEL-ARGS MEMORY-MIB FIRST-UID GID
 *
 *     probe                              what the program can do, as a number
 *     boot NAME                          emulated; its sockets are in DIRECTORY/NAME, which is made here
 *     template NAME TEMPLATE             the same, as one that is to become a template in that directory
 *     clone NAME TEMPLATE
 *     pause NAME | resume NAME | save NAME TEMPLATE | kill NAME
 *     disk NAME SERIAL PATH | remove-disk NAME SERIAL       (read-only)
 *     nic NAME TAP MAC | remove-nic NAME TAP                (of the network namespace that this is run in)
 *
 * The VMs end with this program. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/loop.h"
#include "vmm/vmm.h"

enum {
    WORDS_MAX = 8,
    VMS_MAX = 64,
    LINE_SIZE = 8192,
    BOOT_TIMEOUT_SECS = 120,
    TIMEOUT_SECS = 60,
};

/* What is under way, for its answer. */
typedef struct Request {
    const char *command;
    char name[64];
    uint64_t since;
} Request;

typedef struct Vm {
    char name[64];
    Vmm *vmm;
    Request *starting;
} Vm;

static Loop *loop;
static char **options; /* DIRECTORY and what follows */
static Vm vms[VMS_MAX];
static unsigned n_vms;

static void answer(const char *command, const char *name, int number, const char *text)
{
    if (number < 0)
        printf("%s %s error %i %s\n", command, name, number, text);
    else
        printf("%s %s ok %s\n", command, name, text);
    fflush(stdout);
}

static void on_done(Vmm *vmm, const Error *e, void *userdata)
{
    Request *request = userdata;
    char text[32];

    snprintf(text, sizeof(text), "%llu %i", (unsigned long long)(loop_now() - request->since), (int)vmm_pid(vmm));
    answer(request->command, request->name, e ? e->number : 0, e ? error_message(e) : text);
    free(request);
}

static Request *request_new(const char *command, const char *name)
{
    Request *request = calloc(1, sizeof(*request));

    if (!request)
        abort();
    request->command = command;
    snprintf(request->name, sizeof(request->name), "%s", name);
    request->since = loop_now();
    return request;
}

static void on_started(Vmm *vmm, const Error *e, void *userdata)
{
    Vm *vm = userdata;

    on_done(vmm, e, TAKE_PTR(vm->starting));
    if (e)
        vm->vmm = vmm_free(vmm);
}

static void on_exited(Vmm *vmm, const VmmExit *ve, void *userdata)
{
    Vm *vm = userdata;

    answer("exit", vm->name, 0, ve->reason);
    vm->vmm = vmm_free(vmm);
}

static int start(const char *command, const char *name, const char *template_directory, Error *e)
{
    _cleanup_free_ char *directory = fs_join(options[0], name);
    const VmmDriver *driver = vmm_driver_by_name("qemu");
    uid_t uid = (uid_t)strtoul(options[6], NULL, 10) + n_vms;
    VmmSpec spec = {
        .name = name,
        .directory = directory,
        .binary = options[1],
        .kernel = options[2],
        .rootfs = options[3],
        .kernel_args = options[4],
        .vcpus = 1,
        .max_vcpus = 1,
        .memory = strtoull(options[5], NULL, 10) << 20,
        .max_hotplug_disks = 4,
        .emulate = true,
        .uid = uid,
        .gid = (gid_t)strtoul(options[7], NULL, 10),
        .boot_timeout_usec = BOOT_TIMEOUT_SECS * USEC_PER_SEC,
        .timeout_usec = TIMEOUT_SECS * USEC_PER_SEC,
    };
    Vm *vm = &vms[n_vms];
    int r;

    if (!directory || n_vms == VMS_MAX)
        return error_set(e, -ENOSPC, "too many VMs");
    if (mkdir(directory, 0700) < 0)
        return error_set_errno(e, -errno, "%s", directory);
    vm->starting = request_new(command, name);
    snprintf(vm->name, sizeof(vm->name), "%s", name);
    if (strcmp(command, "clone") == 0) {
        r = vmm_restore(loop, driver, &spec, template_directory, on_started, on_exited, vm, &vm->vmm, e);
    } else {
        spec.template_directory = template_directory;
        r = vmm_boot(loop, driver, &spec, on_started, on_exited, vm, &vm->vmm, e);
    }
    if (r < 0) {
        free(vm->starting);
        *vm = (Vm){0};
        (void)fs_remove_tree(directory);
        return r;
    }
    n_vms++;
    return 0;
}

static int open_tap(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    return fd;
}

static int add_disk(Vmm *vmm, char **words, Request *request, Error *e)
{
    VmmDisk disk = {.serial = words[2], .path = words[3], .read_only = true};
    int r;

    disk.fd = open(words[3], O_RDONLY | O_CLOEXEC);
    if (disk.fd < 0)
        return error_set_errno(e, -errno, "%s", words[3]);
    r = vmm_add_disk(vmm, &disk, on_done, request, e);
    close(disk.fd);
    return r;
}

static int add_nic(Vmm *vmm, char **words, Request *request, Error *e)
{
    VmmNic nic = {.tap_fd = open_tap(words[2])};
    uint8_t *m = nic.mac;
    int r;

    if (nic.tap_fd < 0)
        return error_set_errno(e, nic.tap_fd, "TAP %s", words[2]);
    if (sscanf(words[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6)
        r = error_set(e, -EINVAL, "not a MAC address: %s", words[3]);
    else
        r = vmm_add_nic(vmm, words[2], &nic, on_done, request, e);
    close(nic.tap_fd);
    return r;
}

static int operate(Vmm *vmm, const char *command, char **words, size_t n, Request *request, Error *e)
{
    if (strcmp(command, "pause") == 0)
        return vmm_pause(vmm, on_done, request, e);
    if (strcmp(command, "resume") == 0)
        return vmm_resume(vmm, on_done, request, e);
    if (strcmp(command, "save") == 0 && n == 3)
        return vmm_snapshot(vmm, words[2], on_done, request, e);
    if (strcmp(command, "disk") == 0 && n == 4)
        return add_disk(vmm, words, request, e);
    if (strcmp(command, "remove-disk") == 0 && n == 3)
        return vmm_remove_disk(vmm, words[2], on_done, request, e);
    if (strcmp(command, "nic") == 0 && n == 4)
        return add_nic(vmm, words, request, e);
    if (strcmp(command, "remove-nic") == 0 && n == 3)
        return vmm_remove_nic(vmm, words[2], on_done, request, e);
    return error_set(e, -EINVAL, "no such command");
}

static Vmm *find(const char *name)
{
    for (unsigned i = 0; i < n_vms; i++)
        if (strcmp(vms[i].name, name) == 0)
            return vms[i].vmm;
    return NULL;
}

static int on_vm(const char *command, char **words, size_t n, Error *e)
{
    Vmm *vmm = find(words[1]);
    Request *request;
    int r;

    if (!vmm)
        return error_set(e, -ESRCH, "no such VM");
    if (strcmp(command, "kill") == 0)
        return vmm_kill(vmm); /* "exit" follows */
    request = request_new(command, words[1]);
    r = operate(vmm, command, words, n, request, e);
    if (r < 0)
        free(request);
    return r;
}

static void probe(void)
{
    _cleanup_error_ Error e = ERROR_INIT;
    unsigned features = 0;
    char text[16];
    int r;

    r = vmm_probe(vmm_driver_by_name("qemu"), options[1], TIMEOUT_SECS * USEC_PER_SEC, &features, &e);
    snprintf(text, sizeof(text), "%u", features);
    answer("probe", "-", r, r < 0 ? error_message(&e) : text);
}

static const char *command_of(const char *word)
{
    static const char *const commands[] = {"boot", "template", "clone",       "pause", "resume",    "save",
                                           "kill", "disk",     "remove-disk", "nic",   "remove-nic"};

    for (size_t i = 0; i < ELEMENTSOF(commands); i++)
        if (strcmp(word, commands[i]) == 0)
            return commands[i];
    return NULL;
}

static void run_line(char *line)
{
    _cleanup_error_ Error e = ERROR_INIT;
    char *words[WORDS_MAX], *save = NULL;
    const char *command;
    size_t n = 0;
    int r;

    for (char *word = strtok_r(line, " \n", &save); word && n < WORDS_MAX; word = strtok_r(NULL, " \n", &save))
        words[n++] = word;
    if (n > 0 && strcmp(words[0], "probe") == 0) {
        probe();
        return;
    }
    command = n > 1 ? command_of(words[0]) : NULL;
    if (!command)
        r = error_set(&e, -EINVAL, "no such command");
    else if (n == 2 && strcmp(command, "boot") == 0)
        r = start(command, words[1], NULL, &e);
    else if (n == 3 && (strcmp(command, "template") == 0 || strcmp(command, "clone") == 0))
        r = start(command, words[1], words[2], &e);
    else
        r = on_vm(command, words, n, &e);
    if (r < 0)
        answer(command ?: "?", n > 1 ? words[1] : "-", r, error_message(&e));
}

static void on_input(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    static char buffer[LINE_SIZE];
    static size_t used;
    ssize_t k = read(fd, buffer + used, sizeof(buffer) - used);
    char *newline;

    if (k <= 0) {
        loop_exit(loop, 0);
        return;
    }
    used += (size_t)k;
    while ((newline = memchr(buffer, '\n', used))) {
        size_t n = (size_t)(newline + 1 - buffer);

        *newline = 0;
        run_line(buffer);
        memmove(buffer, buffer + n, used - n);
        used -= n;
    }
}

int main(int argc, char **argv)
{
    LoopSource *input = NULL;
    int r;

    if (argc != 9) {
        fprintf(stderr, "usage: vm-call DIRECTORY BINARY KERNEL ROOTFS KERNEL-ARGS MEMORY-MIB FIRST-UID GID\n");
        return 2;
    }
    options = argv + 1;
    r = loop_new(&loop);
    if (r >= 0)
        r = loop_add_io(loop, STDIN_FILENO, EPOLLIN, on_input, NULL, &input);
    if (r >= 0)
        r = loop_run(loop);
    for (unsigned i = 0; i < n_vms; i++) {
        if (vms[i].vmm)
            (void)vmm_kill(vms[i].vmm);
        vmm_free(vms[i].vmm);
        free(vms[i].starting);
    }
    loop_source_free(input);
    loop_free(loop);
    return r < 0 ? 1 : 0;
}
