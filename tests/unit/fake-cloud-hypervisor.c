/* SPDX-License-Identifier: MIT */

/* A cloud-hypervisor without VMs, for the driver's tests: the API as its OpenAPI file has it, with devices that are
 * opened for real, events and a vsock socket. What it does wrong is written in its "guest kernel", /vmlinux, a line
 * each:
 *
 *   version 51.0.0        instead of 53.0.0
 *   slow NAME MSEC        answers the request NAME that late
 *   silent NAME           never
 *   half NAME             sends half an answer, and closes its side
 *   closed NAME           closes its side instead of answering, and lives on
 *   nonsense NAME         answers what is no HTTP
 *   twice NAME            answers twice
 *   refuse NAME           answers with an error
 *   die NAME              ends instead of answering, after last words
 *   lazy vm.snapshot      answers, and writes nothing
 *   mute NAME             does what it should, and tells of no event (vm.remove-device)
 *   deaf                  no agent ever listens
 *   stale                 the guest refuses the first connection
 *   link                  makes a symbolic link in place of the vsock socket
 *   reset NAME, off NAME  the guest resets itself, or shuts down, after the answer */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DEVICES_MAX = 32, REQUEST_MAX = 64 * 1024 };

typedef struct Device {
    char id[64], list[8]; /* "disks" or "net" */
    int fd;
} Device;

static char script[4096];
static Device devices[DEVICES_MAX];
static const char *state = "";
static int events_fd, vsock_fd = -1;
static bool twice; /* the next answer */
static char created[REQUEST_MAX]; /* the VM's configuration */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* The argument of "VERB NAME ARGUMENT"; "" where there is none, NULL when there is no such line. */
static const char *told(const char *verb, const char *name)
{
    static char argument[64];
    char line[128];
    const char *p;
    size_t n;

    snprintf(line, sizeof(line), name ? "%s %s" : "%s", verb, name);
    n = strlen(line);
    for (p = script; *p; p += strcspn(p, "\n"), p += *p == '\n') {
        if (strncmp(p, line, n) != 0 || !strchr(" \n", p[n]))
            continue;
        snprintf(argument, sizeof(argument), "%.*s", (int)strcspn(p + n, "\n"), p + n);
        return argument + strspn(argument, " ");
    }
    return NULL;
}

/* The string member `key` of a JSON text, without escapes. */
static bool member(const char *body, const char *key, char *ret, size_t size)
{
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof(quoted), "\"%s\":\"", key);
    p = strstr(body, quoted);
    if (!p)
        return false;
    p += strlen(quoted);
    snprintf(ret, size, "%.*s", (int)strcspn(p, "\""), p);
    return true;
}

static void event(const char *source, const char *name, const char *id)
{
    if (id)
        dprintf(events_fd, "{\n  \"timestamp\": {\"secs\": 1, \"nanos\": 2},\n  \"source\": \"%s\",\n"
                           "  \"event\": \"%s\",\n  \"properties\": {\"id\": \"%s\", \"bdf\": \"0000:00:04.0\"}\n}\n\n",
                source, name, id);
    else
        dprintf(events_fd, "{\n  \"timestamp\": {\"secs\": 1, \"nanos\": 2},\n  \"source\": \"%s\",\n"
                           "  \"event\": \"%s\",\n  \"properties\": null\n}\n\n",
                source, name);
}

static void __attribute__((format(printf, 3, 4))) answer(int fd, int status, const char *format, ...)
{
    char body[8192] = "", head[256];
    va_list ap;

    va_start(ap, format);
    vsnprintf(body, sizeof(body), format, ap);
    va_end(ap);
    if (*body)
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %i \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n"
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                 status, strlen(body));
    else
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %i \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n", status);
    dprintf(fd, "%s%s%s%s", head, body, twice ? head : "", twice ? body : "");
}

static void refuse(int fd, const char *what, const char *why)
{
    answer(fd, 500, "[\"Error from API\",\"%s\",\"%s\"]", what, why);
}

static Device *find(const char *id)
{
    for (int i = 0; i < DEVICES_MAX; i++)
        if (strcmp(devices[i].id, id) == 0)
            return &devices[i];
    return NULL;
}

static Device *new_device(const char *id, const char *list, int fd)
{
    Device *device = find("");

    if (!device)
        return NULL;
    snprintf(device->id, sizeof(device->id), "%s", id);
    snprintf(device->list, sizeof(device->list), "%s", list);
    device->fd = fd;
    return device;
}

static int vsock_address(struct sockaddr_un *address, const char *suffix)
{
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof(address->sun_path), "/sockets/agent%s", suffix);
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

/* The VM runs, and its agent listens. */
static bool start_vm(void)
{
    struct sockaddr_un address = {0}, ready = {0};
    int fd = vsock_address(&address, ""), ready_fd;

    if (told("link", NULL))
        return symlink("/dev/null", address.sun_path) == 0;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
        return false;
    vsock_fd = fd;
    if (told("deaf", NULL))
        return true;
    ready_fd = vsock_address(&ready, "_1023");
    if (connect(ready_fd, (struct sockaddr *)&ready, sizeof(ready)) == 0)
        fprintf(stderr, "the agent listens\n");
    close(ready_fd);
    return true;
}

