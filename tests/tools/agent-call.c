/* SPDX-License-Identifier: MIT */

/* Talks to an agent from the host, for tests and for looking at a VM by hand: reads commands, one a line, and
 * answers each with one line, "ok MICROSECONDS …" or "error CODE MESSAGE".
 *
 *     agent-call CONTROL-SOCKET TASK-SOCKET
 *
 *     hello control|task                 identity SANDBOX [MACHINE-ID]
 *     quiesce [DISK-SERIAL]
 *     file TREE CONTAINER PATH TEXT      cat TREE PATH
 *     create ID SPEC-FILE IMAGE-SERIAL SCRATCH-SERIAL|- [stdin] [pod-pid] [terminal]
 *            [volume=NAME:CONTAINER-PATH] [pod-volume=NAME] [memory-volume=NAME:BYTES]
 *     start ID | wait ID | delete ID | pids ID | list | close-stdin ID
 *     kill ID SIGNAL [all]               write ID TEXT (\n is a newline)
 *     read ID stdout|stderr FILE         (to the end; writes what came to FILE)
 *     slow-read ID stdout BYTES          (one piece from offset 0, not acknowledged)
 *     network DEVICE-MAC NAME MAC ADDRESS PREFIX GATEWAY      (IPv4, with a default route)
 *     exec ID/EXEC-ID PROCESS-FILE [stdin]     (start, wait, kill, read, write and close-stdin take ID/EXEC-ID)
 *     delete-process ID/EXEC-ID
 *     clock NSEC | shutdown | pause ID | resume ID | stats [ID] */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "agent.pb-c.h"
#include "base/fd.h"
#include "base/fs.h"
#include "containerd-cgroups.pb-c.h"
#include "ttrpc/ttrpc.h"

enum {
    WORDS_MAX = 32,
    VOLUMES_MAX = 8,
    CALL_TIMEOUT_SECS = 120,
};

typedef struct Session {
    Loop *loop;
    TtrpcClient *control, *task;

    bool answered;
    TtrpcCode code;
    char message[512];
    char text[2048]; /* of the answer, to be printed */

    /* ReadStream. */
    FILE *file;
    uint64_t offset;
    bool eof;
} Session;

typedef void (*ShowFn)(Session *s, const ProtobufCMessage *response);

static ShowFn show; /* how to print the answer of the call in flight */

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Session *s = userdata;

    s->answered = true;
    s->code = reply->code;
    snprintf(s->message, sizeof(s->message), "%s", reply->message ?: "");
    if (reply->code == TTRPC_OK && reply->response && show)
        show(s, reply->response);
}

/* Makes a call and waits for its answer. 0, or a negative errno when there was none. */
static int call(Session *s, TtrpcClient *client, const char *method, const ProtobufCMessage *request,
                ShowFn show_answer)
{
    const ProtobufCServiceDescriptor *service = client == s->control ? &cloudhv__agent__v1__control__descriptor
                                                                      : &cloudhv__agent__v1__task__descriptor;
    TtrpcCallSpec spec = {
        .service = service,
        .method = method,
        .request = request,
        .timeout_usec = CALL_TIMEOUT_SECS * USEC_PER_SEC,
    };
    int r;

    s->answered = false;
    s->text[0] = 0;
    show = show_answer;
    r = ttrpc_client_call(client, &spec, on_reply, s, NULL);
    while (r >= 0 && !s->answered)
        r = loop_run_once(s->loop, UINT64_MAX);
    return r < 0 ? r : 0;
}

static void show_hello(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__HelloResponse *r = (const Cloudhv__Agent__V1__HelloResponse *)m;

    snprintf(s->text, sizeof(s->text), "protocol=%u agent=%s kernel=%s", r->protocol, r->agent_version,
             r->kernel_release);
}

static void show_identity(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__IdentityResponse *r = (const Cloudhv__Agent__V1__IdentityResponse *)m;

    snprintf(s->text, sizeof(s->text), "boot_id=%s memory=%llu vcpus=%u", r->boot_id,
             (unsigned long long)r->memory_total, r->vcpus_online);
}

