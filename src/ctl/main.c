/* SPDX-License-Identifier: MIT */

/* cloudhvctl: what an operator asks of cloudhv on this host. */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/check.h"
#include "ctl/daemon-status.h"

#define CONTAINERD_SOCKET "/run/containerd/containerd.sock"
#define STATUS_TIMEOUT_USEC (30 * USEC_PER_SEC)

typedef struct Options {
    bool json;
    const char *containerd;
    const char *socket; /* of the daemon; NULL: as the configuration says */
} Options;

static int verb_check(const Options *options)
{
    _cleanup_report_ Report *report = NULL;
    int r;

    if (geteuid() != 0) {
        fputs("cloudhvctl: check has to be run as root\n", stderr);
        return EXIT_FAILURE;
    }
    r = check_all(options->containerd, &report);
    if (r >= 0)
        r = options->json ? report_print_json(report, stdout) : report_print(report, stdout);
    if (r < 0) {
        fprintf(stderr, "cloudhvctl: cannot print what was found: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    return report_ok(report) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int get_status(const Options *options, DaemonStatus **ret, Error *e)
{
    _cleanup_daemon_config_ DaemonConfig *config = NULL;
    int r;

    if (options->socket)
        return daemon_status_get(options->socket, STATUS_TIMEOUT_USEC, ret, e);
    r = daemon_config_load(NULL, &config, e);
    return r < 0 ? r : daemon_status_get(config->socket_path, STATUS_TIMEOUT_USEC, ret, e);
}

static int verb_status(const Options *options)
{
    _cleanup_daemon_status_ DaemonStatus *status = NULL;
    _cleanup_error_ Error e = ERROR_INIT;
    struct timespec now;
    int r;

    if (get_status(options, &status, &e) < 0) {
        fprintf(stderr, "cloudhvctl: %s\n", error_message(&e));
        return EXIT_FAILURE;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    r = options->json
            ? daemon_status_print_json(status, stdout)
            : daemon_status_print(status,
                                  (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / NSEC_PER_USEC,
                                  stdout);
    if (r < 0) {
        fprintf(stderr, "cloudhvctl: cannot print the status: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static const struct {
    const char *name;
    int (*run)(const Options *options);
} verbs[] = {
    {"check", verb_check},
    {"status", verb_status},
};

static void usage(FILE *to)
{
    fputs("Usage: cloudhvctl [OPTION] VERB\n"
          "\n"
          "  check    say line by line what this host has and lacks to run pods in microVMs, and what to do\n"
          "  status   show the sandbox daemon and its VMs\n"
          "\n"
          "  -j, --json             print JSON\n"
          "      --containerd PATH  containerd's socket (" CONTAINERD_SOCKET ")\n"
          "      --socket PATH      the daemon's socket (as daemon.json says); for status\n"
          "  -h, --help             print this and exit\n"
          "  -V, --version          print the version and exit\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'},         {"containerd", required_argument, NULL, 'C'},
        {"socket", required_argument, NULL, 'S'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {0}};
    const char *address = getenv("CONTAINERD_ADDRESS");
    Options options = {.containerd = address && *address ? address : CONTAINERD_SOCKET};
    int c;

    while ((c = getopt_long(argc, argv, "jhV", long_options, NULL)) >= 0) {
        switch (c) {
        case 'j':
            options.json = true;
            break;
        case 'C':
            options.containerd = optarg;
            break;
        case 'S':
            options.socket = optarg;
            break;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        case 'V':
            puts("cloudhvctl " CLOUDHV_VERSION);
            return EXIT_SUCCESS;
        default:
            usage(stderr);
            return EXIT_FAILURE;
        }
    }
    if (argc - optind != 1) {
        fputs(argc == optind ? "cloudhvctl: a verb is missing\n" : "cloudhvctl: one verb is expected\n",
              stderr);
        usage(stderr);
        return EXIT_FAILURE;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
        if (strcmp(verbs[i].name, argv[optind]) == 0)
            return verbs[i].run(&options);
    fprintf(stderr, "cloudhvctl: unknown verb \"%s\"; there are check and status\n", argv[optind]);
    return EXIT_FAILURE;
}
