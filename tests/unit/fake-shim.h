/* SPDX-License-Identifier: MIT */
#pragma once

/* The shim's task service without anything around it: containerd is a client of ours, the agent a server of
 * ours, and pod, image preparation and (with FAKE_STDIO) standard streams are the functions below, which take
 * the place of the library's: a static library's member is linked only for names that nobody else has. For
 * unit tests and fuzz targets; to be included once in a program. */

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
#include "base/log.h"
#include "config/field.h"
#include "containerd-events.pb-c.h"
#include "containerd-task.pb-c.h"
#include "image/image.h"
#include "shim/container.h"
#include "shim/daemon-link.h"
#include "shim/pod.h"
#include "shim/shim.h"
#include "shim/task.h"

#define FAKE_AGENT (&cloudhv__agent__v1__task__descriptor)
#define FAKE_ID "pod"

enum { FAKE_CALLS_MAX = 64, FAKE_METHODS_MAX = 64, FAKE_EVENTS_MAX = 64 };

/* What an asynchronous operation still has to say. */
typedef struct FakeLater {
    struct FakeLater *next;
    struct FakeShim *fake;
    LoopSource *source;
    PodFn callback;
    void *userdata;
    bool fails;
} FakeLater;

/* A call that waits for the agent's answer. */
typedef struct FakeCall {
    TtrpcCall *call;
    const char *method;
    const ProtobufCMessage *request;
} FakeCall;

typedef struct FakeShim {
    Shim shim; /* first: cast back */
    ServerSpec spec;
    char directory[64];
    char last_words[64]; /* a file of the host that containers write to */

    /* What the pod is told to do, and what it was asked for. */
    bool acquire_fails, attach_fails, image_fails;
    unsigned acquired, released, attached, detached, configured, images, stopped;
    FakeLater *later;

    TtrpcServer *agent_server;
    TtrpcClient *agent;
    TtrpcHandler agent_handlers[FAKE_METHODS_MAX];
    bool agent_answers; /* everything but what waits for a process, at once, with empty messages */
    FakeCall calls[FAKE_CALLS_MAX];
    unsigned n_calls;

    TtrpcClient *containerd;
    TtrpcServer *events_server;
    TtrpcHandler events_handlers[1];
    char events[FAKE_EVENTS_MAX][48];
    unsigned n_events;
} FakeShim;

static inline void fake_require(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fake shim: %s\n", what);
    abort();
}

/* --------------------------------------------------------------------------------------------- server.h's */

void shim_stop(Shim *shim)
{
    ((FakeShim *)shim)->stopped++;
}

void shim_check_idle(Shim *shim)
{
    if (!shim->containers && shim->stop_when_idle)
        shim_stop(shim);
}

void shim_pod_ended(Shim *shim, _unused_ const char *reason)
{
    for (Container *c = shim->containers; c; c = c->next)
        container_lose(c);
}

/* ------------------------------------------------------------------------------------------------ pod.h's */

struct Pod {
    FakeShim *fake;
    bool running, released;
    unsigned disks;
};

static inline void later_free(FakeLater *later)
{
    FakeLater **link = &later->fake->later;

    while (*link != later)
        link = &(*link)->next;
    *link = later->next;
    loop_source_free(later->source);
    free(later);
}

static inline void later_finish(FakeLater *later, Pod *pod, int number)
{
    _cleanup_error_ Error e = ERROR_INIT;
    PodFn callback = later->callback;
    void *userdata = later->userdata;

    if (number < 0)
        error_set(&e, number, "the fake pod has no luck");
    later_free(later);
    callback(pod, number < 0 ? &e : NULL, userdata);
}

static inline void on_later(_unused_ LoopSource *source, void *userdata)
{
    FakeLater *later = userdata;

    later_finish(later, later->fake->shim.pod, later->fails ? -EIO : 0);
}

static inline void later_add(FakeShim *f, PodFn callback, void *userdata, bool fails)
{
    FakeLater *later = calloc(1, sizeof(*later));

    fake_require(later, "out of memory");
    *later =
        (FakeLater){.next = f->later, .fake = f, .callback = callback, .userdata = userdata, .fails = fails};
    f->later = later;
    fake_require(loop_add_defer(f->shim.loop, on_later, later, &later->source) >= 0, "cannot defer");
}

