/* SPDX-License-Identifier: MIT */

/* cloudhv-sandbox-daemon: owns the VMs of all pods of a node. Started by its socket (or by hand), it serves
 * cloudhv.daemon.v1.Sandboxes to root. VMs outlive it; the next one takes them over. */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "base/fd.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/trace.h"
#include "config/config.h"
#include "config/sizing.h"
#include "sandbox/sandbox.h"
#include "ttrpc/ttrpc.h"

#define STOP_TIMEOUT_USEC (5 * USEC_PER_SEC)

typedef struct Daemon {
    Loop *loop;
    DaemonConfig *config;
    SandboxSettings settings;
    SandboxService *service;
    TtrpcServer *server;
    LoopSource *sigterm, *sigint, *stopping;
} Daemon;

static void log_line(int priority, const char *namespace, const char *sandbox_id, const char *message,
                     void *userdata)
{
    log_full(priority, "%s%s%s: %s", namespace, *namespace ? "/" : "", sandbox_id, message);
}

static void on_stopped(void *userdata)
{
    Daemon *d = userdata;

    loop_exit(d->loop, 0);
}

static void on_deadline(LoopSource *source, void *userdata)
{
    on_stopped(userdata);
}

/* Pods go on. VMs that belong to none would be nobody's if no other daemon follows; one that does clones them
 * anew. What does not end in time is that one's to take over. */
static void on_terminate(LoopSource *source, void *userdata)
{
    Daemon *d = userdata;

    (void)sd_notify(0, "STOPPING=1");
    if (d->stopping || sandbox_service_stop(d->service, on_stopped, d) == 0 ||
        loop_add_timer(d->loop, STOP_TIMEOUT_USEC, on_deadline, d, &d->stopping) < 0)
        loop_exit(d->loop, 0);
}

/* The socket that systemd passes, or else one of our own. */
static int open_socket(const char *path, Error *e)
{
    int n = sd_listen_fds(1), fd;

    if (n < 0)
        return error_set_errno(e, n, "cannot take over the sockets passed by systemd");
    if (n > 1)
        return error_set(e, -EINVAL, "systemd passed %i sockets, one is expected", n);
    if (n == 1) {
        int r = sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_STREAM, 1);

        if (r <= 0)
            return error_set(e, r < 0 ? r : -EINVAL,
                             "what systemd passed is no listening Unix stream socket");
        r = fd_set_nonblock(SD_LISTEN_FDS_START, true);
        return r < 0 ? error_set_errno(e, r, "cannot use the passed socket") : SD_LISTEN_FDS_START;
    }
    {
        _cleanup_free_ char *parent = strdup(path);
        char *slash = parent ? strrchr(parent, '/') : NULL;
        int r = 0;

        if (!slash)
            return error_set_errno(e, -ENOMEM, "cannot listen on %s", path);
        *slash = 0;
        if (parent[0])
            r = fs_mkdir_p(parent, 0711);
        if (r < 0)
            return error_set_errno(e, r, "cannot make the directory %s of the socket", parent);
    }
    fd = fd_listen_unix(path, 0600);
    return fd < 0 ? error_set_errno(e, fd, "cannot listen on %s", path) : fd;
}

/* Each VM takes a handful of descriptors, and so do its disks while they are attached. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The pool has VMs of the size that a pod without limits gets. */
static void use_clones(Daemon *d)
{
    const DaemonConfig *c = d->config;
    uint64_t vcpus = c->vmm.max_default_vcpus ?: sizing_host_cpus();

    if (!c->templates)
        return;
    vcpus = vcpus < c->vmm.default_vcpus ? c->vmm.default_vcpus : vcpus;
    sandbox_settings_use_clones(
        &d->settings, &(SandboxCloneSettings){
                          .templates_dir = c->templates_dir,
                          .max_templates = c->max_templates,
                          .templates_max_mb = c->templates_max_mb,
                          .pool_size = (unsigned)c->pool_size,
                          .max_pool_size = (unsigned)c->max_pool_size,
                          .pool_vcpus = (unsigned)(vcpus > CONFIG_VCPUS_MAX ? CONFIG_VCPUS_MAX : vcpus),
                          .pool_idle_usec = c->pool_idle_timeout_secs * USEC_PER_SEC,
                          .pool_reserve_mb = c->pool_reserve_mb,
                      });
}

