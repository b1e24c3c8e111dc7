/* SPDX-License-Identifier: MIT */

#include "shim/own-daemon.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/log.h"
#include "sandbox/sandbox.h"
#include "ttrpc/ttrpc.h"

struct OwnDaemon {
    SandboxSettings settings;
    SandboxService *service;
    TtrpcServer *server;
};

static void log_line(int priority, const char *namespace, const char *sandbox_id, const char *message,
                     _unused_ void *userdata)
{
    log_full(priority, "%s/%s: %s", namespace, sandbox_id, message);
}

OwnDaemon *own_daemon_free(OwnDaemon *own)
{
    if (!own)
        return NULL;
    ttrpc_server_free(own->server);
    sandbox_service_free(own->service);
    sandbox_settings_clear(&own->settings);
    free(own);
    return NULL;
}

DEFINE_CLEANUP_FUNC(OwnDaemon *, own_daemon_free)

int own_daemon_new(Loop *loop, const ShimConfig *config, const char *namespace, const char *sandbox_id, OwnDaemon **ret,
                   Error *e)
{
    _cleanup_(own_daemon_freep) OwnDaemon *own = calloc(1, sizeof(*own));
    int r;

    if (!own)
        return error_set_errno(e, -ENOMEM, "cannot serve sandboxes");
    r = sandbox_settings_init(&own->settings, &config->vmm, config->state_dir, e);
    if (r < 0)
        return r;
    own->settings.only_namespace = namespace;
    own->settings.only_sandbox_id = sandbox_id;
    r = sandbox_service_new(loop, &own->settings, log_line, NULL, &own->service, e);
    if (r < 0)
        return r;
    r = ttrpc_server_new(loop, &own->server);
    if (r >= 0)
        r = sandbox_service_register(own->service, own->server);
    if (r < 0)
        return error_set_errno(e, r, "cannot serve sandboxes");
    *ret = TAKE_PTR(own);
    return 0;
}

int own_daemon_connect(OwnDaemon *own, Error *e)
{
    int fds[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return error_set_errno(e, -errno, "cannot make a socket pair");
    r = ttrpc_server_add_connection(own->server, fds[0]);
    if (r < 0) {
        close(fds[1]);
        return error_set_errno(e, r, "cannot serve sandboxes");
    }
    return fds[1];
}