static void show_created(Session *s, const ProtobufCMessage *m)
{
    snprintf(s->text, sizeof(s->text), "pid=%u", ((const Cloudhv__Agent__V1__CreateContainerResponse *)m)->pid);
}

static void show_started(Session *s, const ProtobufCMessage *m)
{
    snprintf(s->text, sizeof(s->text), "pid=%u", ((const Cloudhv__Agent__V1__StartProcessResponse *)m)->pid);
}

static void show_wait(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__WaitProcessResponse *r = (const Cloudhv__Agent__V1__WaitProcessResponse *)m;

    snprintf(s->text, sizeof(s->text), "status=%u at=%llu oom=%i", r->exit_status,
             (unsigned long long)r->exited_at_nsec, r->oom_killed);
}

static void show_deleted(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__DeleteProcessResponse *r = (const Cloudhv__Agent__V1__DeleteProcessResponse *)m;

    snprintf(s->text, sizeof(s->text), "pid=%u status=%u at=%llu", r->pid, r->exit_status,
             (unsigned long long)r->exited_at_nsec);
}

static void show_pids(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__ListProcessesResponse *r = (const Cloudhv__Agent__V1__ListProcessesResponse *)m;
    size_t n = 0;

    for (size_t i = 0; i < r->n_pids && n < sizeof(s->text) - 16; i++)
        n += (size_t)snprintf(s->text + n, sizeof(s->text) - n, "%u ", r->pids[i]);
}

static void show_list(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__ListContainersResponse *r = (const Cloudhv__Agent__V1__ListContainersResponse *)m;
    size_t n = 0;

    for (size_t i = 0; i < r->n_containers && n < sizeof(s->text) - 200; i++)
        n += (size_t)snprintf(s->text + n, sizeof(s->text) - n, "%s:%s ", r->containers[i]->id,
                              r->containers[i]->status);
}

static void show_tree_file(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__ReadTreeFileResponse *r = (const Cloudhv__Agent__V1__ReadTreeFileResponse *)m;

    snprintf(s->text, sizeof(s->text), "truncated=%i %.*s", r->truncated, (int)r->data.len, (char *)r->data.data);
}

static void show_stream(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__ReadStreamResponse *r = (const Cloudhv__Agent__V1__ReadStreamResponse *)m;

    if (s->file && r->data.len > 0 && fwrite(r->data.data, r->data.len, 1, s->file) != 1)
        s->code = TTRPC_INTERNAL;
    s->offset += r->data.len;
    s->eof = r->eof;
    snprintf(s->text, sizeof(s->text), "bytes=%llu eof=%i", (unsigned long long)s->offset, r->eof);
}

static int do_hello(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__HelloRequest q = CLOUDHV__AGENT__V1__HELLO_REQUEST__INIT;

    q.protocol = 1;
    q.peer = (char *)"test";
    return call(s, n > 1 && strcmp(w[1], "task") == 0 ? s->task : s->control, "Hello", &q.base, show_hello);
}