static inline void later_cancel(Pod *pod)
{
    while (pod->fake->later)
        later_finish(pod->fake->later, pod, -ESHUTDOWN);
}

int pod_new(Shim *shim, Pod **ret)
{
    Pod *pod = calloc(1, sizeof(*pod));

    fake_require(pod, "out of memory");
    pod->fake = (FakeShim *)shim;
    *ret = pod;
    return 0;
}

Pod *pod_free(Pod *pod)
{
    if (pod)
        later_cancel(pod);
    free(pod);
    return NULL;
}

int pod_acquire(Pod *pod, _unused_ const Bundle *bundle, PodFn callback, void *userdata, _unused_ Error *e)
{
    pod->fake->acquired++;
    pod->running = !pod->fake->acquire_fails;
    later_add(pod->fake, callback, userdata, pod->fake->acquire_fails);
    return 0;
}

int pod_configure_network(Pod *pod, PodFn callback, void *userdata, _unused_ Error *e)
{
    pod->fake->configured++;
    later_add(pod->fake, callback, userdata, false);
    return 0;
}

int pod_attach_disks(Pod *pod, _unused_ const char *container_id, _unused_ Cloudhv__Daemon__V1__Disk **disks,
                     size_t n_disks, PodFn callback, void *userdata, _unused_ Error *e)
{
    fake_require(n_disks > 0 && *disks[0]->serial && *disks[0]->path, "a disk without serial or path");
    pod->fake->attached++;
    later_add(pod->fake, callback, userdata, pod->fake->attach_fails);
    return 0;
}

int pod_detach_disks(Pod *pod, _unused_ const char *container_id, PodFn callback, void *userdata,
                     _unused_ Error *e)
{
    pod->fake->detached++;
    later_add(pod->fake, callback, userdata, false);
    return 0;
}

void pod_release(Pod *pod, PodFn callback, void *userdata)
{
    pod->fake->released++;
    pod->released = true;
    later_cancel(pod);
    later_add(pod->fake, callback, userdata, false);
}

TtrpcClient *pod_agent(const Pod *pod)
{
    return pod && pod->running && !pod->released ? pod->fake->agent : NULL;
}

const char *pod_netns(_unused_ const Pod *pod)
{
    return NULL;
}

unsigned pod_next_disk(Pod *pod)
{
    return pod->disks++ % 100;
}

/* ---------------------------------------------------------------------------------------------- image.h's */

struct ImageJob {
    FakeShim *fake;
    LoopSource *source;
    ImageDoneFn callback;
    void *userdata;
    bool scratch;
};

static FakeShim *fake_current; /* image_prepare() gets no object of ours */

void image_result_clear(ImageResult *result)
{
    fd_close(result->image_fd);
    fd_close(result->scratch_fd);
    free(result->image_path);
    free(result->scratch_path);
    free(result->upper_dir);
    *result = IMAGE_RESULT_INIT;
}

static inline void on_image_done(_unused_ LoopSource *source, void *userdata)
{
    _cleanup_image_result_ ImageResult result = IMAGE_RESULT_INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    ImageJob *job = userdata;

    job->source = loop_source_free(job->source);
    if (job->fake->image_fails) {
        error_set(&e, -EIO, "the fake image has no luck");
        job->callback(job, NULL, &e, job->userdata);
        return;
    }
    result.image_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    result.image_path = strdup("/images/one");
    if (job->scratch)
        result.scratch_path = fs_join(job->fake->directory, "scratch");
    job->callback(job, &result, NULL, job->userdata);
}

int image_prepare(Loop *loop, _unused_ const ImageConfig *config, _unused_ const ImageMount *mounts,
                  _unused_ size_t n_mounts, const ImageScratch *scratch, ImageDoneFn callback, void *userdata,
                  ImageJob **ret, _unused_ Error *e)
{
    ImageJob *job = calloc(1, sizeof(*job));

    fake_require(job && fake_current, "no shim");
    fake_current->images++;
    *job = (ImageJob){.fake = fake_current, .callback = callback, .userdata = userdata, .scratch = scratch};
    fake_require(loop_add_defer(loop, on_image_done, job, &job->source) >= 0, "cannot defer");
    *ret = job;
    return 0;
}

