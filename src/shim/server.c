/* SPDX-License-Identifier: MIT */

#include "shim/server.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/process.h"
#include "base/trace.h"
#include "shim/container.h"
#include "shim/daemon-link.h"
#include "shim/pod.h"
#include "shim/shim.h"
#include "shim/task.h"

#define FLUSH_TIMEOUT_USEC (5 * USEC_PER_SEC)
/* The whole way down: releasing the VM, delivering the last events, writing the last answers. */
#define STOP_TIMEOUT_USEC (30 * USEC_PER_SEC)
/* How long the process that runs `start` may take to print the address. */
#define STARTER_TIMEOUT_MSEC 30000

typedef struct Server {
    Shim shim;
    int log_fd;
    int bundle_fd; /* inotify */
    LoopSource *bundle_watch, *terminate, *stop_timer;
    bool stopping;
} Server;

static Server *server_of(Shim *shim)
{
    return (Server *)((char *)shim - offsetof(Server, shim));
}

/* ---------------------------------------------------------------------------------------------------- end */

static void on_answers_written(_unused_ LoopSource *source, void *userdata)
{
    Server *s = userdata;

    loop_exit(s->shim.loop, 0);
}

static void on_events_flushed(_unused_ Events *events, void *userdata)
{
    Server *s = userdata;

    TRACE("shim.stop.events-flushed");
    if (ttrpc_server_flush(s->shim.server, on_answers_written, s) < 0)
        loop_exit(s->shim.loop, 0);
}

static void flush(Server *s)
{
    if (events_flush(s->shim.events, FLUSH_TIMEOUT_USEC, on_events_flushed, s) < 0)
        on_events_flushed(s->shim.events, s);
}

static void on_pod_released(Pod *pod, const Error *e, void *userdata)
{
    Server *s = userdata;

    if (e)
        log_warning("the VM is left to the daemon's own cleaning: %s", error_message(e));
    s->shim.pod = NULL;
    pod_free(pod);
    flush(s);
}

static void on_stop_timeout(_unused_ LoopSource *source, void *userdata)
{
    Server *s = userdata;

    log_warning("the shim ends though not all is done");
    loop_exit(s->shim.loop, 0);
}

void shim_stop(Shim *shim)
{
    Server *s = server_of(shim);

    if (s->stopping)
        return;
    s->stopping = true;
    log_debug("the shim ends");
    ttrpc_server_stop(shim->server);
    /* From here on a `start` makes a new shim instead of finding this one. */
    (void)unlink(shim->spec->socket);
    TRACE("shim.stop.socket-removed");
    if (loop_add_timer(shim->loop, STOP_TIMEOUT_USEC, on_stop_timeout, s, &s->stop_timer) < 0)
        log_warning("the shim ends without a limit of time");
    if (shim->pod)
        pod_release(shim->pod, on_pod_released, s);
    else
        flush(s);
}

void shim_check_idle(Shim *shim)
{
    /* Otherwise containerd says when. */
    if (!shim->containers && shim->stop_when_idle)
        shim_stop(shim);
}

void shim_pod_ended(Shim *shim, const char *reason)
{
    log_error("all tasks end: %s", reason);
    for (Container *c = shim->containers; c; c = c->next)
        container_lose(c);
}

/* The pod ends; its exits are still published. */
static void end_pod(Server *s)
{
    for (Container *c = s->shim.containers; c; c = c->next)
        container_lose(c);
    shim_stop(&s->shim);
}

/* Containerd's `delete` for our bundle, or an administrator. */
static void on_terminate(_unused_ LoopSource *source, void *userdata)
{
    log_notice("terminated by a signal");
    end_pod(userdata);
}

static void on_bundle_changed(_unused_ LoopSource *source, int fd, _unused_ uint32_t revents, void *userdata)
{
    char events[sizeof(struct inotify_event) + 256] __attribute__((aligned(8)));
    _cleanup_free_ char *config = NULL;
    Server *s = userdata;

    while (read(fd, events, sizeof(events)) > 0)
        ;
    config = fs_join(s->shim.spec->bundle, "config.json");
    if (!config || access(config, F_OK) >= 0 || errno != ENOENT)
        return;
    s->bundle_watch = loop_source_free(s->bundle_watch);
    s->bundle_fd = fd_close(s->bundle_fd);
    log_debug("the bundle is gone");
    end_pod(s);
}

/* ------------------------------------------------------------------------------------------------- set-up */

