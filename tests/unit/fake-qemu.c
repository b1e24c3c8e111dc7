/* SPDX-License-Identifier: MIT */

/* As much of a QEMU as the driver talks to when it saves a template and starts a clone: the QMP socket that it
 * was handed, and the words of its own name that say what goes wrong. The state of its VM is the line "state". */

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char state[] = "state\n";
static const char *scenario = "";
static int qmp_fd = -1, state_fd = -1;
static bool paused;

static bool scenario_is(const char *name)
{
    return strcmp(scenario, name) == 0;
}

static void say(const char *line)
{
    if (write(qmp_fd, line, strlen(line)) < 0 || write(qmp_fd, "\r\n", 2) < 0)
        exit(3);
}

static void say_migration(const char *status)
{
    char line[128];

    snprintf(line, sizeof(line), "{\"event\":\"MIGRATION\",\"timestamp\":{},\"data\":{\"status\":\"%s\"}}", status);
    say(line);
}

static void reply(unsigned long id, const char *value)
{
    char line[512];

    snprintf(line, sizeof(line), "{\"id\":%lu,%s}", id, value);
    say(line);
}

static void save(unsigned long id)
{
    if (scenario_is("save-refused")) {
        reply(id, "\"error\":{\"class\":\"GenericError\",\"desc\":\"State blocked by a device\"}");
        return;
    }
    if (scenario_is("save-dies"))
        exit(4);
    reply(id, "\"return\":{}");
    say_migration("setup");
    say_migration("active");
    if (scenario_is("save-hangs"))
        return;
    if (scenario_is("save-fails")) {
        say_migration("failed");
        return;
    }
    if (!scenario_is("save-nothing") && write(state_fd, state, strlen(state)) < 0)
        exit(5);
    say_migration("completed");
}

static void load(unsigned long id)
{
    char text[64] = "";

    if (scenario_is("load-hangs"))
        return;
    if (scenario_is("load-fails") || read(state_fd, text, sizeof(text) - 1) < 0 || strcmp(text, state) != 0) {
        say_migration("failed");
        fprintf(stderr, "qemu: load of migration failed: Invalid argument\n");
        exit(1);
    }
    reply(id, "\"return\":{}");
    say_migration("active");
    say_migration("completed");
}

/* The guest lets go of a device at once. */
static void say_deleted(const char *line)
{
    const char *device = strstr(line, "\"id\":\"");
    char event[256];

    if (!device)
        return;
    device += strlen("\"id\":\"");
    snprintf(event, sizeof(event), "{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"%.*s\",\"path\":\"/\"}}",
             (int)strcspn(device, "\""), device);
    say(event);
}

static void run_command(const char *line)
{
    const char *id_text = strstr(line, "\"id\":");
    unsigned long id = id_text ? strtoul(id_text + 5, NULL, 10) : 0;

    if (strstr(line, "\"query-status\"")) {
        reply(id, paused ? "\"return\":{\"status\":\"paused\",\"running\":false}"
                         : "\"return\":{\"status\":\"running\",\"running\":true}");
    } else if (strstr(line, "\"query-migrate\"")) {
        reply(id, "\"return\":{\"status\":\"failed\",\"error-desc\":\"No space left on device\"}");
    } else if (strstr(line, "\"migrate\"")) {
        save(id);
    } else if (strstr(line, "\"migrate-incoming\"")) {
        load(id);
    } else if (strstr(line, "\"migrate-set-capabilities\"") && scenario_is("no-capability")) {
        reply(id, "\"error\":{\"class\":\"GenericError\",\"desc\":\"Invalid parameter 'x-ignore-shared'\"}");
    } else if (strstr(line, "\"device_add\"") && scenario_is("first-slot-rests") && strstr(line, "\"addr\":\"1\"")) {
        reply(id, "\"error\":{\"class\":\"GenericError\",\"desc\":\"This slot was used before\"}");
    } else {
        if (strstr(line, "\"stop\"") || strstr(line, "\"cont\""))
            paused = strstr(line, "\"stop\"");
        reply(id, "\"return\":{}");
        if (strstr(line, "\"device_del\""))
            say_deleted(line);
    }
}

/* With the descriptor that may come with a line. */
static ssize_t receive(char *buffer, size_t n)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = buffer, .iov_len = n};
    struct msghdr mh = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t k = recvmsg(qmp_fd, &mh, 0);

    if (k > 0 && CMSG_FIRSTHDR(&mh))
        memcpy(&state_fd, CMSG_DATA(&control.header), sizeof(int));
    return k;
}

static void converse(void)
{
    static char buffer[65536];
    size_t used = 0;
    ssize_t k;

    say(scenario_is("other-version") ? "{\"QMP\":{\"version\":{\"qemu\":{\"major\":11,\"minor\":1,\"micro\":0},"
                                       "\"package\":\"\"},\"capabilities\":[]}}"
                                     : "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":13},"
                                       "\"package\":\"Fake 1\"},\"capabilities\":[]}}");
    while ((k = receive(buffer + used, sizeof(buffer) - 1 - used)) > 0) {
        char *line = buffer, *newline;

        used += (size_t)k;
        buffer[used] = 0;
        while ((newline = strchr(line, '\n'))) {
            *newline = 0;
            run_command(line);
            line = newline + 1;
        }
        used -= (size_t)(line - buffer);
        memmove(buffer, line, used);
    }
}

int main(int argc, char **argv)
{
    int listen_fd = -1, fd;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        const char *version = strstr(argv[0], "old") ? "7.2.22 (Debian)" : "10.0.13";

        if (strstr(argv[0], "silent"))
            pause();
        printf(strstr(argv[0], "other") ? "Something %s\n" : "QEMU emulator version %s\n", version);
        return 0;
    }
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "-name") == 0)
            scenario = argv[i + 1];
        if (sscanf(argv[i], "socket,id=qmp,fd=%d", &fd) == 1)
            listen_fd = fd;
        if (sscanf(argv[i], "fd=%d,set=2", &fd) == 1)
            state_fd = fd;
    }
    /* It does not block. */
    (void)poll(&(struct pollfd){.fd = listen_fd, .events = POLLIN}, 1, -1);
    qmp_fd = accept(listen_fd, NULL, NULL);
    if (qmp_fd < 0)
        return 2;
    converse();
    return 0;
}
