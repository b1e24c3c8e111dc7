/* SPDX-License-Identifier: MIT */
#pragma once

/* A VMM that is none, in place of src/vmm/vmm.c (a static library's member is linked only for names that
 * nobody else has), and the agent in its guest, of which a test, or a fuzzer, gives each answer. To be
 * included once in a program.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "sandbox/vm.h"
#include "ttrpc/ttrpc.h"

#define FAKE_CONTROL (&cloudhv__agent__v1__control__descriptor)

enum { FAKE_GUEST_CALLS_MAX = 32, FAKE_METHODS_MAX = 32, FAKE_DISKS_MAX = 16 };

typedef struct FakeGuestCall {
    TtrpcCall *call;
    const char *method;
    const ProtobufCMessage *request;
} FakeGuestCall;

/* An operation of the VMM that has yet to end. */
typedef struct FakeOp {
    struct FakeOp *next;
    LoopSource *source;
    Vmm *vmm;
    VmmDoneFn done;
    void *userdata;
    int number;
} FakeOp;

typedef struct FakeVm {
    Loop *loop;
    char directory[64];
    /* What the next operations come to. */
    int boot_now, boot, add_now, add, remove_now, remove; /* negative errno; "now": from the call itself */
    unsigned add_fails_at; /* the disk, counted from 1, whose plugging fails with `add` */
    int restore_now, restore, snapshot, nic;
    bool several;      /* more than one VM at a time */
    unsigned features; /* of the program: what a probe of it says */
    bool automatic;    /* the guests answer by themselves */

    Vmm *vmm; /* the one that there is, or the newest */
    unsigned booted, restored, saved, killed, freed, n_nics;
    char disks[FAKE_DISKS_MAX][24]; /* serials of what is plugged, in order */
    unsigned n_disks;

    TtrpcServer *server;
    TtrpcHandler handlers[FAKE_METHODS_MAX];
    int listen_fd;
    LoopSource *accept;
    char socket[96];
    FakeGuestCall calls[FAKE_GUEST_CALLS_MAX];
    unsigned n_calls;
} FakeVm;

struct Vmm {
    FakeVm *vm;
    Vmm *next;
    bool paused, for_template;
    bool vanished; /* its process has ended, which has yet to be told */
    VmmExitFn exited;
    void *userdata;
    FakeOp *ops;
    LoopSource *exit_source;
    bool ended;
};

struct VmmDriver {
    const char *name;
};

static FakeVm *fake_vm; /* vmm_boot() gets no object of ours */
static const VmmDriver fake_driver = {"fake"};

static inline void fake_must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fake VMM: %s\n", what);
    abort();
}

/* --------------------------------------------------------------------------------------------------- vmm.h's
 */

static inline void on_fake_op(_unused_ LoopSource *source, void *userdata)
{
    FakeOp *op = userdata, **link = &op->vmm->ops;
    _cleanup_error_ Error e = ERROR_INIT;
    Vmm *vmm = op->vmm;
    FakeOp copy = *op;

    while (*link != op)
        link = &(*link)->next;
    *link = op->next;
    loop_source_free(op->source);
    free(op);
    if (copy.number < 0)
        error_set(&e, copy.number, "the fake VMM has no luck");
    copy.done(vmm, copy.number < 0 ? &e : NULL, copy.userdata);
}

static inline void fake_op(Vmm *vmm, VmmDoneFn done, void *userdata, int number)
{
    FakeOp *op = calloc(1, sizeof(*op));

    fake_must(op, "out of memory");
    *op = (FakeOp){.next = vmm->ops, .vmm = vmm, .done = done, .userdata = userdata, .number = number};
    vmm->ops = op;
    fake_must(loop_add_defer(vmm->vm->loop, on_fake_op, op, &op->source) >= 0, "cannot defer");
}

static inline void fake_ops_drop(Vmm *vmm)
{
    while (vmm->ops) {
        FakeOp *op = vmm->ops;

        vmm->ops = op->next;
        loop_source_free(op->source);
        free(op);
    }
}

static inline Vmm *fake_vmm_new(VmmExitFn exited, void *userdata)
{
    Vmm *vmm = calloc(1, sizeof(*vmm));

    fake_must(vmm && fake_vm && (fake_vm->several || !fake_vm->vmm), "no VM");
    *vmm = (Vmm){.vm = fake_vm, .next = fake_vm->vmm, .exited = exited, .userdata = userdata};
    fake_vm->vmm = vmm;
    return vmm;
}

