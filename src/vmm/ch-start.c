/* SPDX-License-Identifier: MIT */

/* Cloud Hypervisor: how it is started, and found again. It gets no command line but descriptors; the VM is described
 * over its API. Its API socket and pipes are made here: they exist when it is started, and nothing is awaited. */

#include "vmm/ch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/process.h"
#include "vmm/ch-requests.h"
#include "vmm/ch-template.h"
#include "vmm/jail.h"
#include "vmm/stderr-file.h"

/* In the VM's directory. */
#define API_NAME "api.sock"
#define CHANNEL_NAME "agent.sock"
#define CONSOLE_NAME "console"
#define EVENTS_NAME "events"

/* Disks, queues, vCPUs and the agent's connections; Cloud Hypervisor enlarges its table to as many at once. */
#define FDS_MAX 1024

typedef struct Start {
    int api_fd, console_fd, events_fd; /* the VMM's ends */
    char *sockets;                     /* directory */
    Jail jail;
} Start;

static void start_clear(Start *s)
{
    fd_close(s->api_fd);
    fd_close(s->console_fd);
    fd_close(s->events_fd);
    free(s->sockets);
}

void ch_init(Vmm *vmm)
{
    ch_of(vmm)->stderr_fd = ch_of(vmm)->events_fd = ch_of(vmm)->ready_fd = -EBADF;
    for (size_t i = 0; i < CH_RENEWALS; i++)
        ch_of(vmm)->renewals[i].fd = -EBADF;
}

static int out_of_memory(Error *e)
{
    return error_set_errno(e, -ENOMEM, "cannot make a VM");
}

/* A named pipe: its reader comes back after a restart. Gives the reading end. */
static int open_pipe(Ch *ch, const char *name, int *ret_fd, Error *e)
{
    _cleanup_free_ char *path = fs_join(ch->vmm.directory, name);

    if (!path)
        return out_of_memory(e);
    *ret_fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (*ret_fd < 0)
        return error_set_errno(e, -errno, "cannot read from %s", path);
    return 0;
}

static int make_pipe(Ch *ch, const char *name, int flags, int *ret_ours, int *ret_theirs, Error *e)
{
    _cleanup_free_ char *path = fs_join(ch->vmm.directory, name);
    int r;

    if (!path)
        return out_of_memory(e);
    if (mkfifo(path, 0600) < 0)
        return error_set_errno(e, -errno, "cannot make the pipe %s", path);
    r = open_pipe(ch, name, ret_ours, e);
    if (r < 0)
        return r;
    *ret_theirs = open(path, flags | O_NONBLOCK | O_CLOEXEC);
    return *ret_theirs < 0 ? error_set_errno(e, -errno, "cannot write to %s", path) : 0;
}

static void on_events(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    Ch *ch = userdata;

    vmm_enter(&ch->vmm);
    ch_read_events(ch);
    vmm_leave(&ch->vmm);
}

static void on_closed(ChClient *client, const Error *e, void *userdata)
{
    Ch *ch = userdata;

    /* The rule is that the VMM ends, which says more than this. If it does not, the deadlines do. But one that speaks
     * nonsense is not waited for. */
    if (e->number != -ECONNRESET)
        vmm_boot_failed(&ch->vmm, e);
}

static int read_console(Ch *ch, int fd, Error *e)
{
    int r = console_new(ch->vmm.loop, fd, &ch->console);

    return r < 0 ? error_set_errno(e, r, "cannot read the console") : 0;
}

static int watch_events(Ch *ch, Error *e)
{
    int r = loop_add_io(ch->vmm.loop, ch->events_fd, EPOLLIN, on_events, ch, &ch->events_io);

    return r < 0 ? error_set_errno(e, r, "cannot watch events") : 0;
}

static int connect_api(Ch *ch, Error *e)
{
    _cleanup_free_ char *path = fs_join(ch->vmm.directory, API_NAME);
    int fd = path ? fd_connect_unix(path) : -ENOMEM, r;

    if (fd < 0)
        return error_set_errno(e, fd, "cannot connect to %s in %s", API_NAME, ch->vmm.directory);
    r = ch_client_new(ch->vmm.loop, fd, on_closed, ch, &ch->client);
    return r < 0 ? error_set_errno(e, r, "cannot make a connection to Cloud Hypervisor") : 0;
}

/* Boot */