static void add_disk(int fd, const char *body)
{
    char id[64] = "", path[128] = "";
    bool read_only = strstr(body, "\"readonly\":true");
    int disk;

    if (!strstr(body, "\"image_type\":\"Raw\"")) {
        refuse(fd, "the image type is not raw", "");
        return;
    }
    member(body, "id", id, sizeof(id));
    member(body, "path", path, sizeof(path));
    disk = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (disk < 0)
        refuse(fd, path, strerror(errno));
    /* What it may only read, it may not open otherwise. */
    else if (read_only && open(path, O_RDWR | O_CLOEXEC) >= 0)
        refuse(fd, path, "it can be written");
    else if (!new_device(id, "disks", disk))
        refuse(fd, id, "Failed to find an available PCI device ID");
    else
        answer(fd, 200, "{\"id\":\"%s\",\"bdf\":\"0000:00:04.0\"}", id);
}

static void add_net(int fd, const char *body, int tap)
{
    char id[64] = "";

    member(body, "id", id, sizeof(id));
    if (tap < 0)
        refuse(fd, id, "no descriptor came with it");
    else if (!new_device(id, "net", tap))
        refuse(fd, id, "Failed to find an available PCI device ID");
    else if (*state)
        answer(fd, 200, "{\"id\":\"%s\",\"bdf\":\"0000:00:05.0\"}", id);
    else
        answer(fd, 204, "%s", "");
}

static void remove_device(int fd, const char *name, const char *body)
{
    char id[64] = "";
    Device *device;

    member(body, "id", id, sizeof(id));
    device = find(id);
    if (!device || !*device->list) {
        refuse(fd, "The device could not be removed",
               "Failed to find device corresponding to the given identifier: x");
        return;
    }
    *device->list = 0;
    answer(fd, 204, "%s", "");
    if (told("mute", name))
        return;
    close(device->fd);
    *device->id = 0;
    event("vm", "device-removed", id);
}

static void info(int fd)
{
    char tree[2048] = "", disks[2048] = "", net[2048] = "";

    for (int i = 0; i < DEVICES_MAX; i++) {
        Device *d = &devices[i];
        char *list = strcmp(d->list, "net") == 0 ? net : disks;

        if (!*d->id)
            continue;
        snprintf(tree + strlen(tree), sizeof(tree) - strlen(tree), ",\"%s\":{\"id\":\"%s\"}", d->id, d->id);
        if (*d->list)
            snprintf(list + strlen(list), 2048 - strlen(list), "%s{\"id\":\"%s\"}", *list ? "," : "", d->id);
    }
    answer(fd, 200,
           "{\"config\":{\"disks\":[%s],\"net\":[%s]},\"state\":\"%s\",\"device_tree\":{\"__rng\":{\"id\":\"__rng\"}%s}}",
           disks, net, state, tree);
}

