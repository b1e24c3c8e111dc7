/* SPDX-License-Identifier: MIT */

/* A sandbox whose guest answers what the input says, whose VMM fails, ends and takes disks as the input says,
 * and whose owner acquires, releases, adds and removes containers in between. Phases follow each other as
 * they may, each change of disks and each question ends exactly once, and in the end nothing is left. */

#include "fake-vmm.h"
#include "fuzz.h"
#include "ttrpc/message.h"

enum { CHANGES_MAX = 64 };

typedef struct Change {
    unsigned done;
} Change;

typedef struct State {
    FakeVm vm;
    SandboxSettings settings;
    Sandbox *sandbox;
    SandboxPhase phase;
    bool failed; /* the boot */
    Change changes[CHANGES_MAX];
    unsigned n_changes;
} State;

static bool may_follow(SandboxPhase from, SandboxPhase to)
{
    switch (to) {
    case SANDBOX_IDENTIFYING:
        return from == SANDBOX_BOOTING;
    case SANDBOX_RUNNING:
        return from == SANDBOX_IDENTIFYING;
    case SANDBOX_ENDED:
        return from == SANDBOX_RUNNING;
    case SANDBOX_RELEASING:
        return from != SANDBOX_RELEASING && from != SANDBOX_GONE;
    case SANDBOX_GONE:
        return from == SANDBOX_RELEASING;
    default:
        return false;
    }
}

static void on_phase(Sandbox *sandbox, SandboxPhase phase, const Error *e, void *userdata)
{
    State *s = userdata;

    REQUIRE(sandbox_get_phase(sandbox) == phase && may_follow(s->phase, phase));
    REQUIRE(!e || (e->number < 0 && e->message));
    REQUIRE(phase != SANDBOX_ENDED || sandbox_get_end_reason(sandbox));
    s->phase = phase;
}

static void on_change(_unused_ Sandbox *sandbox, const Error *e, void *userdata)
{
    Change *c = userdata;

    REQUIRE(++c->done == 1);
    REQUIRE(!e || (e->number < 0 && e->message));
}

static void on_usage(_unused_ Sandbox *sandbox, const SandboxUsage *usage, const Error *e, void *userdata)
{
    Change *c = userdata;

    REQUIRE(++c->done == 1);
    REQUIRE(!usage != !e);
}

static void acquire(State *s)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;

    request.namespace_ = (char *)"n";
    request.sandbox_id = (char *)"s";
    s->phase = SANDBOX_BOOTING;
    REQUIRE(sandbox_acquire(s->vm.loop, &s->settings, &request, NULL, 0, on_phase, s, &s->sandbox, NULL) ==
            0);
}

static void change(State *s, uint8_t what)
{
    static const char *const ids[] = {"a", "b", "c", "d"};
    const char *id = ids[what >> 4 & 3];
    Cloudhv__Daemon__V1__Disk disks[3], *pointers[3];
    char serials[3][4];
    Change *c = &s->changes[s->n_changes];
    size_t n = what >> 6;
    int r;

    if (s->n_changes == CHANGES_MAX)
        return;
    for (size_t i = 0; i < n; i++) {
        snprintf(serials[i], sizeof(serials[i]), "%s%zu", id, i);
        cloudhv__daemon__v1__disk__init(&disks[i]);
        disks[i].serial = serials[i];
        disks[i].path = (char *)(what & 8 && i == 1 ? "/nowhere" : "/proc/self/exe");
        disks[i].read_only = true;
        pointers[i] = &disks[i];
    }
    if (what & 1)
        r = sandbox_get_usage(s->sandbox, on_usage, c, NULL);
    else if (what & 2)
        r = sandbox_add_container(s->sandbox, id, pointers, n, on_change, c, NULL);
    else
        r = sandbox_remove_container(s->sandbox, id, on_change, c, NULL);
    REQUIRE(c->done == 0);
    REQUIRE(r >= 0 || s->phase != SANDBOX_RUNNING || r == -EEXIST || r == -ENOSPC || what & 1);
    REQUIRE(r < 0 || s->phase == SANDBOX_RUNNING);
    if (r >= 0)
        s->n_changes++;
}