int vmm_boot(_unused_ Loop *loop, _unused_ const VmmDriver *driver, const VmmSpec *spec, VmmDoneFn done,
             VmmExitFn exited, void *userdata, Vmm **ret, Error *e)
{
    fake_must(spec->uid != 0 && spec->vcpus > 0 && spec->memory > 0, "a specification with holes");
    if (fake_vm->boot_now < 0)
        return error_set(e, fake_vm->boot_now, "the fake VMM does not start");
    fake_vm->booted++;
    *ret = fake_vmm_new(exited, userdata);
    fake_op(*ret, done, userdata, fake_vm->boot);
    /* A VMM whose boot has failed is gone already. */
    (*ret)->ended = fake_vm->boot < 0;
    (*ret)->for_template = spec->template_directory;
    return 0;
}

int vmm_probe(_unused_ const VmmDriver *driver, _unused_ const char *binary, _unused_ uint64_t timeout_usec,
              unsigned *ret_features, _unused_ Error *e)
{
    *ret_features = fake_vm->features;
    return 0;
}

int vmm_restore(_unused_ Loop *loop, _unused_ const VmmDriver *driver, const VmmSpec *spec,
                const char *directory, VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret, Error *e)
{
    _cleanup_free_ char *ram = fs_join(directory, "ram");

    fake_must(spec->uid != 0 && spec->vcpus > 0 && spec->memory > 0 && spec->n_nics == 0, "a wrong specification");
    fake_must(ram && access(ram, F_OK) == 0, "a template without memory");
    if (fake_vm->restore_now < 0)
        return error_set(e, fake_vm->restore_now, "the fake VMM does not start a clone");
    fake_vm->restored++;
    *ret = fake_vmm_new(exited, userdata);
    fake_op(*ret, done, userdata, fake_vm->restore);
    (*ret)->ended = fake_vm->restore < 0;
    return 0;
}

int vmm_pause(Vmm *vmm, VmmDoneFn done, void *userdata, _unused_ Error *e)
{
    vmm->paused = true;
    fake_op(vmm, done, userdata, 0);
    return 0;
}

static inline void fake_file(const char *directory, const char *name, size_t size)
{
    _cleanup_free_ char *path = fs_join(directory, name);
    FILE *file = path ? fopen(path, "we") : NULL;

    fake_must(file && fputs(name, file) >= 0 && ftruncate(fileno(file), (off_t)size) == 0 && fclose(file) == 0,
              "no file");
}

/* A large file for the memory, and a small one for the rest. */
int vmm_snapshot(Vmm *vmm, const char *directory, VmmDoneFn done, void *userdata, _unused_ Error *e)
{
    fake_must(vmm->paused && vmm->for_template, "a VM that cannot become a template");
    fake_file(directory, "ram", 8 << 20);
    if (vmm->vm->snapshot >= 0) {
        fake_file(directory, "state", 100);
        vmm->vm->saved++;
    }
    fake_op(vmm, done, userdata, vmm->vm->snapshot);
    return 0;
}

int vmm_add_nic(Vmm *vmm, const char *id, const VmmNic *nic, VmmDoneFn done, void *userdata, _unused_ Error *e)
{
    fake_must(*id && nic->tap_fd >= 0 && fcntl(nic->tap_fd, F_GETFD) >= 0, "a NIC without TAP");
    vmm->vm->n_nics++;
    fake_op(vmm, done, userdata, vmm->vm->nic);
    return 0;
}

int vmm_serialize(_unused_ Vmm *vmm, json_t **ret)
{
    json_decref(*ret);
    *ret = json_pack("{s:s}", "driver", "fake");
    return *ret ? 0 : -ENOMEM;
}

int vmm_adopt(_unused_ Loop *loop, json_t *state, VmmDoneFn done, VmmExitFn exited, void *userdata, Vmm **ret,
              Error *e)
{
    if (!json_object_get(state, "driver"))
        return error_set(e, -ESRCH, "the fake VMM is gone");
    *ret = fake_vmm_new(exited, userdata);
    fake_op(*ret, done, userdata, 0);
    return 0;
}

static inline void on_fake_exit(_unused_ LoopSource *source, void *userdata)
{
    Vmm *vmm = userdata;

    vmm->exit_source = loop_source_free(vmm->exit_source);
    vmm->exited(vmm, &(VmmExit){.requested = true, .reason = "it was killed"}, vmm->userdata);
}

int vmm_kill(Vmm *vmm)
{
    fake_vm->killed++;
    if (vmm->ended)
        return -ESRCH;
    vmm->ended = true;
    fake_ops_drop(vmm);
    fake_must(loop_add_defer(vmm->vm->loop, on_fake_exit, vmm, &vmm->exit_source) >= 0, "cannot defer");
    return 0;
}