static void booted_when_ready(Ch *ch)
{
    if (ch->vm_runs && ch->agent_listens)
        vmm_booted(&ch->vmm);
}

static void on_channel_renewed(Ch *ch)
{
    ch->agent_listens = true;
    booted_when_ready(ch);
}

static void stop_waiting(Ch *ch)
{
    ch->ready_io = loop_source_free(ch->ready_io);
    ch->ready_fd = fd_close(ch->ready_fd);
}

/* The agent says that it listens: from then on a connection to it does not come too early. */
static void on_ready(LoopSource *source, int fd, uint32_t revents, void *userdata)
{
    int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    Ch *ch = userdata;

    if (connection < 0)
        return;
    close(connection);
    stop_waiting(ch);
    ch->agent_listens = true;
    vmm_enter(&ch->vmm);
    booted_when_ready(ch);
    vmm_leave(&ch->vmm);
}

static void on_step(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    Ch *ch = userdata;

    /* A lost connection: see on_closed(). */
    if (e && e->number != -ECONNRESET)
        vmm_boot_failed(&ch->vmm, e);
}

static void on_version(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error wrong = ERROR_INIT;
    const char *version = NULL;
    unsigned major = 0;
    Ch *ch = userdata;

    if (!e && (json_get_string(value, "version", "vmm.ping", &version, NULL) <= 0 ||
               ch_parse_version(version, &major) < 0))
        (void)error_set(&wrong, -EBADMSG, "Cloud Hypervisor does not tell its version");
    else if (!e && major < CH_VERSION_MIN)
        (void)error_set(&wrong, -EOPNOTSUPP, "Cloud Hypervisor %.32s is too old: %i or later is needed", version,
                        CH_VERSION_MIN);
    ch->version = major;
    on_step(client, value, wrong.number ? &wrong : e, ch);
}

static void on_running(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error failed = ERROR_INIT;
    Ch *ch = userdata;

    if (e && e->number == -EREMOTEIO && ch->clone) {
        (void)error_set(&failed, -ESTALE, "the template is of no use: %s", error_message(e));
        on_step(client, value, &failed, ch);
        return;
    }
    if (e) {
        on_step(client, value, e, ch);
        return;
    }
    ch->vm_runs = true;
    if (ch_channel_secure(ch, &failed) < 0 || (ch->clone && ch_channel_renew(ch, on_channel_renewed, &failed) < 0)) {
        vmm_boot_failed(&ch->vmm, &failed);
        return;
    }
    booted_when_ready(ch);
}

static int ask_for_vm(Ch *ch, const VmmSpec *spec, bool clone)
{
    int r;

    r = ch_client_get(ch->client, "vmm.ping", UINT64_MAX, on_version, ch);
    if (r < 0)
        return r;
    if (clone)
        return ch_put(ch, "vm.restore", ch_restore_config(), -EBADF, on_running, ch);
    r = ch_put(ch, "vm.create", ch_vm_config(spec), -EBADF, on_step, ch);
    for (size_t i = 0; r >= 0 && i < spec->n_nics; i++) {
        char id[32];

        snprintf(id, sizeof(id), "nic%zu", i);
        r = ch_put(ch, "vm.add-net", ch_net_config(id, spec->nics[i].mac), spec->nics[i].tap_fd, on_step, ch);
    }
    return r < 0 ? r : ch_put(ch, "vm.boot", NULL, -EBADF, on_running, ch);
}

/* Where the VMM makes its socket, and the agent's word that it listens arrives. A clone listens already. */
static int make_sockets(Ch *ch, const VmmSpec *spec, bool clone, Start *s, Error *e)
{
    _cleanup_free_ char *api = fs_join(ch->vmm.directory, API_NAME), *ready = NULL;

    s->sockets = fs_join(ch->vmm.directory, CH_SOCKETS_NAME);
    ready = string_printf("%s/%s/%s_%i", ch->vmm.directory, CH_SOCKETS_NAME, CH_VSOCK, CH_PORT_READY);
    if (!api || !s->sockets || !ready)
        return out_of_memory(e);
    s->api_fd = fd_listen_unix(api, 0600);
    if (s->api_fd < 0)
        return error_set_errno(e, s->api_fd, "cannot make the socket %s", api);
    if (mkdir(s->sockets, 0700) < 0 || chown(s->sockets, spec->uid, spec->gid) < 0)
        return error_set_errno(e, -errno, "cannot make the directory %s", s->sockets);
    ch->clone = clone;
    if (clone)
        return 0;
    ch->ready_fd = fd_listen_unix(ready, 0666);
    if (ch->ready_fd < 0)
        return error_set_errno(e, ch->ready_fd, "cannot make the socket %s", ready);
    return loop_add_io(ch->vmm.loop, ch->ready_fd, EPOLLIN, on_ready, ch, &ch->ready_io);
}

