/* SPDX-License-Identifier: MIT */

/* The Cloud Hypervisor driver: its operations, its events and its end. */

#include "vmm/ch.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/process.h"
#include "vmm/ch-requests.h"
#include "vmm/ch-template.h"
#include "vmm/program-version.h"
#include "vmm/stderr-file.h"

#define LAST_WORDS_MAX 1024
/* One round of reading events. */
#define READS_MAX 16

static void ch_free(Vmm *vmm)
{
    Ch *ch = ch_of(vmm);

    ch_client_free(ch->client);
    ch_template_abandon(ch);
    ch_channel_free(ch);
    ch_devices_free(ch);
    console_free(ch->console);
    loop_source_free(ch->events_io);
    fd_close(ch->events_fd);
    ch_events_clear(&ch->events);
    loop_source_free(ch->ready_io);
    fd_close(ch->ready_fd);
    fd_close(ch->stderr_fd);
    error_clear(&ch->resize_error);
    free(ch->channel);
    free(ch->template_directory);
}

/* Events */

static void on_event(Ch *ch, const ChEvent *event)
{
    if (strcmp(event->source, "vm") == 0 && strcmp(event->event, "device-removed") == 0) {
        if (event->id)
            ch_device_removed(ch, event->id);
    } else if (strcmp(event->source, "vm") == 0 && strcmp(event->event, "rebooting") == 0) {
        /* A guest that resets itself has ended: what would come up again is not the pod. */
        ch->reset = true;
        if (!ch->vmm.ended)
            (void)process_kill(ch->vmm.pidfd, SIGKILL);
    } else if (strcmp(event->source, "vmm") == 0 && strcmp(event->event, "shutdown") == 0) {
        ch->shut_down = true;
    }
}

/* One read. 1: there may be more, 0: nothing for now, negative: nothing any more. */
static int read_events_once(Ch *ch)
{
    char buffer[4096];
    ssize_t k = read(ch->events_fd, buffer, sizeof(buffer));
    int r;

    if (k <= 0)
        return k < 0 && (errno == EAGAIN || errno == EINTR) ? errno == EINTR : -EPIPE;
    r = ch_events_feed(&ch->events, buffer, (size_t)k);
    while (r >= 0 && !ch->vmm.dead) {
        _cleanup_ch_event_ ChEvent event = {0};

        r = ch_events_next(&ch->events, &event, NULL);
        if (r > 0)
            break;
        if (r == 0)
            on_event(ch, &event);
    }
    return r < 0 ? r : 1;
}

void ch_read_events(Ch *ch)
{
    int r = ch->events_fd < 0 ? 0 : 1;

    for (int i = 0; i < READS_MAX && r > 0 && !ch->vmm.dead; i++)
        r = read_events_once(ch);
    if (r >= 0 || ch->vmm.dead)
        return;
    /* Without events, removals end by their deadlines. */
    ch->events_io = loop_source_free(ch->events_io);
    ch->events_fd = fd_close(ch->events_fd);
}

/* The end */

static const char *describe_end(const Ch *ch)
{
    if (ch->reset)
        return "the guest reset itself, as its kernel does after a panic";
    if (ch->shut_down)
        return "the guest shut down";
    return NULL;
}

static void ch_ended(Vmm *vmm, bool *ret_requested, char **ret_last_words)
{
    _cleanup_free_ char *said = NULL, *console = NULL;
    Ch *ch = ch_of(vmm);
    const char *end;

    ch_read_events(ch);
    if (ch->console) {
        console_drain(ch->console);
        console = console_tail(ch->console, LAST_WORDS_MAX);
    }
    said = stderr_file_tail(ch->stderr_fd, LAST_WORDS_MAX);
    end = describe_end(ch);
    *ret_requested = ch->shut_down && !ch->reset;
    *ret_last_words = string_printf("%s%sits last words: \"%s\"; the guest's console ended: \"%s\"", end ?: "",
                                    end ? "; " : "", said ?: "", console ?: "");
}

/* Operations */

void ch_finish(VmmOp *op, const Error *e)
{
    if (e && e->number == -ECONNRESET)
        vmm_op_detach(op);
    else
        vmm_op_finish(op, e);
}

int ch_put(Ch *ch, const char *name, json_t *body, int fd, ChAnswerFn on_answer, void *userdata)
{
    /* What is asked for without a body is asked for by no such function. */
    if (!body && strcmp(name, "vm.boot") != 0 && strcmp(name, "vm.pause") != 0 && strcmp(name, "vm.resume") != 0)
        return -ENOMEM;
    return ch_client_put(ch->client, name, body, fd, UINT64_MAX, on_answer, userdata);
}