static void open_log(Server *s)
{
    char tag[128];

    /* Both ends, so that a restart of containerd does no harm. Without the FIFO there is nowhere to log to. */
    s->log_fd = open("log", O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (s->log_fd < 0)
        s->log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    snprintf(tag, sizeof(tag), "cloudhv %s/%.40s", s->shim.spec->namespace, s->shim.spec->id);
    log_setup(s->log_fd, s->shim.spec->debug ? LOG_DEBUG : LOG_INFO, false, tag);
}

/* The configuration's level holds, unless containerd debugs. */
static int load_config(Server *s, Error *e)
{
    int r = shim_config_load(&s->shim.config, e);

    if (r >= 0 && !s->shim.spec->debug)
        log_set_max_level(config_log_priority(s->shim.config->log_level));
    return r;
}

static int write_record(Server *s, Error *e)
{
    const ServerSpec *spec = s->shim.spec;
    Record *record = calloc(1, sizeof(*record));
    int r;

    s->shim.record = record;
    if (!record)
        return error_set_errno(e, -ENOMEM, "cannot start");
    record->pid = getpid();
    r = process_start_time(record->pid, &record->start_time);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the start time of this process");
    record->socket = strdup(spec->socket);
    record->daemon_socket = strdup(s->shim.config->daemon_socket);
    record->state_dir = strdup(s->shim.config->state_dir);
    if (!record->socket || !record->daemon_socket || !record->state_dir)
        return error_set_errno(e, -ENOMEM, "cannot start");
    return record_write(record, spec->bundle, e);
}

static int watch_bundle(Server *s, Error *e)
{
    int r;

    s->bundle_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (s->bundle_fd < 0 || inotify_add_watch(s->bundle_fd, s->shim.spec->bundle, IN_MOVE_SELF | IN_DELETE) < 0)
        return error_set_errno(e, -errno, "cannot watch the bundle %s", s->shim.spec->bundle);
    r = loop_add_io(s->shim.loop, s->bundle_fd, EPOLLIN, on_bundle_changed, s, &s->bundle_watch);
    return r < 0 ? error_set_errno(e, r, "cannot watch the bundle %s", s->shim.spec->bundle) : 0;
}

static int listen_for_containerd(Server *s, Error *e)
{
    const char *path = s->shim.spec->socket;
    _cleanup_free_ char *directory = strdup(path);
    int fd, r;

    if (!directory)
        return error_set_errno(e, -ENOMEM, "cannot listen on %s", path);
    *strrchr(directory, '/') = 0;
    r = fs_mkdir_p(directory, 0700);
    if (r < 0)
        return error_set_errno(e, r, "cannot make the directory %s for sockets", directory);
    TRACE("shim.start.to-be-bound");
    fd = fd_listen_unix(path, 0600);
    if (fd < 0)
        return error_set_errno(e, fd, "cannot listen on %s", path);
    TRACE("shim.start.bound");
    r = ttrpc_server_listen(s->shim.server, fd, 0);
    return r < 0 ? error_set_errno(e, r, "cannot serve %s", path) : 0;
}

static int server_init(Server *s, Error *e)
{
    Shim *shim = &s->shim;
    int r;

    r = load_config(s, e);
    if (r >= 0)
        r = write_record(s, e);
    if (r < 0)
        return r;
    TRACE("shim.start.recorded");
    r = loop_new(&shim->loop);
    if (r >= 0)
        r = events_new(shim->loop, shim->spec->ttrpc_address, shim->spec->namespace, &shim->events);
    if (r >= 0)
        r = daemon_link_new(shim->loop, shim->config, shim->spec->namespace, shim->spec->id, &shim->daemon);
    if (r >= 0)
        r = ttrpc_server_new(shim->loop, &shim->server);
    if (r >= 0)
        r = task_register(shim);
    if (r >= 0)
        r = loop_add_signal(shim->loop, SIGTERM, on_terminate, s, &s->terminate);
    if (r < 0)
        return error_set_errno(e, r, "cannot start");
    r = watch_bundle(s, e);
    return r < 0 ? r : listen_for_containerd(s, e);
}

static void server_clear(Server *s)
{
    Shim *shim = &s->shim;

    /* Their calls are answered first, while there is a server to answer them. */
    while (shim->containers)
        container_free(shim->containers);
    pod_free(shim->pod);
    ttrpc_server_free(shim->server);
    daemon_link_free(shim->daemon);
    events_free(shim->events);
    loop_source_free(s->bundle_watch);
    loop_source_free(s->terminate);
    loop_source_free(s->stop_timer);
    loop_free(shim->loop);
    fd_close(s->bundle_fd);
    record_free(shim->record);
    shim_config_free(shim->config);
}

/* Tells the starter that the shim listens, and waits for its word that containerd knows the address. */
static int await_starter(int fd)
{
    struct timeval timeout = {.tv_sec = STARTER_TIMEOUT_MSEC / 1000};
    char word = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    if (send(fd, "", 1, MSG_NOSIGNAL) != 1)
        return -EPIPE;
    return recv(fd, &word, 1, 0) == 1 && word == 0 ? 0 : -ECONNRESET;
}

/* What a shim keeps for its pod's life is counted in kilobytes: no page stays with the allocator for later. */
static void trim_memory(void)
{
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_TRIM_THRESHOLD, 64 * 1024);
    (void)mallopt(M_TOP_PAD, 0);
    (void)mallopt(M_MMAP_THRESHOLD, 64 * 1024);
    (void)malloc_trim(0);
}

int server_run(const ServerSpec *spec)
{
    Server s = {.shim.spec = spec, .log_fd = -EBADF, .bundle_fd = -EBADF};
    _cleanup_error_ Error e = ERROR_INIT;
    int r;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_NAME, "cloudhv-shim");
    trim_memory();
    open_log(&s);
    r = server_init(&s, &e);
    if (r < 0) {
        (void)fd_write_full(spec->starter_fd, error_message(&e), strlen(error_message(&e)));
    } else {
        r = await_starter(spec->starter_fd);
        if (r < 0)
            log_error("the process that runs \"start\" has ended too early");
    }
    (void)fd_close(spec->starter_fd);
    if (r >= 0) {
        TRACE("shim.start.serving");
        (void)malloc_trim(0);
        r = loop_run(s.shim.loop);
    }
    (void)unlink(spec->socket);
    server_clear(&s);
    log_debug("the shim has ended");
    fd_close(s.log_fd);
    return r;
}
