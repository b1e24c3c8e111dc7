/* SPDX-License-Identifier: MIT */

/* The daemon's state file of a sandbox: what is read has been checked, and is the same after it was written
 * and read again. */

#include "base/fs.h"
#include "fuzz.h"
#include "sandbox/state.h"

#define KEY "0123456789abcdef"

static bool same(const char *a, const char *b)
{
    return strcmp(a ?: "", b ?: "") == 0;
}

static void check(const SandboxState *s)
{
    REQUIRE(s->namespace && s->sandbox_id);
    /* uid 0 would give a VMM root, the last one stands for none. */
    REQUIRE(s->uid != 0 && s->uid != (uid_t)-1);
    REQUIRE(s->shim_pid <= INT32_MAX && s->memory_mb <= INT64_MAX && s->since_usec <= INT64_MAX);
    REQUIRE(!s->vmm || json_is_object(s->vmm));
    for (size_t i = 0; i < s->n_containers; i++) {
        REQUIRE(s->containers[i].id);
        for (size_t k = 0; k < s->containers[i].n_serials; k++)
            REQUIRE(s->containers[i].serials[k]);
    }
}

static void check_same(const SandboxState *a, const SandboxState *b)
{
    REQUIRE(same(a->namespace, b->namespace) && same(a->sandbox_id, b->sandbox_id) &&
            same(a->bundle, b->bundle) && same(a->source, b->source) &&
            same(a->kernel_release, b->kernel_release));
    REQUIRE(a->shim_pid == b->shim_pid && a->shim_start_time == b->shim_start_time && a->uid == b->uid &&
            a->running == b->running && a->vcpus == b->vcpus && a->memory_mb == b->memory_mb &&
            a->since_usec == b->since_usec && a->emulated == b->emulated);
    REQUIRE(!a->vmm == !b->vmm && (!a->vmm || json_equal(a->vmm, b->vmm)));
    REQUIRE(a->n_containers == b->n_containers);
    for (size_t i = 0; i < a->n_containers; i++) {
        REQUIRE(same(a->containers[i].id, b->containers[i].id));
        REQUIRE(a->containers[i].n_serials == b->containers[i].n_serials);
        for (size_t k = 0; k < a->containers[i].n_serials; k++)
            REQUIRE(same(a->containers[i].serials[k], b->containers[i].serials[k]));
    }
}

static void check_containers(SandboxState *s)
{
    for (size_t n = s->n_containers; n > 0; n--) {
        char *id = strdup(s->containers[n / 2].id);

        REQUIRE(id && sandbox_state_find_container(s, id));
        sandbox_state_drop_container(s, id);
        REQUIRE(s->n_containers == n - 1);
        free(id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *directory = fuzz_directory();
    _cleanup_sandbox_state_ SandboxState s = {0}, again = {0};
    _cleanup_free_ char *path = state_file_path(directory, KEY);
    _cleanup_error_ Error e = ERROR_INIT;
    static bool prepared;

    if (!prepared)
        REQUIRE(state_prepare_directory(directory, NULL) == 0);
    prepared = true;
    fuzz_write_file(path, data, size);
    if (sandbox_state_read(directory, KEY, &s, &e) < 0) {
        REQUIRE(e.number < 0 && e.message && !s.namespace && !s.containers && !s.vmm);
        return 0;
    }
    check(&s);
    REQUIRE(sandbox_state_write(directory, KEY, &s, NULL) == 0);
    REQUIRE(sandbox_state_read(directory, KEY, &again, NULL) == 0);
    check_same(&s, &again);
    check_containers(&again);
    return 0;
}