static void answer(State *s, Input *in)
{
    uint8_t which = take_u8(in), how = take_u8(in);
    Input bytes = take(in, take_u8(in));

    if (s->vm.n_calls == 0)
        return;
    which %= (uint8_t)s->vm.n_calls;
    if (how & 1) {
        _cleanup_free_ char *text = take_string(&bytes, 200);

        fake_guest_refuse(&s->vm, which, (TtrpcCode)(how >> 1) % 20, text);
    } else {
        ProtobufCMessage *m =
            ttrpc_message_unpack(fake_guest_output(s->vm.calls[which].method), bytes.bytes, bytes.n);

        if (m)
            fake_guest_reply(&s->vm, which, m);
        else
            fake_guest_refuse(&s->vm, which, TTRPC_UNKNOWN, "");
        if (m)
            protobuf_c_message_free_unpacked(m, NULL);
    }
}

static void check(const State *s)
{
    const SandboxState *state = sandbox_get_state(s->sandbox);

    REQUIRE(sandbox_get_phase(s->sandbox) == s->phase);
    REQUIRE(state->n_containers <= s->settings.max_containers);
    for (const char *p = state->kernel_release; p && *p; p++)
        REQUIRE(*p >= ' ' && *p <= '~');
    REQUIRE(state->running == (s->phase == SANDBOX_RUNNING || s->phase == SANDBOX_ENDED) ||
            s->phase >= SANDBOX_RELEASING || s->phase == SANDBOX_IDENTIFYING);
    if (s->phase == SANDBOX_RUNNING) {
        _cleanup_sandbox_state_ SandboxState read = {0};

        REQUIRE(sandbox_state_read(s->settings.state_dir, sandbox_get_key(s->sandbox), &read, NULL) == 0);
        REQUIRE(read.n_containers == state->n_containers && read.running);
    }
}

static void check_gone(State *s)
{
    char *file = state_file_path(s->settings.state_dir, sandbox_get_key(s->sandbox));
    char *directory = state_vm_directory(s->settings.state_dir, sandbox_get_key(s->sandbox));

    REQUIRE(s->phase == SANDBOX_GONE && !s->vm.vmm);
    REQUIRE(access(file, F_OK) < 0 && access(directory, F_OK) < 0);
    free(file);
    free(directory);
}

static void step(State *s, Input *in)
{
    uint8_t what = take_u8(in);

    switch (what % 8) {
    case 0:
    case 1:
        answer(s, in);
        break;
    case 2:
        fake_vmm_ends(&s->vm, "the input says so");
        break;
    case 3:
        if ((what & 0xf8) == 0xf8)
            sandbox_release(s->sandbox);
        break;
    case 4:
        s->vm.add_fails_at = what >> 5;
        s->vm.add = what & 8 ? -EIO : 0;
        s->vm.add_now = what & 16 ? -EOPNOTSUPP : 0;
        break;
    case 5:
        s->vm.remove = what & 8 ? -ETIMEDOUT : 0;
        s->vm.remove_now = what & 16 ? -ENODEV : 0;
        break;
    default:
        change(s, take_u8(in));
        break;
    }
    if (!(what & 0x80) || what % 8 == 3)
        fake_vm_settle(&s->vm, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    State s = {0};
    Input in = {data, size};
    uint8_t how = take_u8(&in);

    if (size > 1024)
        return 0;
    fake_vm_start(&s.vm);
    s.settings = fake_vm_settings(&s.vm);
    REQUIRE(state_prepare_directory(s.settings.state_dir, NULL) == 0);
    s.vm.boot = how % 16 == 15 ? -EIO : 0;
    acquire(&s);
    fake_vm_settle(&s.vm, 0);
    while (in.n > 0) {
        step(&s, &in);
        check(&s);
    }
    if (s.phase != SANDBOX_GONE)
        sandbox_release(s.sandbox);
    fake_vm_settle(&s.vm, 0);
    check_gone(&s);
    sandbox_free(s.sandbox);
    for (unsigned i = 0; i < s.n_changes; i++)
        REQUIRE(s.changes[i].done == 1);
    fake_vm_settle(&s.vm, 0);
    fake_vm_stop(&s.vm);
    return 0;
}