static uint64_t realtime(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static int do_identity(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__IdentityRequest q = CLOUDHV__AGENT__V1__IDENTITY_REQUEST__INIT;
    Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry sysctl =
        CLOUDHV__AGENT__V1__IDENTITY_REQUEST__SYSCTLS_ENTRY__INIT;
    Cloudhv__Agent__V1__IdentityRequest__SysctlsEntry *sysctls[] = {&sysctl};
    uint8_t entropy[64];

    if (getrandom(entropy, sizeof(entropy), 0) != sizeof(entropy))
        return -EIO;
    sysctl.key = (char *)"net.ipv4.ip_unprivileged_port_start";
    sysctl.value = (char *)"80";
    q.sandbox_id = n > 1 ? w[1] : (char *)"sandbox";
    q.machine_id = n > 2 ? w[2] : (char *)"0123456789abcdef0123456789abcdef";
    q.entropy.data = entropy;
    q.entropy.len = sizeof(entropy);
    q.realtime_nsec = realtime();
    q.sysctls = sysctls;
    q.n_sysctls = 1;
    return call(s, s->control, "Identity", &q.base, show_identity);
}

static int do_quiesce(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__QuiesceRequest q = CLOUDHV__AGENT__V1__QUIESCE_REQUEST__INIT;

    q.warm_disk = n > 1 ? w[1] : (char *)"";
    return call(s, s->control, "Quiesce", &q.base, NULL);
}

static int do_clock(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__SetClockRequest q = CLOUDHV__AGENT__V1__SET_CLOCK_REQUEST__INIT;

    q.realtime_nsec = n > 1 ? strtoull(w[1], NULL, 10) : realtime();
    return call(s, s->control, "SetClock", &q.base, NULL);
}

static int do_shutdown(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__ShutdownRequest q = CLOUDHV__AGENT__V1__SHUTDOWN_REQUEST__INIT;

    return call(s, s->control, "Shutdown", &q.base, NULL);
}

static int do_file(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__AddFilesRequest q = CLOUDHV__AGENT__V1__ADD_FILES_REQUEST__INIT;
    Cloudhv__Agent__V1__FileEntry entry = CLOUDHV__AGENT__V1__FILE_ENTRY__INIT, *entries[] = {&entry};

    if (n < 5)
        return -EINVAL;
    q.tree = w[1];
    q.container_id = w[2];
    entry.path = strcmp(w[3], "-") == 0 ? (char *)"" : w[3];
    entry.mode = 0644;
    entry.data.data = (uint8_t *)w[4];
    entry.data.len = strlen(w[4]);
    q.entries = entries;
    q.n_entries = 1;
    return call(s, s->task, "AddFiles", &q.base, NULL);
}

static bool parse_mac(const char *text, uint8_t mac[static 6])
{
    return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5]) == 6;
}

static int do_network(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__ConfigureNetworkRequest q = CLOUDHV__AGENT__V1__CONFIGURE_NETWORK_REQUEST__INIT;
    Cloudhv__Agent__V1__Interface interface = CLOUDHV__AGENT__V1__INTERFACE__INIT, *interfaces[] = {&interface};
    Cloudhv__Agent__V1__Address address = CLOUDHV__AGENT__V1__ADDRESS__INIT, *addresses[] = {&address};
    Cloudhv__Agent__V1__Route route = CLOUDHV__AGENT__V1__ROUTE__INIT, link = CLOUDHV__AGENT__V1__ROUTE__INIT;
    Cloudhv__Agent__V1__Route *routes[] = {&link, &route};
    uint8_t device_mac[6], mac[6], ip[4], gateway[4], subnet[4];

    if (n < 7 || !parse_mac(w[1], device_mac) || !parse_mac(w[3], mac) || inet_pton(AF_INET, w[4], ip) != 1 ||
        inet_pton(AF_INET, w[6], gateway) != 1)
        return -EINVAL;
    interface.device_mac = (ProtobufCBinaryData){.data = device_mac, .len = 6};
    interface.mac = (ProtobufCBinaryData){.data = mac, .len = 6};
    interface.name = w[2];
    interface.mtu = 1400;
    interface.addresses = addresses;
    interface.n_addresses = 1;
    address.address = (ProtobufCBinaryData){.data = ip, .len = 4};
    address.prefix = (uint32_t)strtoul(w[5], NULL, 10);
    route.interface = w[2];
    route.family = AF_INET;
    route.gateway = (ProtobufCBinaryData){.data = gateway, .len = 4};
    /* The subnet's route is one of the routes, as the host reads them. */
    memcpy(subnet, ip, sizeof(subnet));
    subnet[3] = 0;
    link.interface = w[2];
    link.family = AF_INET;
    link.destination = (ProtobufCBinaryData){.data = subnet, .len = 4};
    link.prefix = 24;
    link.scope = 253; /* RT_SCOPE_LINK */
    q.interfaces = interfaces;
    q.routes = routes;
    q.n_interfaces = 1;
    q.n_routes = 2;
    return call(s, s->task, "ConfigureNetwork", &q.base, NULL);
}