static int fill_jail(const VmmSpec *spec, const char *template_directory, Start *s, Error *e)
{
    const char *template = spec->template_directory ?: template_directory;
    int r;

    r = jail_init(&s->jail, spec->uid, spec->gid, e);
    s->jail.plugs = CH_DISKS;
    s->jail.max_fds = FDS_MAX;
    if (r >= 0 && strchr(spec->binary, '/'))
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->binary}, e);
    if (r >= 0)
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->kernel, .target = CH_KERNEL}, e);
    if (r >= 0)
        r = jail_add_file(&s->jail, &(JailFile){.source = spec->rootfs, .target = CH_ROOTFS}, e);
    if (r >= 0)
        r = jail_add_file(&s->jail, &(JailFile){.source = s->sockets, .target = CH_SOCKETS, .writable = true}, e);
    if (r >= 0 && template)
        r = jail_add_file(&s->jail,
                          &(JailFile){.source = template,
                                      .target = CH_TEMPLATE,
                                      .writable = spec->template_directory != NULL},
                          e);
    if (r >= 0)
        r = jail_add_device(&s->jail, "/dev/kvm", e);
    if (r >= 0)
        r = jail_add_device(&s->jail, "/dev/urandom", e);
    return r;
}

static int check_files(const VmmSpec *spec, Error *e)
{
    if (access(spec->kernel, R_OK) < 0)
        return error_set_errno(e, -errno, "cannot open the guest kernel %s", spec->kernel);
    if (access(spec->rootfs, R_OK) < 0)
        return error_set_errno(e, -errno, "cannot open the guest's root file system %s", spec->rootfs);
    if (strchr(spec->binary, '/') && access(spec->binary, X_OK) < 0)
        return error_set_errno(e, -errno, "cannot execute %s", spec->binary);
    return 0;
}

static int prepare(Ch *ch, const VmmSpec *spec, const char *template_directory, Start *s, Error *e)
{
    int console = -EBADF, r;

    r = ch_check_spec(spec, e);
    if (r >= 0)
        r = check_files(spec, e);
    if (r < 0)
        return r;
    if ((template_directory || spec->template_directory) && spec->n_nics > 0)
        return error_set(e, -EINVAL, "neither a template nor a clone can be started with network interfaces");
    if (template_directory) {
        r = ch_template_check(template_directory, spec, e);
        if (r < 0)
            return r;
    }
    ch->uid = spec->uid;
    ch->gid = spec->gid;
    ch->channel = fs_join(ch->vmm.directory, CHANNEL_NAME);
    if (!ch->channel)
        return out_of_memory(e);
    r = make_sockets(ch, spec, template_directory, s, e);
    if (r >= 0)
        r = make_pipe(ch, CONSOLE_NAME, O_WRONLY, &console, &s->console_fd, e);
    if (r >= 0)
        r = read_console(ch, TAKE_FD(console), e);
    fd_close(console);
    /* The VMM can read from this one, too: then what happens while we are away is kept for us. */
    if (r >= 0)
        r = make_pipe(ch, EVENTS_NAME, O_RDWR, &ch->events_fd, &s->events_fd, e);
    if (r >= 0)
        r = watch_events(ch, e);
    if (r >= 0)
        r = fill_jail(spec, template_directory, s, e);
    if (r < 0)
        return r;
    ch->stderr_fd = stderr_file_new();
    return ch->stderr_fd < 0 ? error_set_errno(e, ch->stderr_fd, "cannot make a memory file") : 0;
}