static void change_state(int fd, const char *to)
{
    if (strcmp(state, to) == 0)
        answer(fd, 500, "[\"Error from API\",\"InvalidStateTransition(%s, %s)\"]", state, to);
    else
        answer(fd, 204, "%s", "");
    state = to;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static void snapshot(int fd)
{
    if (told("lazy", "vm.snapshot")) {
        answer(fd, 204, "%s", "");
        return;
    }
    if (strcmp(state, "Paused") != 0) {
        refuse(fd, "vm.snapshot", "the VM is not paused");
        return;
    }
    write_file("/template/config.json", created);
    write_file("/template/state.json", "{}");
    answer(fd, 204, "%s", "");
}

/* A clone may read its template, and nothing more. */
static const char *check_template(void)
{
    if (open("/template/ram", O_RDWR | O_CLOEXEC) >= 0 || (errno != EROFS && errno != EACCES))
        return "the template can be written";
    if (open("/template/ram", O_RDONLY | O_CLOEXEC) < 0 || open("/template/state.json", O_RDONLY | O_CLOEXEC) < 0)
        return "the template can't be read";
    return NULL;
}

static void handle(int fd, const char *name, const char *body, int attached)
{
    const char *version = told("version", NULL);

    if (told("refuse", name)) {
        refuse(fd, "it was told to", "refuse this");
    } else if (strcmp(name, "vmm.ping") == 0) {
        answer(fd, 200, "{\"build_version\":\"v%s\",\"version\":\"%s\",\"pid\":2,\"features\":[\"kvm\"]}",
               version ?: "53.0.0", version ?: "53.0.0");
    } else if (strcmp(name, "vm.create") == 0) {
        snprintf(created, sizeof(created), "%s", body);
        answer(fd, 204, "%s", "");
    } else if (strcmp(name, "vm.snapshot") == 0) {
        snapshot(fd);
    } else if (strcmp(name, "vm.restore") == 0 && check_template()) {
        refuse(fd, "vm.restore", check_template());
    } else if (strcmp(name, "vm.boot") == 0 || strcmp(name, "vm.restore") == 0) {
        if (start_vm()) {
            state = "Running";
            answer(fd, 204, "%s", "");
        } else {
            refuse(fd, "vsock", strerror(errno));
        }
    } else if (strcmp(name, "vm.add-disk") == 0) {
        add_disk(fd, body);
    } else if (strcmp(name, "vm.add-net") == 0) {
        add_net(fd, body, attached);
    } else if (strcmp(name, "vm.remove-device") == 0) {
        remove_device(fd, name, body);
    } else if (strcmp(name, "vm.info") == 0) {
        info(fd);
    } else if (strcmp(name, "vm.pause") == 0) {
        change_state(fd, "Paused");
    } else if (strcmp(name, "vm.resume") == 0) {
        change_state(fd, "Running");
    } else if (strcmp(name, "vm.resize") == 0 || strcmp(name, "vm.resize-zone") == 0) {
        answer(fd, 204, "%s", "");
    } else {
        answer(fd, 404, "[\"no such endpoint\"]");
    }
}

/* What the script wants instead of an answer: false when there is to be one. */
static bool misbehave(int fd, const char *name)
{
    const char *msec = told("slow", name);

    if (msec)
        usleep((useconds_t)atoi(msec) * 1000);
    if (told("die", name)) {
        fprintf(stderr, "these are my last words\n");
        exit(3);
    }
    if (told("nonsense", name))
        dprintf(fd, "220 mail.example.org ESMTP\r\n\r\n");
    else if (told("half", name))
        dprintf(fd, "HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n{\"id\":");
    else if (!told("silent", name) && !told("closed", name))
        return false;
    if (told("half", name) || told("closed", name))
        shutdown(fd, SHUT_WR);
    return true;
}

static void serve_request(int fd, char *request, int attached)
{
    char name[64] = "", *body = strstr(request, "\r\n\r\n") + 4;

    if (sscanf(request, "%*s /api/v1/%63s", name) != 1) {
        answer(fd, 400, "[\"that is no request\"]");
        return;
    }
    if (misbehave(fd, name))
        return;
    twice = told("twice", name);
    handle(fd, name, body, attached);
    if (told("reset", name))
        event("vm", "rebooting", NULL);
    if (told("off", name)) {
        event("vmm", "shutdown", NULL);
        exit(0);
    }
}

/* A connection to the guest. Nobody listens but the agent, and those that a template has had meet what is left of
 * them, whatever they are for. */
static void serve_vsock(void)
{
    static unsigned connections;
    int fd = accept(vsock_fd, NULL, NULL);
    char line[32] = "";

    connections++;
    if (read(fd, line, sizeof(line) - 1) > 0 && strncmp(line, "CONNECT 102", 11) == 0 &&
        (connections > 1 || !told("stale", NULL)))
        dprintf(fd, "OK 1073741824\n");
    close(fd);
}

/* Receives until the request is whole. Negative: there will be none. */
static int receive(int fd, char *request, int *ret_attached)
{
    size_t n = 0, length;
    char *end;

    *ret_attached = -1;
    for (;;) {
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = request + n, .iov_len = REQUEST_MAX - 1 - n};
        struct msghdr mh = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = vsock_fd, .events = POLLIN}};
        ssize_t k;

        if (poll(p, 2, -1) < 0)
            die("poll");
        if (p[1].revents)
            serve_vsock();
        if (!p[0].revents)
            continue;
        k = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
        if (k <= 0)
            return -1;
        if (CMSG_FIRSTHDR(&mh))
            memcpy(ret_attached, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(int));
        n += (size_t)k;
        request[n] = 0;
        end = strstr(request, "\r\n\r\n");
        if (!end)
            continue;
        length = strstr(request, "Content-Length: ") ? strtoul(strstr(request, "Content-Length: ") + 16, NULL, 10) : 0;
        if (n >= (size_t)(end + 4 - request) + length)
            return 0;
    }
}

int main(int argc, char **argv)
{
    static char request[REQUEST_MAX];
    int listen_fd, fd, attached, script_fd = open("/vmlinux", O_RDONLY);

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("cloud-hypervisor v53.0.0\n");
        return 0;
    }
    if (argc != 5 || sscanf(argv[2], "fd=%i", &listen_fd) != 1 || sscanf(argv[4], "fd=%i", &events_fd) != 1)
        return 2;
    if (script_fd < 0 || read(script_fd, script, sizeof(script) - 1) < 0)
        die("/vmlinux");
    printf("hello from the guest\n");
    fflush(stdout);
    for (;;) {
        struct pollfd p = {.fd = listen_fd, .events = POLLIN};

        if (poll(&p, 1, -1) < 0)
            die("poll");
        fd = accept(listen_fd, NULL, NULL);
        if (fd < 0)
            continue;
        while (receive(fd, request, &attached) >= 0)
            serve_request(fd, request, attached);
        close(fd);
    }
}