Vmm *vmm_free(Vmm *vmm)
{
    if (!vmm)
        return NULL;
    fake_ops_drop(vmm);
    loop_source_free(vmm->exit_source);
    vmm->vm->freed++;
    for (Vmm **link = &vmm->vm->vmm; *link; link = &(*link)->next)
        if (*link == vmm) {
            *link = vmm->next;
            break;
        }
    free(vmm);
    return NULL;
}

unsigned vmm_features(_unused_ const Vmm *vmm)
{
    return VMM_HOTPLUG_DISK;
}

const char *vmm_warning(_unused_ const Vmm *vmm)
{
    return "the fake VMM has no VMs";
}

pid_t vmm_pid(const Vmm *vmm)
{
    return vmm->vanished ? -1 : getpid();
}

uint64_t vmm_start_time(_unused_ const Vmm *vmm)
{
    uint64_t time = 0;

    fake_must(process_start_time(getpid(), &time) >= 0, "no time");
    return time;
}

const VmmDriver *vmm_driver(_unused_ const Vmm *vmm)
{
    return &fake_driver;
}

const VmmDriver *vmm_driver_by_name(_unused_ const char *name)
{
    return &fake_driver;
}

const char *vmm_driver_name(const VmmDriver *driver)
{
    return driver->name;
}

int vmm_channel(const Vmm *vmm, _unused_ VmmChannel channel, VmmChannelAddress *ret)
{
    *ret = (VmmChannelAddress){.serial = true, .path = vmm->vm->socket};
    return 0;
}

int vmm_add_disk(Vmm *vmm, const VmmDisk *disk, VmmDoneFn done, void *userdata, Error *e)
{
    FakeVm *f = vmm->vm;
    int number = f->add_fails_at == 0 || f->add_fails_at == f->n_disks + 1 ? f->add : 0;

    fake_must(disk->fd >= 0 && *disk->serial, "a disk without descriptor or serial");
    if (f->add_now < 0)
        return error_set(e, f->add_now, "the fake VMM takes no disk");
    for (unsigned i = 0; i < f->n_disks; i++)
        if (strcmp(f->disks[i], disk->serial) == 0)
            return error_set(e, -EEXIST, "the fake VMM has a disk %s", disk->serial);
    if (number >= 0 && f->n_disks < FAKE_DISKS_MAX)
        snprintf(f->disks[f->n_disks++], sizeof(f->disks[0]), "%s", disk->serial);
    fake_op(vmm, done, userdata, number);
    return 0;
}

int vmm_remove_disk(Vmm *vmm, const char *serial, VmmDoneFn done, void *userdata, Error *e)
{
    FakeVm *f = vmm->vm;

    if (f->remove_now < 0)
        return error_set(e, f->remove_now, "the fake VMM gives no disk back");
    for (unsigned i = 0; i < f->n_disks; i++) {
        if (strcmp(f->disks[i], serial) != 0)
            continue;
        if (f->remove >= 0)
            memmove(f->disks[i], f->disks[i + 1], (--f->n_disks - i) * sizeof(f->disks[0]));
        fake_op(vmm, done, userdata, f->remove);
        return 0;
    }
    return error_set(e, -ENOENT, "the fake VMM has no disk %s", serial);
}

/* The VMM ends by itself. */
static inline void fake_one_ends(Vmm *vmm, const char *reason)
{

    if (!vmm || vmm->ended)
        return;
    vmm->ended = true;
    fake_ops_drop(vmm);
    vmm->exited(vmm, &(VmmExit){.reason = reason}, vmm->userdata);
}

static inline void fake_vmm_ends(FakeVm *f, const char *reason)
{
    fake_one_ends(f->vmm, reason);
}

/* ------------------------------------------------------------------------------------------------------
 * guest */

static inline void fake_guest_forget(FakeVm *f, const TtrpcCall *call)
{
    for (unsigned i = 0; i < f->n_calls; i++)
        if (f->calls[i].call == call) {
            memmove(&f->calls[i], &f->calls[i + 1], (--f->n_calls - i) * sizeof(f->calls[0]));
            return;
        }
}

static inline void on_guest_cancel(TtrpcCall *call, void *userdata)
{
    fake_guest_forget(userdata, call);
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits");
}

/* As an agent that is well, but older than Quiesce. */
static inline void fake_guest_answers(TtrpcCall *call)
{
    Cloudhv__Agent__V1__HelloResponse hello = CLOUDHV__AGENT__V1__HELLO_RESPONSE__INIT;
    Cloudhv__Agent__V1__IdentityResponse identity = CLOUDHV__AGENT__V1__IDENTITY_RESPONSE__INIT;

    hello.protocol = 1;
    hello.kernel_release = (char *)"6.12.9";
    if (strcmp(ttrpc_call_method(call), "Hello") == 0)
        ttrpc_call_reply(call, &hello.base);
    else if (strcmp(ttrpc_call_method(call), "Identity") == 0)
        ttrpc_call_reply(call, &identity.base);
    else
        ttrpc_call_fail(call, TTRPC_UNIMPLEMENTED, "the fake guest has no %s", ttrpc_call_method(call));
}