static int spawn(Ch *ch, const VmmSpec *spec, Start *s, Error *e)
{
    int pass[] = {s->api_fd, s->events_fd}, pidfd, r;
    char api[32], events[32];
    const char *argv[] = {spec->binary, "--api-socket", api, "--event-monitor", events, NULL};
    pid_t pid;

    snprintf(api, sizeof(api), "fd=%i", s->api_fd);
    snprintf(events, sizeof(events), "fd=%i", s->events_fd);
    r = process_spawn(&(ProcessSpec){.argv = argv,
                                     .stdin_fd = -EBADF,
                                     .stdout_fd = s->console_fd,
                                     .stderr_fd = ch->stderr_fd,
                                     .pass_fds = pass,
                                     .n_pass_fds = ELEMENTSOF(pass),
                                     .prepare = jail_enter,
                                     .userdata = &s->jail},
                      &pid, &pidfd, e);
    if (r < 0) {
        _cleanup_free_ char *said = stderr_file_tail(ch->stderr_fd, 1024);

        if (said && *said)
            (void)error_prefix(e, "%s", said);
        return r;
    }
    return vmm_process_started(&ch->vmm, pid, pidfd, e);
}

int ch_boot(Vmm *vmm, const VmmSpec *spec, const char *template_directory, Error *e)
{
    _cleanup_(start_clear) Start s = {.api_fd = -EBADF, .console_fd = -EBADF, .events_fd = -EBADF};
    Ch *ch = ch_of(vmm);
    int r;

    r = prepare(ch, spec, template_directory, &s, e);
    if (r >= 0 && spec->template_directory)
        r = ch_template_begin(ch, spec, e);
    if (r >= 0)
        r = spawn(ch, spec, &s, e);
    if (r >= 0)
        r = connect_api(ch, e);
    if (r < 0)
        return r;
    r = ask_for_vm(ch, spec, template_directory);
    return r < 0 ? error_set_errno(e, r, "cannot talk to Cloud Hypervisor") : 0;
}

/* Restart of the owner */

int ch_serialize(Vmm *vmm, json_t *state)
{
    const Ch *ch = ch_of(vmm);

    return json_object_set_new(state, "uid", json_integer((json_int_t)ch->uid)) < 0 ||
                   json_object_set_new(state, "gid", json_integer((json_int_t)ch->gid)) < 0
               ? -ENOMEM
               : 0;
}

static void on_info(ChClient *client, json_t *value, const Error *e, void *userdata)
{
    _cleanup_error_ Error wrong = ERROR_INIT;
    const char *state = NULL;
    Ch *ch = userdata;

    if (e) {
        on_step(client, value, e, ch);
        return;
    }
    if (json_get_string(value, "state", "vm.info", &state, NULL) <= 0 ||
        (strcmp(state, "Running") != 0 && strcmp(state, "Paused") != 0))
        (void)error_set(&wrong, -EIO, "Cloud Hypervisor does not run the VM, its state is \"%.64s\"",
                        state ?: "unknown");
    else
        (void)ch_devices_discover(ch, value, &wrong);
    if (wrong.number)
        vmm_boot_failed(&ch->vmm, &wrong);
    else
        vmm_booted(&ch->vmm);
}

int ch_adopt(Vmm *vmm, json_t *state, Error *e)
{
    uint64_t uid = 0, gid = 0;
    Ch *ch = ch_of(vmm);
    int console, r;

    r = json_get_uint(state, "uid", "state of a VM", 1, UINT32_MAX - 1, &uid, e);
    if (r >= 0)
        r = json_get_uint(state, "gid", "state of a VM", 1, UINT32_MAX - 1, &gid, e);
    if (r < 0)
        return r;
    if (uid == 0 || gid == 0)
        return error_set(e, -EINVAL, "state of a VM: uid or gid is missing");
    ch->uid = (uid_t)uid;
    ch->gid = (gid_t)gid;
    ch->channel = fs_join(vmm->directory, CHANNEL_NAME);
    if (!ch->channel)
        return out_of_memory(e);
    r = open_pipe(ch, CONSOLE_NAME, &console, e);
    if (r >= 0)
        r = read_console(ch, console, e);
    if (r >= 0)
        r = open_pipe(ch, EVENTS_NAME, &ch->events_fd, e);
    if (r >= 0)
        r = watch_events(ch, e);
    if (r >= 0)
        r = connect_api(ch, e);
    if (r < 0)
        return r;
    ch->stderr_fd = stderr_file_open(vmm->pid);
    r = ch_client_get(ch->client, "vm.info", UINT64_MAX, on_info, ch);
    return r < 0 ? error_set_errno(e, r, "cannot talk to Cloud Hypervisor") : 0;
}
