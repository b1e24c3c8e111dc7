/* SPDX-License-Identifier: MIT */

/* The daemon's calls with payloads from outside: the first byte chooses the method, the rest is its message.
 * No VM can be had here, so all that is reached is the reading and checking of requests. */

#include <string.h>
#include <sys/socket.h>

#include "base/fs.h"
#include "daemon.pb-c.h"
#include "sandbox/sandbox.h"
#include "ttrpc.pb-c.h"

static Loop *loop;
static SandboxService *service;
static TtrpcServer *server;
static int client = -1;

static void set_up(void)
{
    static char dir[] = "/tmp/fuzz-sandbox.XXXXXX";
    static SandboxSettings settings;
    int pair[2];

    if (loop)
        return;
    if (!mkdtemp(dir))
        abort();
    settings = (SandboxSettings){
        .state_dir = dir, .driver = vmm_driver_by_name("qemu"), .no_vmm_reason = (char *)"no VM here"};
    if (loop_new(&loop) < 0 || sandbox_service_new(loop, &settings, NULL, NULL, &service, NULL) < 0 ||
        ttrpc_server_new(loop, &server) < 0 || sandbox_service_register(service, server) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0 ||
        ttrpc_server_add_connection(server, pair[0]) < 0)
        abort();
    client = pair[1];
    (void)fs_remove_tree(dir);
}

static void send_request(const char *method, const uint8_t *data, size_t n)
{
    static uint32_t stream = 1;
    Cloudhv__Ttrpc__Request request = CLOUDHV__TTRPC__REQUEST__INIT;
    uint8_t frame[65536 + 256];
    uint32_t length;

    request.service = (char *)cloudhv__daemon__v1__sandboxes__descriptor.name;
    request.method = (char *)method;
    request.payload = (ProtobufCBinaryData){.data = (uint8_t *)data, .len = n};
    length = (uint32_t)cloudhv__ttrpc__request__get_packed_size(&request);
    if (length + 10 > sizeof(frame))
        return;
    for (int i = 0; i < 4; i++) {
        frame[i] = (uint8_t)(length >> (24 - 8 * i));
        frame[4 + i] = (uint8_t)(stream >> (24 - 8 * i));
    }
    frame[8] = 1;
    frame[9] = 0;
    stream += 2;
    (void)cloudhv__ttrpc__request__pack(&request, frame + 10);
    if (send(client, frame, length + 10, MSG_NOSIGNAL) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const ProtobufCServiceDescriptor *d = &cloudhv__daemon__v1__sandboxes__descriptor;
    char answer[65536];

    set_up();
    if (n < 1 || n > 65536)
        return 0;
    send_request(d->methods[data[0] % d->n_methods].name, data + 1, n - 1);
    while (loop_run_once(loop, 0) > 0)
        continue;
    /* Whatever the request was, the service must still be there and have made nothing. */
    while (recv(client, answer, sizeof(answer), 0) > 0)
        continue;
    if (sandbox_service_count(service) != 0)
        abort();
    return 0;
}