static int daemon_start(Daemon *d, const char *file, Error *e)
{
    int fd, r;

    r = daemon_config_load(file, &d->config, e);
    if (r < 0)
        return r;
    log_set_max_level(config_log_priority(d->config->log_level));
    r = sandbox_settings_init(&d->settings, &d->config->vmm, d->config->state_dir, e);
    if (r < 0)
        return r;
    use_clones(d);
    if (d->settings.no_vmm_reason)
        log_error("%s", d->settings.no_vmm_reason);
    else if (d->settings.emulate)
        log_warning("VMs are emulated, which is slow and no security boundary: %s",
                    d->settings.no_kvm_reason);
    r = loop_new(&d->loop);
    if (r < 0)
        return error_set_errno(e, r, "cannot make an event loop");
    if ((r = loop_add_signal(d->loop, SIGTERM, on_terminate, d, &d->sigterm)) < 0 ||
        (r = loop_add_signal(d->loop, SIGINT, on_terminate, d, &d->sigint)) < 0)
        return error_set_errno(e, r, "cannot handle signals");
    r = sandbox_service_new(d->loop, &d->settings, log_line, d, &d->service, e);
    if (r < 0)
        return r;
    TRACE("daemon.start.sandboxes-adopted");
    r = ttrpc_server_new(d->loop, &d->server);
    if (r >= 0)
        r = sandbox_service_register(d->service, d->server);
    if (r < 0)
        return error_set_errno(e, r, "cannot make a server");
    fd = open_socket(d->config->socket_path, e);
    if (fd < 0)
        return fd;
    r = ttrpc_server_listen(d->server, fd, 0);
    if (r < 0)
        return error_set_errno(e, r, "cannot serve %s", d->config->socket_path);
    return 0;
}

static void daemon_clear(Daemon *d)
{
    ttrpc_server_free(d->server);
    sandbox_service_free(d->service);
    loop_source_free(d->sigterm);
    loop_source_free(d->sigint);
    loop_source_free(d->stopping);
    loop_free(d->loop);
    sandbox_settings_clear(&d->settings);
    daemon_config_free(d->config);
}
#define _cleanup_daemon_ _cleanup_(daemon_clear)

static void usage(FILE *to)
{
    fputs("Usage: cloudhv-sandbox-daemon [OPTION] [FILE]\n"
          "Owns the microVMs of this node's pods. FILE is a configuration to be read instead of the layered "
          "daemon.json.\n"
          "\n"
          "  -h, --help     print this and exit\n"
          "  -V, --version  print the version and exit\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
    _cleanup_daemon_ Daemon d = {0};
    _cleanup_error_ Error e = ERROR_INIT;
    int c;

    while ((c = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
        switch (c) {
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        case 'V':
            puts("cloudhv-sandbox-daemon " CLOUDHV_VERSION);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return EXIT_FAILURE;
        }
    }
    if (argc - optind > 1) {
        usage(stderr);
        return EXIT_FAILURE;
    }
    log_setup(STDERR_FILENO, LOG_INFO, getenv("JOURNAL_STREAM") != NULL, NULL);
    umask(0022);
    /* Nobody may read our memory, in which identities of VMs pass. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    raise_descriptor_limit();
    (void)signal(SIGPIPE, SIG_IGN);
    if (daemon_start(&d, argv[optind], &e) < 0) {
        log_error("%s", error_message(&e));
        (void)sd_notifyf(0, "STATUS=%s\nERRNO=%i", error_message(&e), -e.number);
        return EXIT_FAILURE;
    }
    (void)sd_notifyf(0, "READY=1\nSTATUS=%zu sandboxes taken over", sandbox_service_count(d.service));
    log_info("cloudhv-sandbox-daemon %s: %s, serving %s", CLOUDHV_VERSION,
             d.settings.driver ? vmm_driver_name(d.settings.driver) : d.config->vmm.vmm,
             d.config->socket_path);
    return loop_run(d.loop) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