static int do_cat(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__ReadTreeFileRequest q = CLOUDHV__AGENT__V1__READ_TREE_FILE_REQUEST__INIT;

    if (n < 3)
        return -EINVAL;
    q.tree = w[1];
    q.path = strcmp(w[2], "-") == 0 ? (char *)"" : w[2];
    q.max = 1024;
    return call(s, s->task, "ReadTreeFile", &q.base, show_tree_file);
}

/* NAME:REST behind one of the words for volumes. */
static bool parse_volume(char *word, Cloudhv__Agent__V1__GuestVolume *v)
{
    char *value = strchr(word, '='), *rest;

    if (!value)
        return false;
    *value++ = 0;
    rest = strchr(value, ':');
    if (rest)
        *rest++ = 0;
    cloudhv__agent__v1__guest_volume__init(v);
    v->name = value;
    if (strcmp(word, "volume") == 0 && rest) {
        v->copy_up = true;
        v->container_path = rest;
    } else if (strcmp(word, "pod-volume") == 0) {
        v->pod = true;
        v->mode = 0777;
    } else if (strcmp(word, "memory-volume") == 0 && rest) {
        v->memory = true;
        v->size_limit = strtoull(rest, NULL, 10);
    } else {
        return false;
    }
    return true;
}

static int do_create(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__CreateContainerRequest q = CLOUDHV__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Cloudhv__Agent__V1__Rootfs rootfs = CLOUDHV__AGENT__V1__ROOTFS__INIT;
    Cloudhv__Agent__V1__GuestVolume volumes[VOLUMES_MAX], *list[VOLUMES_MAX];
    _cleanup_free_ char *spec = NULL;
    size_t size;
    int r;

    if (n < 5)
        return -EINVAL;
    r = fs_read_file(w[2], 1024 * 1024, &spec, &size);
    if (r < 0)
        return r;
    q.id = w[1];
    q.spec.data = (uint8_t *)spec;
    q.spec.len = size;
    q.rootfs = &rootfs;
    q.stdout = q.stderr = true;
    q.volumes = list;
    q.disk_timeout_usec = 5 * USEC_PER_SEC;
    rootfs.image_serial = w[3];
    if (strcmp(w[4], "-") != 0)
        rootfs.scratch_serial = w[4];
    for (size_t i = 5; i < n; i++) {
        if (strcmp(w[i], "stdin") == 0)
            q.stdin = true;
        else if (strcmp(w[i], "pod-pid") == 0)
            q.share_pod_pid = true;
        else if (strcmp(w[i], "terminal") == 0)
            q.terminal = true;
        else if (q.n_volumes < VOLUMES_MAX && parse_volume(w[i], &volumes[q.n_volumes])) {
            list[q.n_volumes] = &volumes[q.n_volumes];
            q.n_volumes++;
        } else
            return -EINVAL;
    }
    return call(s, s->task, "CreateContainer", &q.base, show_created);
}

/* Splits "ID/EXEC-ID"; gives the latter, "" where there is none. */
static char *split_id(char *word)
{
    char *slash = strchr(word, '/');

    if (slash)
        *slash = 0;
    return slash ? slash + 1 : (char *)"";
}

static int do_exec(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__ExecRequest q = CLOUDHV__AGENT__V1__EXEC_REQUEST__INIT;
    _cleanup_free_ char *process = NULL;
    size_t size;
    int r;

    if (n < 3)
        return -EINVAL;
    r = fs_read_file(w[2], 1024 * 1024, &process, &size);
    if (r < 0)
        return r;
    q.exec_id = split_id(w[1]);
    q.id = w[1];
    q.process.data = (uint8_t *)process;
    q.process.len = size;
    q.stdin = n > 3 && strcmp(w[3], "stdin") == 0;
    q.stdout = q.stderr = true;
    return call(s, s->task, "Exec", &q.base, NULL);
}

static int process_call(Session *s, char **w, size_t n, const char *method, ShowFn show_answer)
{
    Cloudhv__Agent__V1__ProcessRequest q = CLOUDHV__AGENT__V1__PROCESS_REQUEST__INIT;

    if (n < 2)
        return -EINVAL;
    q.exec_id = split_id(w[1]);
    q.id = w[1];
    return call(s, s->task, method, &q.base, show_answer);
}