static const char *ch_warning(const Vmm *vmm)
{
    const Ch *ch = (const Ch *)vmm;

    return ch->version == CH_VERSION_DOUBLE
               ? "Cloud Hypervisor 52 keeps the memory of a VM that it boots in a memory file, so that what the guest "
                 "writes costs the host twice; 53 does not"
               : NULL;
}

static int ch_channel(Vmm *vmm, VmmChannel channel, VmmChannelAddress *ret)
{
    *ret = (VmmChannelAddress){
        .path = ch_of(vmm)->channel,
        .port = channel == VMM_CHANNEL_CONTROL ? CH_PORT_CONTROL : CH_PORT_TASK,
    };
    return 0;
}

static void on_state_changed(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    Ch *ch = userdata;

    ch->state_changing = false;
    ch_finish(ch->state_op, e);
}

static int change_state(Ch *ch, const char *request, VmmOp *op, Error *e)
{
    int r;

    if (ch->state_changing)
        return error_set(e, -EBUSY, "it is just being paused or resumed");
    r = ch_put(ch, request, NULL, -EBADF, on_state_changed, ch);
    if (r < 0)
        return error_set_errno(e, r, "cannot send a request to Cloud Hypervisor");
    ch->state_changing = true;
    vmm_op_keep(op, &ch->state_op);
    return 0;
}

static int ch_pause(Vmm *vmm, VmmOp *op, Error *e)
{
    return change_state(ch_of(vmm), "vm.pause", op, e);
}

static int ch_resume(Vmm *vmm, VmmOp *op, Error *e)
{
    return change_state(ch_of(vmm), "vm.resume", op, e);
}

static void on_resized(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error failure = ERROR_INIT;
    Ch *ch = userdata;

    if (e && ch->resize_error.number == 0)
        (void)error_set(&ch->resize_error, e->number, "%s", error_message(e));
    if (--ch->resizing > 0)
        return;
    (void)error_move(&failure, &ch->resize_error);
    ch_finish(ch->resize_op, failure.number ? &failure : NULL);
}

static int ch_resize(Vmm *vmm, unsigned vcpus, uint64_t memory, VmmOp *op, Error *e)
{
    Ch *ch = ch_of(vmm);
    int r = 0;

    if (ch->resizing > 0)
        return error_set(e, -EBUSY, "it is just being resized");
    if (vcpus == 0 && memory == 0)
        return error_set(e, -EINVAL, "neither vCPUs nor memory to change");
    if (memory > 0) {
        r = ch_put(ch, "vm.resize-zone", ch_resize_memory(memory), -EBADF, on_resized, ch);
        ch->resizing += r >= 0;
    }
    if (r >= 0 && vcpus > 0) {
        r = ch_put(ch, "vm.resize", ch_resize_cpus(vcpus), -EBADF, on_resized, ch);
        ch->resizing += r >= 0;
    }
    if (ch->resizing == 0)
        return error_set_errno(e, r, "cannot send a request to Cloud Hypervisor");
    if (r < 0) /* one is on its way, and ends it */
        (void)error_set_errno(&ch->resize_error, r, "cannot send a request to Cloud Hypervisor");
    vmm_op_keep(op, &ch->resize_op);
    return 0;
}

static int ch_probe(const char *binary, uint64_t timeout_usec, unsigned *ret_features, Error *e)
{
    static const char name[] = "cloud-hypervisor ";
    char answer[PROGRAM_VERSION_MAX];
    unsigned major = 0;
    int r;

    r = program_version(binary, timeout_usec, answer, e);
    if (r < 0)
        return r;
    answer[strcspn(answer, "\n")] = 0;
    if (strncmp(answer, name, strlen(name)) != 0 || ch_parse_version(answer + strlen(name), &major) < 0)
        return error_set(e, -EBADMSG, "%s is no Cloud Hypervisor: \"--version\" gives \"%.128s\"", binary, answer);
    *ret_features = major < CH_VERSION_MIN ? 0 : CH_FEATURES;
    return 0;
}

const VmmDriver vmm_driver_cloud_hypervisor = {
    .name = "cloud-hypervisor",
    .size = sizeof(Ch),
    .features = CH_FEATURES,
    .probe = ch_probe,
    .init = ch_init,
    .boot = ch_boot,
    .adopt = ch_adopt,
    .serialize = ch_serialize,
    .ended = ch_ended,
    .free = ch_free,
    .warning = ch_warning,
    .channel = ch_channel,
    .add_disk = ch_add_disk,
    .remove_disk = ch_remove_disk,
    .add_nic = ch_add_nic,
    .remove_nic = ch_remove_nic,
    .pause = ch_pause,
    .resume = ch_resume,
    .resize = ch_resize,
    .snapshot = ch_snapshot,
};
