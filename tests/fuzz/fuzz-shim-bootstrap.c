/* SPDX-License-Identifier: MIT */

/* What containerd hands to `start`: standard input, the command line (arguments end with NUL), and the output
 * of `containerd --version`. The first byte says which. */

#include <errno.h>

#include "containerd-bootstrap.pb-c.h"
#include "fuzz.h"
#include "oci/ids.h"
#include "shim/bootstrap.h"
#include "shim/options.h"

static void try_input(Input in)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    _cleanup_error_ Error e = ERROR_INIT;
    _cleanup_free_ char *id = take_string(&in, take_u8(&in) % 32),
                        *namespace = take_string(&in, take_u8(&in) % 32);
    int r = bootstrap_parse(in.bytes, in.n, id, namespace, &b, &e);

    REQUIRE((r < 0) == (e.number < 0) && (r >= 0 || e.message));
    if (r < 0) {
        REQUIRE(!b.params && !b.ttrpc_address && !b.socket_dir);
        return;
    }
    REQUIRE(b.params || (!b.ttrpc_address && !b.socket_dir && !b.debug));
    REQUIRE(!b.socket_dir || b.socket_dir[0] == '/');
    REQUIRE(!b.ttrpc_address || b.ttrpc_address[0]);
    REQUIRE(in.n > 0 || !b.params);
    if (b.params)
        REQUIRE(bootstrap_choose(&b, 1) == BOOTSTRAP_ANSWER_PROTOBUF);
    else
        REQUIRE(bootstrap_choose(&b, 1) == BOOTSTRAP_ANSWER_ADDRESS);
}

/* The answer in protobuf says what was put into it. */
static void try_answer(Input in)
{
    _cleanup_free_ char *address = take_string(&in, 200), *bytes = NULL;
    Containerd__BootstrapResult *result;
    size_t n;

    REQUIRE(bootstrap_answer(BOOTSTRAP_ANSWER_PROTOBUF, address, &bytes, &n) == 0);
    result = containerd__bootstrap_result__unpack(NULL, n, (const uint8_t *)bytes);
    REQUIRE(result && result->version == 3 && strcmp(result->protocol, "ttrpc") == 0);
    REQUIRE(strcmp(result->address, address) == 0);
    containerd__bootstrap_result__free_unpacked(result, NULL);
    free(TAKE_PTR(bytes));
    REQUIRE(bootstrap_answer(BOOTSTRAP_ANSWER_ADDRESS, address, &bytes, &n) == 0);
    REQUIRE(n == strlen(address) && memcmp(bytes, address, n) == 0);
}

static void try_command_line(Input in)
{
    char *argv[66] = {(char *)"shim"}, *copy = malloc(in.n + 1);
    _cleanup_error_ Error e = ERROR_INIT;
    ShimOptions o = {0};
    int argc = 1, r;

    REQUIRE(copy);
    if (in.n > 0)
        memcpy(copy, in.bytes, in.n);
    copy[in.n] = 0;
    for (char *p = copy; p < copy + in.n && argc < 65; p += strlen(p) + 1)
        argv[argc++] = p;
    r = shim_options_parse(argc, argv, &o, &e);
    REQUIRE((r < 0) == (e.number < 0) && (r >= 0 || e.message));
    if (r >= 0 && o.action) {
        REQUIRE(strcmp(o.action, "start") == 0 || strcmp(o.action, "delete") == 0);
        REQUIRE(id_check(o.id, "id", NULL) == 0 && !strchr(o.id, '/'));
        REQUIRE(id_check(o.namespace, "namespace", NULL) == 0 && !strchr(o.namespace, '/'));
    }
    if (r >= 0 && !o.action)
        REQUIRE(o.version || o.info);
    free(copy);
}

static void try_version(Input in)
{
    _cleanup_free_ char *text = take_string(&in, 4096);
    unsigned major = 77777;

    if (bootstrap_parse_version(text, &major) < 0)
        REQUIRE(major == 77777);
    else
        REQUIRE(major <= 9999);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};

    switch (take_u8(&in) % 4) {
    case 0:
        try_input(in);
        break;
    case 1:
        try_answer(in);
        break;
    case 2:
        try_command_line(in);
        break;
    case 3:
        try_version(in);
        break;
    }
    return 0;
}