ImageJob *image_job_free(ImageJob *job)
{
    if (!job)
        return NULL;
    loop_source_free(job->source);
    free(job);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------- io.h's */

#ifdef FAKE_STDIO
/* Streams that open nothing, since paths come from the input, and are drained as soon as the process has
 * ended. */
struct Stdio {
    Loop *loop;
    LoopSource *source;
    StdioDrainedFn drained;
    void *userdata;
};

int stdio_new(Loop *loop, _unused_ const StdioSpec *spec, StdioDrainedFn drained, void *userdata, Stdio **ret,
              _unused_ Error *e)
{
    Stdio *io = calloc(1, sizeof(*io));

    fake_require(io, "out of memory");
    *io = (Stdio){.loop = loop, .drained = drained, .userdata = userdata};
    *ret = io;
    return 0;
}

Stdio *stdio_free(Stdio *io)
{
    if (!io)
        return NULL;
    loop_source_free(io->source);
    free(io);
    return NULL;
}

static inline void on_stdio_drained(_unused_ LoopSource *source, void *userdata)
{
    Stdio *io = userdata;

    io->source = loop_source_free(io->source);
    io->drained(io->userdata);
}

int stdio_start(_unused_ Stdio *io, _unused_ TtrpcClient *agent)
{
    return 0;
}

int stdio_start_input(_unused_ Stdio *io, _unused_ Error *e)
{
    return 0;
}

void stdio_process_ended(Stdio *io)
{
    fake_require(!io->source, "the end of a process was told twice");
    fake_require(loop_add_defer(io->loop, on_stdio_drained, io, &io->source) >= 0, "cannot defer");
}

void stdio_close_stdin(_unused_ Stdio *io)
{
}

void stdio_abandon(_unused_ Stdio *io)
{
}
#endif

/* ------------------------------------------------------------------------------------------------- agent */

static inline void fake_forget(FakeShim *f, const TtrpcCall *call)
{
    for (unsigned i = 0; i < f->n_calls; i++)
        if (f->calls[i].call == call) {
            memmove(&f->calls[i], &f->calls[i + 1], (--f->n_calls - i) * sizeof(f->calls[0]));
            return;
        }
}

static inline void on_agent_cancel(TtrpcCall *call, void *userdata)
{
    fake_forget(userdata, call);
    ttrpc_call_fail(call, TTRPC_CANCELED, "nobody waits");
}

static inline const ProtobufCMessageDescriptor *fake_output(const char *method)
{
    return protobuf_c_service_descriptor_get_method_by_name(FAKE_AGENT, method)->output;
}

/* Ends a waiting call with `response`, or with an empty message. */
static inline void fake_reply(FakeShim *f, unsigned i, const ProtobufCMessage *response)
{
    const ProtobufCMessageDescriptor *d = fake_output(f->calls[i].method);
    TtrpcCall *call = f->calls[i].call;
    ProtobufCMessage *empty = NULL;

    if (!response) {
        response = empty = calloc(1, d->sizeof_message);
        fake_require(empty, "out of memory");
        protobuf_c_message_init(d, empty);
    }
    fake_forget(f, call);
    ttrpc_call_reply(call, response);
    free(empty);
}

static inline void fake_refuse(FakeShim *f, unsigned i, TtrpcCode code, const char *text)
{
    TtrpcCall *call = f->calls[i].call;

    fake_forget(f, call);
    ttrpc_call_fail(call, code, "%s", text);
}

/* Index of the first waiting call of that method, or FAKE_CALLS_MAX. */
static inline unsigned fake_find(const FakeShim *f, const char *method)
{
    for (unsigned i = 0; i < f->n_calls; i++)
        if (strcmp(f->calls[i].method, method) == 0)
            return i;
    return FAKE_CALLS_MAX;
}

static inline void on_agent_call(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    FakeShim *f = userdata;

    if (f->n_calls == FAKE_CALLS_MAX) {
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "too many calls");
        return;
    }
    f->calls[f->n_calls++] = (FakeCall){call, ttrpc_call_method(call), request};
    ttrpc_call_set_cancel(call, on_agent_cancel, f);
    if (f->agent_answers && strcmp(ttrpc_call_method(call), "WaitProcess") != 0 &&
        strcmp(ttrpc_call_method(call), "ReadStream") != 0)
        fake_reply(f, f->n_calls - 1, NULL);
}