static int container_call(Session *s, char **w, size_t n, const char *method, ShowFn show_answer)
{
    Cloudhv__Agent__V1__ContainerRequest q = CLOUDHV__AGENT__V1__CONTAINER_REQUEST__INIT;

    if (n < 2)
        return -EINVAL;
    q.id = w[1];
    return call(s, s->task, method, &q.base, show_answer);
}

static int do_start(Session *s, char **w, size_t n)
{
    return process_call(s, w, n, "StartProcess", show_started);
}

static int do_wait(Session *s, char **w, size_t n)
{
    return process_call(s, w, n, "WaitProcess", show_wait);
}

static int do_close_stdin(Session *s, char **w, size_t n)
{
    return process_call(s, w, n, "CloseStdin", NULL);
}

static int do_delete(Session *s, char **w, size_t n)
{
    return container_call(s, w, n, "DeleteContainer", show_deleted);
}

static int do_pause(Session *s, char **w, size_t n)
{
    return container_call(s, w, n, "Pause", NULL);
}

static int do_resume(Session *s, char **w, size_t n)
{
    return container_call(s, w, n, "Resume", NULL);
}

static void show_stats(Session *s, const ProtobufCMessage *m)
{
    const Cloudhv__Agent__V1__StatsResponse *r = (const Cloudhv__Agent__V1__StatsResponse *)m;
    Io__Containerd__Cgroups__V2__Metrics *metrics =
        io__containerd__cgroups__v2__metrics__unpack(NULL, r->metrics.len, r->metrics.data);

    if (!metrics)
        return;
    snprintf(s->text, sizeof(s->text), "pids=%llu cpu=%llu memory=%llu limit=%llu anon=%llu disks=%zu",
             (unsigned long long)metrics->pids->current, (unsigned long long)metrics->cpu->usage_usec,
             (unsigned long long)metrics->memory->usage, (unsigned long long)metrics->memory->usage_limit,
             (unsigned long long)metrics->memory->anon, metrics->io->n_usage);
    io__containerd__cgroups__v2__metrics__free_unpacked(metrics, NULL);
}

static int do_stats(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__StatsRequest q = CLOUDHV__AGENT__V1__STATS_REQUEST__INIT;

    if (n > 1)
        q.id = w[1];
    return call(s, s->task, "Stats", &q.base, show_stats);
}

static int do_delete_process(Session *s, char **w, size_t n)
{
    return process_call(s, w, n, "DeleteProcess", show_deleted);
}

static int do_pids(Session *s, char **w, size_t n)
{
    return container_call(s, w, n, "ListProcesses", show_pids);
}

static int do_list(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__Empty q = CLOUDHV__AGENT__V1__EMPTY__INIT;

    return call(s, s->task, "ListContainers", &q.base, show_list);
}

static int do_kill(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__KillRequest q = CLOUDHV__AGENT__V1__KILL_REQUEST__INIT;

    if (n < 3)
        return -EINVAL;
    q.exec_id = split_id(w[1]);
    q.id = w[1];
    q.signal = (uint32_t)strtoul(w[2], NULL, 10);
    q.all = n > 3 && strcmp(w[3], "all") == 0;
    return call(s, s->task, "Kill", &q.base, NULL);
}

static int do_write(Session *s, char **w, size_t n)
{
    Cloudhv__Agent__V1__WriteStreamRequest q = CLOUDHV__AGENT__V1__WRITE_STREAM_REQUEST__INIT;
    char *p;

    if (n < 3)
        return -EINVAL;
    while ((p = strstr(w[2], "\\n"))) {
        *p = '\n';
        memmove(p + 1, p + 2, strlen(p + 2) + 1);
    }
    q.exec_id = split_id(w[1]);
    q.id = w[1];
    q.data.data = (uint8_t *)w[2];
    q.data.len = strlen(w[2]);
    return call(s, s->task, "WriteStream", &q.base, NULL);
}