static inline void on_guest_call(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    FakeVm *f = userdata;

    if (f->automatic) {
        fake_guest_answers(call);
        return;
    }
    if (f->n_calls == FAKE_GUEST_CALLS_MAX) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "too many calls");
        return;
    }
    f->calls[f->n_calls++] = (FakeGuestCall){call, ttrpc_call_method(call), request};
    ttrpc_call_set_cancel(call, on_guest_cancel, f);
}

static inline const ProtobufCMessageDescriptor *fake_guest_output(const char *method)
{
    return protobuf_c_service_descriptor_get_method_by_name(FAKE_CONTROL, method)->output;
}

static inline void fake_guest_reply(FakeVm *f, unsigned i, const ProtobufCMessage *response)
{
    TtrpcCall *call = f->calls[i].call;

    fake_guest_forget(f, call);
    ttrpc_call_reply(call, response);
}

static inline void fake_guest_refuse(FakeVm *f, unsigned i, TtrpcCode code, const char *text)
{
    TtrpcCall *call = f->calls[i].call;

    fake_guest_forget(f, call);
    ttrpc_call_fail(call, code, "%s", text);
}

static inline unsigned fake_guest_find(const FakeVm *f, const char *method)
{
    for (unsigned i = 0; i < f->n_calls; i++)
        if (strcmp(f->calls[i].method, method) == 0)
            return i;
    return FAKE_GUEST_CALLS_MAX;
}

static inline void on_guest_accept(_unused_ LoopSource *source, int fd, _unused_ uint32_t revents,
                                   void *userdata)
{
    FakeVm *f = userdata;
    int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (connection >= 0)
        fake_must(ttrpc_server_add_serial(f->server, connection) >= 0, "no port");
}

static inline void fake_vm_start(FakeVm *f)
{
    snprintf(f->directory, sizeof(f->directory), "%s/fake-vm.XXXXXX",
             access("/dev/shm", W_OK) < 0 ? "/tmp" : "/dev/shm");
    fake_must(mkdtemp(f->directory), "no directory");
    snprintf(f->socket, sizeof(f->socket), "%s/control", f->directory);
    fake_must(loop_new(&f->loop) >= 0 && ttrpc_server_new(f->loop, &f->server) >= 0, "no server");
    fake_must(FAKE_CONTROL->n_methods <= FAKE_METHODS_MAX, "the agent has more methods");
    for (unsigned i = 0; i < FAKE_CONTROL->n_methods; i++)
        f->handlers[i] = on_guest_call;
    fake_must(ttrpc_server_add_service(f->server, NULL, FAKE_CONTROL, f->handlers, f) >= 0, "no service");
    f->listen_fd = fd_listen_unix(f->socket, 0600);
    fake_must(f->listen_fd >= 0 &&
                  loop_add_io(f->loop, f->listen_fd, EPOLLIN, on_guest_accept, f, &f->accept) >= 0,
              "no socket");
    fake_vm = f;
}

static inline void fake_vm_stop(FakeVm *f)
{
    fake_must(!f->vmm, "the VMM is left");
    loop_source_free(f->accept);
    fd_close(f->listen_fd);
    ttrpc_server_free(f->server);
    fake_must(f->n_calls == 0, "calls to the guest are left");
    loop_free(f->loop);
    fake_must(fs_remove_tree(f->directory) >= 0, "the directory remains");
    fake_vm = NULL;
}

static inline void fake_vm_settle(FakeVm *f, uint64_t usec)
{
    for (int i = 0; i < 10000 && loop_run_once(f->loop, usec) > 0; i++)
        continue;
}

/* Settings for a state directory below the fake's own. */
static inline SandboxSettings fake_vm_settings(const FakeVm *f)
{
    return (SandboxSettings){
        .state_dir = f->directory,
        .driver = &fake_driver,
        .vmm_binary = "/nowhere/vmm",
        .kernel = "/nowhere/kernel",
        .rootfs = "/nowhere/rootfs",
        .kernel_args = "quiet",
        .default_vcpus = 1,
        .default_memory_mb = 128,
        .uid_base = 1879350000,
        .uid_count = 16,
        .gid = 1879350000,
        .boot_timeout_usec = 60 * USEC_PER_SEC,
        .operation_timeout_usec = 60 * USEC_PER_SEC,
        .max_containers = 3,
    };
}