static inline TtrpcClient *fake_connect(Loop *loop, TtrpcServer *server)
{
    TtrpcClient *client;
    int fds[2];

    fake_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0, "no sockets");
    fake_require(ttrpc_server_add_connection(server, fds[0]) >= 0, "no server");
    fake_require(ttrpc_client_new(loop, fds[1], &client) >= 0, "no client");
    return client;
}

static inline void fake_agent_start(FakeShim *f)
{
    fake_require(FAKE_AGENT->n_methods <= FAKE_METHODS_MAX, "the agent has more methods");
    for (unsigned i = 0; i < FAKE_AGENT->n_methods; i++)
        f->agent_handlers[i] = on_agent_call;
    fake_require(ttrpc_server_new(f->shim.loop, &f->agent_server) >= 0, "no server");
    fake_require(ttrpc_server_add_service(f->agent_server, NULL, FAKE_AGENT, f->agent_handlers, f) >= 0,
                 "no service");
    f->agent = fake_connect(f->shim.loop, f->agent_server);
}

/* ------------------------------------------------------------------------------------------------- events */

static inline void on_event(TtrpcCall *call, const ProtobufCMessage *message, void *userdata)
{
    const Containerd__ForwardRequest *request = (const Containerd__ForwardRequest *)message;
    Containerd__Empty empty = CONTAINERD__EMPTY__INIT;
    FakeShim *f = userdata;

    if (f->n_events < FAKE_EVENTS_MAX)
        snprintf(f->events[f->n_events++], sizeof(f->events[0]), "%s", request->envelope->topic);
    ttrpc_call_reply(call, &empty.base);
}

static inline void fake_events_start(FakeShim *f)
{
    _cleanup_free_ char *path = fs_join(f->directory, "events");
    int fd = fd_listen_unix(path, 0600);

    f->events_handlers[0] = on_event;
    fake_require(fd >= 0 && ttrpc_server_new(f->shim.loop, &f->events_server) >= 0, "no server for events");
    fake_require(ttrpc_server_add_service(f->events_server, "containerd.services.events.ttrpc.v1.Events",
                                          &containerd__events__descriptor, f->events_handlers, f) >= 0 &&
                     ttrpc_server_listen(f->events_server, fd, (uid_t)-1) >= 0,
                 "no service for events");
}

/* ------------------------------------------------------------------------------------------------ the shim
 */

/* A bundle below the directory, of kind "sandbox", "container" (in the pod) or NULL (plain). A container has
 * a file for its last words, whose contents return to the host. `process` is put into the process object:
 * ",\"terminal\":true". */
static inline void fake_bundle(FakeShim *f, const char *name, const char *kind, const char *process)
{
    _cleanup_free_ char *directory = fs_join(f->directory, name), *path = NULL, *text = NULL,
                        *annotations = NULL;
    char *shared[3];
    static const char *const namespaces[] = {"network", "net", "ipc", "ipc", "uts", "uts"};
    bool in_pod = kind && strcmp(kind, "container") == 0;

    annotations = kind ? string_printf("\"io.kubernetes.cri.container-type\":\"%s\","
                                       "\"io.kubernetes.cri.sandbox-id\":\"" FAKE_ID "\"",
                                       kind)
                       : strdup("");
    for (size_t i = 0; i < 3; i++)
        shared[i] = in_pod ? string_printf("{\"type\":\"%s\",\"path\":\"/proc/%i/ns/%s\"}", namespaces[2 * i],
                                           getpid(), namespaces[2 * i + 1])
                           : string_printf("{\"type\":\"%s\"}", namespaces[2 * i]);
    text = string_printf(
        "{\"ociVersion\":\"1.1.0\",\"annotations\":{%s},\"hostname\":\"h\","
        "\"process\":{\"args\":[\"/bin/true\"],\"cwd\":\"/\",\"env\":[\"A=b\"],\"user\":{\"uid\":0,"
        "\"gid\":0}%s},\"root\":{\"path\":\"rootfs\"},\"mounts\":[{\"destination\":\"/proc\","
        "\"type\":\"proc\",\"source\":\"proc\"}%s%s%s],\"linux\":{\"namespaces\":[{\"type\":\"pid\"},"
        "{\"type\":\"mount\"},%s,%s,%s]}}",
        annotations, process,
        in_pod ? ",{\"destination\":\"/dev/termination-log\",\"type\":\"bind\",\"source\":\"" : "",
        in_pod ? f->last_words : "", in_pod ? "\",\"options\":[\"rbind\",\"rprivate\",\"rw\"]}" : "",
        shared[0], shared[1], shared[2]);
    for (size_t i = 0; i < 3; i++)
        free(shared[i]);
    fake_require(directory && text && fs_mkdir_p(directory, 0700) >= 0, "no bundle");
    path = fs_join(directory, "config.json");
    fake_require(fs_write_file_atomic(path, text, strlen(text), 0600) >= 0, "no config.json");
}

