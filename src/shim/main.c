/* SPDX-License-Identifier: MIT */

/* containerd-shim-cloudhv-v1: containerd runs it once for each pod. What it prints is read by containerd, so
 * messages go to standard error only for `delete` and for errors that end it. */

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "shim/delete.h"
#include "shim/info.h"
#include "shim/options.h"
#include "shim/start.h"

static int run(const ShimOptions *o, Error *e)
{
    if (o->version)
        return info_print_version();
    if (o->info)
        return info_print(e);
    if (strcmp(o->action, "delete") == 0)
        return delete_run(o, e);
    return start_run(o, e);
}

int main(int argc, char **argv)
{
    _cleanup_error_ Error e = ERROR_INIT;
    ShimOptions options;
    int null_fd;

    umask(0022);
    (void)signal(SIGPIPE, SIG_IGN);
    if (shim_options_parse(argc, argv, &options, &e) < 0) {
        fprintf(stderr, "%s\n", error_message(&e));
        return EXIT_FAILURE;
    }
    /* containerd takes what `start` prints on either stream for the address. */
    if (options.action && strcmp(options.action, "start") == 0) {
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        log_setup(null_fd, options.debug ? LOG_DEBUG : LOG_WARNING, false, NULL);
    } else {
        log_setup(STDERR_FILENO, LOG_WARNING, false, NULL);
    }
    if (run(&options, &e) < 0) {
        fprintf(stderr, "%s\n", error_message(&e));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