static int read_piece(Session *s, char **w, char *exec_id, uint32_t max)
{
    Cloudhv__Agent__V1__ReadStreamRequest q = CLOUDHV__AGENT__V1__READ_STREAM_REQUEST__INIT;

    q.id = w[1];
    q.exec_id = exec_id;
    q.stream = strcmp(w[2], "stderr") == 0 ? CLOUDHV__AGENT__V1__STREAM__STREAM_STDERR
                                            : CLOUDHV__AGENT__V1__STREAM__STREAM_STDOUT;
    q.offset = s->offset;
    q.max = max;
    return call(s, s->task, "ReadStream", &q.base, show_stream);
}

static int do_read(Session *s, char **w, size_t n)
{
    _cleanup_fclose_ FILE *f = NULL;
    char *exec_id;
    int r;

    if (n < 4)
        return -EINVAL;
    exec_id = split_id(w[1]);
    f = fopen(w[3], "we");
    if (!f)
        return -errno;
    s->file = f;
    s->offset = 0;
    s->eof = false;
    do
        r = read_piece(s, w, exec_id, 256 * 1024);
    while (r >= 0 && s->code == TTRPC_OK && !s->eof);
    s->file = NULL;
    return r;
}

static int do_slow_read(Session *s, char **w, size_t n)
{
    if (n < 4)
        return -EINVAL;
    s->offset = 0;
    return read_piece(s, w, split_id(w[1]), (uint32_t)strtoul(w[3], NULL, 10));
}

typedef struct Command {
    const char *name;
    int (*run)(Session *s, char **words, size_t n);
} Command;

static const Command commands[] = {
    {"hello", do_hello},   {"identity", do_identity}, {"clock", do_clock},   {"shutdown", do_shutdown},
    {"quiesce", do_quiesce},
    {"file", do_file},     {"cat", do_cat},           {"create", do_create}, {"start", do_start},
    {"wait", do_wait},     {"delete", do_delete},     {"pids", do_pids},     {"list", do_list},
    {"kill", do_kill},     {"write", do_write},       {"read", do_read},     {"slow-read", do_slow_read},
    {"pause", do_pause},   {"close-stdin", do_close_stdin}, {"network", do_network},
    {"exec", do_exec},     {"resume", do_resume},     {"delete-process", do_delete_process},
    {"stats", do_stats},
};

static int run_line(Session *s, char *line)
{
    char *words[WORDS_MAX], *save = NULL;
    size_t n = 0;

    for (char *w = strtok_r(line, " \n", &save); w && n < WORDS_MAX; w = strtok_r(NULL, " \n", &save))
        words[n++] = w;
    if (n == 0)
        return 0;
    s->code = TTRPC_OK;
    for (size_t i = 0; i < ELEMENTSOF(commands); i++)
        if (strcmp(commands[i].name, words[0]) == 0) {
            uint64_t begin = loop_now();
            int r = commands[i].run(s, words, n);

            for (char *p = s->text; (p = strchr(p, '\n'));)
                *p = ' ';
            if (r < 0)
                printf("error -1 %s\n", strerrordesc_np(-r));
            else if (s->code != TTRPC_OK)
                printf("error %i %s\n", s->code, s->message);
            else
                printf("ok %llu %s\n", (unsigned long long)(loop_now() - begin), s->text);
            return 0;
        }
    printf("error -1 unknown command %s\n", words[0]);
    return 0;
}

static int open_client(Loop *loop, const char *path, TtrpcClient **ret)
{
    int fd = fd_connect_unix(path);

    if (fd < 0) {
        fprintf(stderr, "cannot connect to %s: %s\n", path, strerrordesc_np(-fd));
        return fd;
    }
    return ttrpc_client_new_serial(loop, fd, ret);
}

int main(int argc, char **argv)
{
    _cleanup_free_ char *line = NULL;
    Session s = {0};
    size_t size = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: agent-call CONTROL-SOCKET TASK-SOCKET\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (loop_new(&s.loop) < 0 || open_client(s.loop, argv[1], &s.control) < 0 ||
        open_client(s.loop, argv[2], &s.task) < 0)
        return 1;
    while (getline(&line, &size, stdin) > 0)
        (void)run_line(&s, line);
    ttrpc_client_free(s.control);
    ttrpc_client_free(s.task);
    loop_free(s.loop);
    return 0;
}