static inline void fake_shim_start(FakeShim *f, bool with_events)
{
    Shim *s = &f->shim;
    _cleanup_free_ char *events = NULL;
    int words;

    /* In memory, since much is synced here; but the node's own /dev is nothing that a container may have. */
    snprintf(f->directory, sizeof(f->directory), "%s/fake-shim.XXXXXX",
             access("/dev/shm", W_OK) < 0 ? "/tmp" : "/dev/shm");
    fake_require(mkdtemp(f->directory), "no directory");
    snprintf(f->last_words, sizeof(f->last_words), "/tmp/fake-last-words.XXXXXX");
    words = mkostemp(f->last_words, O_CLOEXEC);
    fake_require(words >= 0, "no file for last words");
    fd_close(words);
    log_set_max_level(getenv("FAKE_LOG") ? LOG_DEBUG : -1);
    events = fs_join(f->directory, "events");
    f->spec = (ServerSpec){.namespace = "k8s.io",
                           .id = FAKE_ID,
                           .bundle = f->directory,
                           .socket = "/nowhere/socket",
                           .ttrpc_address = "/nowhere/events",
                           .starter_fd = -EBADF};
    s->spec = &f->spec;
    s->config = calloc(1, sizeof(*s->config));
    s->record = calloc(1, sizeof(*s->record));
    fake_require(s->config && s->record && events, "out of memory");
    fake_require(config_set_defaults(config_shim_fields, s->config) >= 0, "no configuration");
    fake_require(loop_new(&s->loop) >= 0, "no loop");
    if (with_events)
        fake_events_start(f);
    fake_require(events_new(s->loop, with_events ? events : "/nowhere/events", "k8s.io", &s->events) >= 0 &&
                     daemon_link_new(s->loop, s->config, "k8s.io", FAKE_ID, &s->daemon) >= 0 &&
                     ttrpc_server_new(s->loop, &s->server) >= 0 && task_register(s) >= 0,
                 "no shim");
    fake_agent_start(f);
    f->containerd = fake_connect(s->loop, s->server);
    fake_current = f;
}

static inline void fake_shim_stop(FakeShim *f)
{
    Shim *s = &f->shim;

    ttrpc_client_free(f->containerd);
    while (s->containers)
        container_free(s->containers);
    pod_free(s->pod);
    ttrpc_server_free(s->server);
    ttrpc_client_free(f->agent);
    ttrpc_server_free(f->agent_server);
    fake_require(f->n_calls == 0, "calls of the agent are left");
    daemon_link_free(s->daemon);
    events_free(s->events);
    ttrpc_server_free(f->events_server);
    loop_free(s->loop);
    record_free(s->record);
    shim_config_free(s->config);
    fake_require(fs_remove_tree(f->directory) >= 0 && unlink(f->last_words) >= 0, "files remain");
    fake_current = NULL;
}

/* Lets the loop run until nothing is ready. */
static inline void fake_settle(FakeShim *f, uint64_t usec)
{
    for (int i = 0; i < 10000 && loop_run_once(f->shim.loop, usec) > 0; i++)
        continue;
}
