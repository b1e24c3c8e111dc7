/* SPDX-License-Identifier: MIT */

/* Templates, clones of them and the pool, through the daemon's calls, with a fake VMM whose guests answer by
 * themselves. */

#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <syslog.h>

#include "fake-vmm.h"
#include "sandbox/uid.h"

enum { PODS_MAX = 200, LOG_SIZE = 16384 };

typedef struct Reply {
    bool ended;
    TtrpcCode code;
    char text[300], source[20];
} Reply;

typedef struct Fixture {
    FakeVm vm;
    SandboxSettings settings;
    SandboxCloneSettings clone;
    char templates[64], proc[80], files[3][80];
    SandboxService *service;
    TtrpcServer *server;
    TtrpcClient *client;
    char log[LOG_SIZE];
    Reply replies[PODS_MAX];
    /* Of the last Status. */
    unsigned pool_ready, pool_target, n_templates, n_clones;
    char key[40], state[20], reason[100];
} Fixture;

static bool over;

static void on_log(_unused_ int priority, _unused_ const char *namespace, const char *id, const char *message,
                   void *userdata)
{
    Fixture *f = userdata;
    size_t n = strlen(f->log);

    snprintf(f->log + n, sizeof(f->log) - n, "%s: %s\n", id, message);
}

static unsigned log_count(const Fixture *f, const char *text)
{
    unsigned n = 0;

    for (const char *p = f->log; (p = strstr(p, text)); p++)
        n++;
    return n;
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), 0644), 0);
}

static void start_service(Fixture *f)
{
    int pair[2];

    assert_int_equal(sandbox_service_new(f->vm.loop, &f->settings, on_log, f, &f->service, NULL), 0);
    assert_int_equal(ttrpc_server_new(f->vm.loop, &f->server), 0);
    assert_int_equal(sandbox_service_register(f->service, f->server), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(ttrpc_server_add_connection(f->server, pair[0]), 0);
    assert_int_equal(ttrpc_client_new(f->vm.loop, pair[1], &f->client), 0);
}

static void stop_service(Fixture *f)
{
    over = true;
    f->client = ttrpc_client_free(f->client);
    f->server = ttrpc_server_free(f->server);
    f->service = sandbox_service_free(f->service);
    over = false;
}

static int setup(void **state)
{
    static const char *const names[] = {"kernel", "rootfs", "vmm"};
    Fixture *f;

    if (geteuid() != 0) {
        *state = NULL;
        return 0;
    }
    f = calloc(1, sizeof(*f));
    *state = f;
    fake_vm_start(&f->vm);
    f->vm.several = f->vm.automatic = true;
    f->vm.features = VMM_HOTPLUG_DISK | VMM_TEMPLATE;
    f->settings = fake_vm_settings(&f->vm);
    f->settings.uid_count = 300;
    for (int i = 0; i < 3; i++) {
        snprintf(f->files[i], sizeof(f->files[i]), "%s/%s", f->vm.directory, names[i]);
        write_text(f->files[i], names[i]);
    }
    f->settings.kernel = f->files[0];
    f->settings.rootfs = f->files[1];
    f->settings.vmm_binary = f->files[2];
    /* On a disk: templates in memory are refused. */
    snprintf(f->templates, sizeof(f->templates), "/var/tmp/test-templates.XXXXXX");
    assert_non_null(mkdtemp(f->templates));
    snprintf(f->proc, sizeof(f->proc), "%s/proc", f->vm.directory);
    f->clone = (SandboxCloneSettings){.templates_dir = f->templates,
                                      .max_templates = 4,
                                      .templates_max_mb = 1024,
                                      .max_pool_size = 5,
                                      .pool_vcpus = 1,
                                      .pool_idle_usec = 3600 * USEC_PER_SEC,
                                      .proc = f->proc};
    return 0;
}

/* Kills the VMs that belong to no pod, as the next daemon without a pool would. */
static void release_pool(Fixture *f)
{
    stop_service(f);
    f->clone.pool_size = 0;
    f->settings.clones = NULL;
    start_service(f);
    fake_vm_settle(&f->vm, 2000);
}

static int teardown(void **state)
{
    Fixture *f = *state;

    if (!f)
        return 0;
    if (f->service) {
        release_pool(f);
        stop_service(f);
    }
    fake_vm_settle(&f->vm, 0);
    fake_vm_stop(&f->vm);
    assert_int_equal(fs_remove_tree(f->templates), 0);
    free(f);
    return 0;
}

/* A daemon with a pool of that size; whatever it begins by itself is done. */
static Fixture *started(void **state, unsigned pool_size)
{
    Fixture *f = *state;

    if (!f)
        skip();
    f->clone.pool_size = pool_size;
    sandbox_settings_use_clones(&f->settings, &f->clone);
    start_service(f);
    return f;
}

static void on_reply(const TtrpcReply *reply, void *userdata)
{
    Reply *r = userdata;

    if (over)
        return;
    r->ended = true;
    r->code = reply->code;
    snprintf(r->text, sizeof(r->text), "%s", reply->message ?: "");
    if (reply->response &&
        reply->response->descriptor == &cloudhv__daemon__v1__acquire_sandbox_response__descriptor)
        snprintf(r->source, sizeof(r->source), "%s",
                 ((const Cloudhv__Daemon__V1__AcquireSandboxResponse *)reply->response)->source);
}

static void call(Fixture *f, const char *method, const ProtobufCMessage *request, const int *fds, size_t n_fds,
                 Reply *r)
{
    TtrpcCallSpec spec = {.service = &cloudhv__daemon__v1__sandboxes__descriptor,
                          .method = method,
                          .request = request,
                          .fds = fds,
                          .n_fds = n_fds};

    *r = (Reply){0};
    assert_int_equal(ttrpc_client_call(f->client, &spec, on_reply, r, NULL), 0);
}

static void await(Fixture *f, const Reply *r)
{
    uint64_t deadline = loop_now() + 30 * USEC_PER_SEC;

    while (!r->ended && loop_now() < deadline)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
    assert_true(r->ended);
}

/* Begins to acquire pod number `i` with `n_nics` NICs. */
static void begin(Fixture *f, unsigned i, unsigned n_nics, const Cloudhv__Daemon__V1__Sizing *sizing)
{
    Cloudhv__Daemon__V1__AcquireSandboxRequest request = CLOUDHV__DAEMON__V1__ACQUIRE_SANDBOX_REQUEST__INIT;
    Cloudhv__Daemon__V1__Nic nic = CLOUDHV__DAEMON__V1__NIC__INIT, *nics[] = {&nic, &nic};
    int fds[2] = {open("/dev/null", O_RDWR | O_CLOEXEC), open("/dev/null", O_RDWR | O_CLOEXEC)};
    char name[20];

    snprintf(name, sizeof(name), "pod%u", i);
    nic.mac = (ProtobufCBinaryData){.len = 6, .data = (uint8_t[]){2, 0, 0, 0, 0, 1}};
    request.namespace_ = (char *)"ns";
    request.sandbox_id = name;
    request.nics = nics;
    request.n_nics = n_nics;
    request.sizing = (Cloudhv__Daemon__V1__Sizing *)sizing;
    call(f, "AcquireSandbox", &request.base, fds, n_nics, &f->replies[i]);
    close(fds[0]);
    close(fds[1]);
}

static const char *acquire(Fixture *f, unsigned i)
{
    begin(f, i, 1, NULL);
    await(f, &f->replies[i]);
    assert_string_equal(f->replies[i].text, "");
    return f->replies[i].source;
}

static void release(Fixture *f, unsigned i)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest request = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    char name[20];
    Reply r;

    snprintf(name, sizeof(name), "pod%u", i);
    request.namespace_ = (char *)"ns";
    request.sandbox_id = name;
    call(f, "ReleaseSandbox", &request.base, NULL, 0, &r);
    await(f, &r);
    assert_int_equal(r.code, TTRPC_OK);
}

static void on_status(const TtrpcReply *reply, void *userdata)
{
    const Cloudhv__Daemon__V1__StatusResponse *s = (const Cloudhv__Daemon__V1__StatusResponse *)reply->response;
    Fixture *f = userdata;

    assert_int_equal(reply->code, TTRPC_OK);
    f->pool_ready = s->pool_ready;
    f->pool_target = s->pool_target;
    f->n_templates = (unsigned)s->n_templates;
    f->n_clones = 0;
    f->key[0] = f->state[0] = 0;
    snprintf(f->reason, sizeof(f->reason), "%s", s->templates_reason);
    for (size_t i = 0; i < s->n_templates; i++) {
        f->n_clones += s->templates[i]->clones;
        if (i > 0)
            continue;
        snprintf(f->key, sizeof(f->key), "%s", s->templates[i]->key);
        snprintf(f->state, sizeof(f->state), "%s", s->templates[i]->state);
    }
}

static void ask(Fixture *f)
{
    Cloudhv__Daemon__V1__StatusRequest request = CLOUDHV__DAEMON__V1__STATUS_REQUEST__INIT;
    TtrpcCallSpec spec = {
        .service = &cloudhv__daemon__v1__sandboxes__descriptor, .method = "Status", .request = &request.base};

    f->pool_target = 1000000;
    assert_int_equal(ttrpc_client_call(f->client, &spec, on_status, f, NULL), 0);
    while (f->pool_target == 1000000)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
}

/* Runs the loop until there are `n` VMs in the pool and the newest template is in that state. */
static void until(Fixture *f, const char *template_state, unsigned pool)
{
    uint64_t deadline = loop_now() + 30 * USEC_PER_SEC;

    do {
        assert_true(loop_run_once(f->vm.loop, 2000) >= 0);
        ask(f);
    } while ((strcmp(f->state, template_state) != 0 || f->pool_ready != pool) && loop_now() < deadline);
    assert_string_equal(f->state, template_state);
    assert_int_equal(f->pool_ready, pool);
}

static char *in_template(const Fixture *f, const char *name)
{
    return string_printf("%s/%s/%s", f->templates, f->key, name);
}

/* How many entries of a directory have names that begin so. */
static unsigned entries(const char *directory, const char *prefix)
{
    _cleanup_closedir_ DIR *dir = opendir(directory);
    struct dirent *de;
    unsigned n = 0;

    assert_non_null(dir);
    while ((de = readdir(dir)))
        n += strncmp(de->d_name, prefix, strlen(prefix)) == 0 && strcmp(de->d_name, ".") != 0 &&
             strcmp(de->d_name, "..") != 0;
    return n;
}

static void assert_states(const Fixture *f, unsigned n)
{
    static const char *const below[] = {"sandboxes", "vm"};

    for (size_t i = 0; i < ELEMENTSOF(below); i++) {
        _cleanup_free_ char *path = fs_join(f->vm.directory, below[i]);

        assert_int_equal(entries(path, ""), n);
    }
}

/* -------------------------------------------------------------------------------------------- templates */

static void test_made_on_first_need(void **state)
{
    Fixture *f = started(state, 0);
    struct stat st;

    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(f->vm.booted, 0); /* nobody has asked */
    assert_string_equal(acquire(f, 0), "cold");
    assert_int_equal(f->vm.n_nics, 0);
    until(f, "ready", 0);
    assert_int_equal(f->vm.booted, 2);
    assert_int_equal(f->vm.saved, 1);
    assert_string_equal(acquire(f, 1), "template");
    assert_int_equal(f->vm.n_nics, 1);
    assert_int_equal(f->vm.booted, 2);
    assert_int_equal(f->vm.restored, 1);
    assert_int_equal(stat(f->templates, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    assert_int_equal(st.st_gid, f->settings.gid);
    assert_int_equal(entries(f->templates, ".tmp-"), 0);
    assert_int_equal(log_count(f, "made the template"), 1);
    assert_states(f, 2);
    release(f, 0);
    release(f, 1);
    assert_states(f, 0);
}

static void test_what_only_a_boot_gives(void **state)
{
    Cloudhv__Daemon__V1__Sizing sizing = CLOUDHV__DAEMON__V1__SIZING__INIT;
    Fixture *f = started(state, 0);

    acquire(f, 0);
    until(f, "ready", 0);
    begin(f, 1, 2, NULL); /* there is room for one interface */
    sizing.kernel_params = (char *)"debug";
    begin(f, 2, 1, &sizing);
    await(f, &f->replies[1]);
    await(f, &f->replies[2]);
    assert_string_equal(f->replies[1].source, "cold");
    assert_string_equal(f->replies[2].source, "cold");
    assert_int_equal(f->vm.restored, 0);
    for (unsigned i = 0; i < 3; i++)
        release(f, i);
}

static void test_each_size_has_its_own(void **state)
{
    Cloudhv__Daemon__V1__Sizing sizing = CLOUDHV__DAEMON__V1__SIZING__INIT;
    Fixture *f = *state;

    if (!f)
        skip();
    f->clone.max_templates = 2;
    started(state, 0);
    for (unsigned i = 0; i < 3; i++) {
        sizing.memory_mb = 128 + i;
        begin(f, i, 1, &sizing);
        await(f, &f->replies[i]);
        assert_string_equal(f->replies[i].source, "cold");
        until(f, "ready", 0);
    }
    /* The least used went. */
    ask(f);
    assert_int_equal(f->n_templates, 2);
    sizing.memory_mb = 130;
    begin(f, 3, 1, &sizing);
    await(f, &f->replies[3]);
    assert_string_equal(f->replies[3].source, "template");
    sizing.memory_mb = 129;
    begin(f, 4, 1, &sizing);
    await(f, &f->replies[4]);
    assert_string_equal(f->replies[4].source, "template");
    /* Both are in use now: there is no room for a third, and pods run all the same. */
    sizing.memory_mb = 128;
    begin(f, 5, 1, &sizing);
    await(f, &f->replies[5]);
    assert_string_equal(f->replies[5].source, "cold");
    until(f, "failed", 0);
    assert_int_equal(log_count(f, "max_templates"), 1);
    for (unsigned i = 0; i < 6; i++)
        release(f, i);
}

static void test_a_vmm_that_cannot(void **state)
{
    Fixture *f = *state;

    if (!f)
        skip();
    f->vm.features = VMM_HOTPLUG_DISK;
    started(state, 3);
    fake_vm_settle(&f->vm, 20000);
    ask(f);
    assert_string_equal(f->reason, "this VMM cannot save and clone VMs: each is booted for its pod");
    assert_int_equal(f->pool_target, 0);
    assert_int_equal(f->vm.booted, 0);
    assert_string_equal(acquire(f, 0), "cold");
    fake_vm_settle(&f->vm, 2000);
    assert_int_equal(f->vm.booted, 1);
    release(f, 0);
}

static void test_a_template_in_memory_is_refused(void **state)
{
    Fixture *f = *state;

    if (!f || access("/dev/shm", W_OK) < 0)
        skip();
    f->clone.templates_dir = "/dev/shm/test-no-templates";
    started(state, 3);
    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(rmdir("/dev/shm/test-no-templates"), 0);
    ask(f);
    assert_non_null(strstr(f->reason, "lies in memory"));
    assert_string_equal(acquire(f, 0), "cold");
    release(f, 0);
}

/* A boot that fails, a snapshot that fails: pods are booted, and nobody tries again at once. */
static void test_making_fails(void **state)
{
    Fixture *f = *state;

    if (!f)
        skip();
    f->vm.snapshot = -ENOSPC;
    started(state, 2);
    until(f, "failed", 0);
    assert_int_equal(entries(f->templates, ".tmp-"), 0);
    assert_int_equal(log_count(f, "no template for VMs of 1 vCPUs"), 1);
    assert_string_equal(acquire(f, 0), "cold");
    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(f->vm.booted, 2);
    release(f, 0);
    assert_states(f, 0);
}

static void flip_bit(const Fixture *f, const char *name)
{
    _cleanup_free_ char *path = in_template(f, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char c;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, 1), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, 1), 1);
    close(fd);
}

static void damage_state(const Fixture *f)
{
    flip_bit(f, "state");
}

static void damage_memory(const Fixture *f)
{
    flip_bit(f, "ram");
}

static void cut_memory(const Fixture *f)
{
    _cleanup_free_ char *path = in_template(f, "ram");

    assert_int_equal(truncate(path, 4096), 0);
}

static void lose_memory(const Fixture *f)
{
    _cleanup_free_ char *path = in_template(f, "ram");

    assert_int_equal(unlink(path), 0);
}

static void test_damage_is_noticed(void **state)
{
    static void (*const damages[])(const Fixture *) = {damage_state, damage_memory, cut_memory, lose_memory};
    Fixture *f = started(state, 0);
    unsigned pod = 0;

    acquire(f, pod++);
    until(f, "ready", 0);
    for (unsigned i = 0; i < ELEMENTSOF(damages); i++) {
        damages[i](f);
        assert_string_equal(acquire(f, pod++), "cold");
        until(f, "ready", 0);
        assert_int_equal(f->vm.saved, 2 + i);
        assert_int_equal(log_count(f, "will be made again"), 1 + i);
        assert_string_equal(acquire(f, pod++), "template");
    }
    for (unsigned i = 0; i < pod; i++)
        release(f, i);
}

/* Touched, but the same: it is read again, and kept. */
static void test_touched_is_read_again(void **state)
{
    Fixture *f = started(state, 0);
    _cleanup_free_ char *path = NULL;

    acquire(f, 0);
    until(f, "ready", 0);
    path = in_template(f, "ram");
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
    assert_string_equal(acquire(f, 1), "cold");
    until(f, "ready", 0);
    assert_string_equal(acquire(f, 2), "template");
    assert_int_equal(f->vm.saved, 1);
    for (unsigned i = 0; i < 3; i++)
        release(f, i);
}

static void test_a_replaced_vmm_makes_another(void **state)
{
    Fixture *f = started(state, 0);
    char old[40];

    acquire(f, 0);
    until(f, "ready", 0);
    assert_string_equal(acquire(f, 1), "template");
    snprintf(old, sizeof(old), "%s", f->key);
    write_text(f->files[2], "another vmm");
    assert_string_equal(acquire(f, 2), "cold");
    do
        until(f, "ready", 0);
    while (strcmp(f->key, old) == 0);
    assert_string_equal(acquire(f, 3), "template");
    assert_string_not_equal(f->key, old);
    /* The old one stays as long as its clone does. */
    assert_int_equal(f->n_templates, 2);
    release(f, 1);
    ask(f);
    assert_int_equal(f->n_templates, 1);
    assert_int_equal(entries(f->templates, old), 0);
    for (unsigned i = 0; i < 4; i++)
        if (i != 1)
            release(f, i);
}

/* ------------------------------------------------------------------------------------ clones that do not work */

static void test_booted_instead(void **state)
{
    Fixture *f = started(state, 0);

    acquire(f, 0);
    until(f, "ready", 0);
    f->vm.restore = -EIO;
    assert_string_equal(acquire(f, 1), "cold");
    assert_int_equal(log_count(f, "did not come up"), 1);
    until(f, "ready", 0); /* read again, and sound */
    f->vm.restore = 0;
    f->vm.restore_now = -EIO;
    assert_string_equal(acquire(f, 2), "cold");
    assert_int_equal(log_count(f, "did not come up"), 1); /* said once */
    until(f, "ready", 0);
    f->vm.restore_now = 0;
    f->vm.nic = -EIO;
    assert_string_equal(acquire(f, 3), "cold");
    f->vm.nic = 0;
    /* Three in a row: it is the template. */
    until(f, "failed", 0);
    assert_states(f, 4);
    for (unsigned i = 0; i < 4; i++)
        release(f, i);
    assert_states(f, 0);
}

static void test_neither_clone_nor_boot(void **state)
{
    Fixture *f = started(state, 0);

    acquire(f, 0);
    until(f, "ready", 0);
    f->vm.restore = f->vm.boot = -EIO;
    begin(f, 1, 1, NULL);
    await(f, &f->replies[1]);
    assert_int_not_equal(f->replies[1].code, TTRPC_OK);
    assert_non_null(strstr(f->replies[1].text, "no luck"));
    f->vm.restore = f->vm.boot = 0;
    assert_states(f, 1);
    until(f, "ready", 0);
    assert_string_equal(acquire(f, 1), "template");
    release(f, 0);
    release(f, 1);
}

static void test_stale_is_made_again_later(void **state)
{
    Fixture *f = started(state, 0);

    acquire(f, 0);
    until(f, "ready", 0);
    f->vm.restore_now = -ESTALE;
    assert_string_equal(acquire(f, 1), "cold");
    until(f, "failed", 0);
    assert_int_equal(entries(f->templates, f->key), 0);
    release(f, 0);
    release(f, 1);
}

/* Released while a VM is booted in the place of a clone. */
static void test_released_meanwhile(void **state)
{
    Cloudhv__Daemon__V1__ReleaseSandboxRequest request = CLOUDHV__DAEMON__V1__RELEASE_SANDBOX_REQUEST__INIT;
    Fixture *f = started(state, 0);
    Reply r;

    acquire(f, 0);
    until(f, "ready", 0);
    f->vm.restore = -EIO;
    begin(f, 1, 1, NULL);
    while (f->vm.restored == 0)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
    request.namespace_ = (char *)"ns";
    request.sandbox_id = (char *)"pod1";
    call(f, "ReleaseSandbox", &request.base, NULL, 0, &r);
    await(f, &r);
    await(f, &f->replies[1]);
    release(f, 1); /* if the boot was faster than the call */
    release(f, 0);
    assert_states(f, 0);
}

/* ------------------------------------------------------------------------------------------------- the pool */

static void test_pool(void **state)
{
    Fixture *f = started(state, 3);

    until(f, "ready", 3);
    assert_int_equal(f->pool_target, 3);
    assert_int_equal(f->vm.booted, 1);
    assert_states(f, 3);
    assert_string_equal(acquire(f, 0), "pool");
    assert_int_equal(f->vm.n_nics, 1);
    until(f, "ready", 3);
    ask(f);
    assert_int_equal(f->n_clones, 1);
    assert_int_equal(f->vm.restored, 4);
    /* The pod's VM is in the directory it was in, under the pod's name. */
    assert_states(f, 4);
    release(f, 0);
    assert_states(f, 3);
    assert_int_equal(f->vm.restored, 4); /* it was not put back */
}

static void test_a_dead_vm_is_not_handed_out(void **state)
{
    Fixture *f = started(state, 3);
    Vmm *dead;

    until(f, "ready", 3);
    /* One ends and it is known; another has ended, and nobody knows yet. */
    fake_one_ends(f->vm.vmm, "it crashed");
    until(f, "ready", 3);
    assert_int_equal(log_count(f, "a VM of the pool is lost"), 1);
    dead = f->vm.vmm;
    for (Vmm *vmm = f->vm.vmm; vmm; vmm = vmm->next)
        vmm->vanished = vmm != dead;
    dead->vanished = false;
    assert_string_equal(acquire(f, 0), "pool");
    assert_false(dead->ended);
    for (Vmm *vmm = f->vm.vmm; vmm; vmm = vmm->next)
        vmm->vanished = true;
    assert_string_equal(acquire(f, 1), "template");
    until(f, "ready", f->pool_target);
    release(f, 0);
    release(f, 1);
}

/* The agent dies between the pool and the pod. */
static void test_identity_is_refused(void **state)
{
    Fixture *f = started(state, 1);

    until(f, "ready", 1);
    f->vm.nic = -EIO; /* what the VM is given first after its identity */
    assert_string_equal(acquire(f, 0), "cold");
    f->vm.nic = 0;
    until(f, "ready", 1);
    assert_states(f, 2);
    release(f, 0);
    assert_states(f, 1);
}

static void test_many_at_once(void **state)
{
    unsigned by_pool = 0, by_template = 0;
    Fixture *f = started(state, 3);

    until(f, "ready", 3);
    for (unsigned i = 0; i < PODS_MAX; i++)
        begin(f, i, 1, NULL);
    for (unsigned i = 0; i < PODS_MAX; i++) {
        await(f, &f->replies[i]);
        assert_string_equal(f->replies[i].text, "");
        by_pool += strcmp(f->replies[i].source, "pool") == 0;
        by_template += strcmp(f->replies[i].source, "template") == 0;
    }
    assert_true(by_pool >= 3);
    assert_int_equal(by_pool + by_template, PODS_MAX);
    assert_int_equal(f->vm.booted, 1);
    /* It has grown, within its bound. */
    until(f, "ready", 5);
    assert_int_equal(f->pool_target, 5);
    assert_states(f, PODS_MAX + 5);
    for (unsigned i = 0; i < PODS_MAX; i++)
        release(f, i);
    assert_states(f, 5);
}

static void test_idle(void **state)
{
    Fixture *f = *state;

    if (!f)
        skip();
    f->clone.pool_idle_usec = 200 * USEC_PER_MSEC;
    started(state, 1);
    until(f, "ready", 1);
    for (unsigned i = 0; i < 4; i++)
        begin(f, i, 1, NULL);
    for (unsigned i = 0; i < 4; i++)
        await(f, &f->replies[i]);
    ask(f);
    assert_true(f->pool_target > 1);
    until(f, "ready", 1); /* in the end */
    while (f->pool_target > 1) {
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
        ask(f);
    }
    until(f, "ready", 1);
    for (unsigned i = 0; i < 4; i++)
        release(f, i);
    assert_states(f, 1);
}

static void test_held_back(void **state)
{
    Fixture *f = *state;
    char meminfo[100], pressure[100];

    if (!f)
        skip();
    snprintf(meminfo, sizeof(meminfo), "%s/pressure", f->proc);
    assert_int_equal(fs_mkdir_p(meminfo, 0755), 0);
    snprintf(meminfo, sizeof(meminfo), "%s/meminfo", f->proc);
    snprintf(pressure, sizeof(pressure), "%s/pressure/memory", f->proc);
    write_text(meminfo, "MemTotal: 8000000 kB\nMemAvailable: 102400 kB\n");
    f->clone.pool_reserve_mb = 200;
    started(state, 2);
    until(f, "ready", 0);
    assert_string_equal(acquire(f, 0), "template"); /* pods are not held back */
    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(log_count(f, "100 MiB of memory are available, less than the 200"), 1);
    write_text(meminfo, "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n");
    write_text(pressure, "some avg10=35.20 avg60=0.00 avg300=0.00 total=1\n");
    assert_string_equal(acquire(f, 1), "template");
    fake_vm_settle(&f->vm, 20000);
    ask(f);
    assert_int_equal(f->pool_ready, 0);
    write_text(pressure, "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
    release(f, 0);
    until(f, "ready", f->pool_target);
    release(f, 1);
}

/* -------------------------------------------------------------------------------------- another daemon */

static void test_restart(void **state)
{
    Fixture *f = started(state, 2);
    char key[40];

    until(f, "ready", 2);
    assert_string_equal(acquire(f, 0), "pool");
    until(f, "ready", 2);
    snprintf(key, sizeof(key), "%s", f->key);
    stop_service(f);
    start_service(f);
    until(f, "ready", 2);
    assert_string_equal(f->key, key);
    assert_int_equal(f->n_clones, 1);
    assert_int_equal(f->vm.booted, 1);   /* no second template */
    assert_int_equal(f->vm.restored, 3); /* nor other VMs */
    assert_states(f, 3);
    assert_string_equal(acquire(f, 1), "pool");
    release(f, 0);
    release(f, 1);
    until(f, "ready", 2);
    assert_states(f, 2);
}

static void on_stopped(void *userdata)
{
    (*(unsigned *)userdata)++;
}

/* A daemon that is stopped leaves VMs of pods, and no others. */
static void test_stop(void **state)
{
    Fixture *f = started(state, 2);
    unsigned stopped = 0;

    until(f, "ready", 2);
    assert_string_equal(acquire(f, 0), "pool");
    until(f, "ready", 2);
    assert_int_equal(sandbox_service_stop(f->service, on_stopped, &stopped), 1);
    assert_int_equal(stopped, 0);
    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(stopped, 1);
    assert_states(f, 1);
    assert_int_equal(sandbox_service_stop(f->service, on_stopped, &stopped), 0);
    release(f, 0);
    fake_vm_settle(&f->vm, 20000);
    assert_states(f, 0);
}

/* Nor one that was to become a template. */
static void test_stop_while_one_is_made(void **state)
{
    Fixture *f = *state;
    unsigned stopped = 0;

    if (!f)
        skip();
    f->vm.automatic = false; /* nobody answers Hello */
    started(state, 2);
    while (f->vm.booted < 1)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
    fake_vm_settle(&f->vm, 2000);
    assert_states(f, 1);
    assert_int_equal(sandbox_service_stop(f->service, on_stopped, &stopped), 1);
    fake_vm_settle(&f->vm, 20000);
    assert_int_equal(stopped, 1);
    assert_states(f, 0);
    assert_int_equal(entries(f->templates, ".tmp-"), 0);
    f->vm.automatic = true;
}

static void test_restart_without_a_pool(void **state)
{
    Fixture *f = started(state, 2);

    until(f, "ready", 2);
    release_pool(f);
    assert_states(f, 0);
}

/* What a crash leaves between the steps by which a VM of the pool becomes a pod's. */
static void test_crash_while_it_is_given(void **state)
{
    _cleanup_free_ char *pool_file = NULL, *pod_file = NULL, *name = NULL, *directory = NULL;
    _cleanup_sandbox_state_ SandboxState s = {0};
    Fixture *f = started(state, 1);
    char key[SANDBOX_KEY_SIZE], pool_key[SANDBOX_KEY_SIZE];

    until(f, "ready", 1);
    directory = fs_join(f->vm.directory, "vm");
    {
        _cleanup_closedir_ DIR *dir = opendir(directory);
        struct dirent *de;

        while ((de = readdir(dir)))
            if (de->d_name[0] != '.')
                snprintf(pool_key, sizeof(pool_key), "%.16s", de->d_name);
    }
    assert_int_equal(sandbox_state_read(f->vm.directory, pool_key, &s, NULL), 0);
    assert_string_equal(s.purpose, "pool");
    pool_file = state_file_path(f->vm.directory, pool_key);
    sandbox_key("ns", "pod9", key);
    pod_file = state_file_path(f->vm.directory, key);
    for (int step = 0; step < 2; step++) {
        SandboxState pod = s;

        stop_service(f);
        pod.namespace = (char *)"ns";
        pod.sandbox_id = (char *)"pod9";
        pod.purpose = NULL;
        pod.vm = pool_key;
        assert_int_equal(sandbox_state_write(f->vm.directory, key, &pod, NULL), 0);
        if (step == 1)
            assert_int_equal(uid_move(s.uid, pool_file, pod_file), 0);
        start_service(f);
        assert_int_equal(sandbox_service_count(f->service), 0);
        assert_int_equal(access(pod_file, F_OK), -1);
        until(f, "ready", 1);
        /* Before the uid was moved it is still the pool's; after, it is nobody's. */
        assert_int_equal(f->vm.restored, 1 + step);
        assert_int_equal(access(pool_file, F_OK), step == 0 ? 0 : -1);
        assert_states(f, 1);
    }
}

/* A clone that was being made, and a template. */
static void test_crash_while_it_is_made(void **state)
{
    _cleanup_free_ char *half = NULL;
    Fixture *f = *state;

    if (!f)
        skip();
    f->vm.automatic = false;
    started(state, 0);
    begin(f, 0, 0, NULL);
    while (f->vm.n_calls < 1)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
    fake_vm_settle(&f->vm, 100000);
    begin(f, 1, 0, NULL);
    while (f->vm.booted < 3)
        assert_true(loop_run_once(f->vm.loop, USEC_PER_SEC) >= 0);
    assert_int_equal(entries(f->templates, ".tmp-"), 1);
    stop_service(f);
    fake_vm_settle(&f->vm, 2000);
    f->vm.automatic = true;
    half = string_printf("%s/%032d", f->templates, 0);
    assert_int_equal(mkdir(half, 0700), 0);
    start_service(f);
    fake_vm_settle(&f->vm, 200000);
    assert_int_equal(entries(f->templates, ".tmp-"), 0);
    assert_int_equal(access(half, F_OK), -1);
    assert_states(f, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_made_on_first_need),
        CASE(test_what_only_a_boot_gives),
        CASE(test_each_size_has_its_own),
        CASE(test_a_vmm_that_cannot),
        CASE(test_a_template_in_memory_is_refused),
        CASE(test_making_fails),
        CASE(test_damage_is_noticed),
        CASE(test_touched_is_read_again),
        CASE(test_a_replaced_vmm_makes_another),
        CASE(test_booted_instead),
        CASE(test_neither_clone_nor_boot),
        CASE(test_stale_is_made_again_later),
        CASE(test_released_meanwhile),
        CASE(test_pool),
        CASE(test_a_dead_vm_is_not_handed_out),
        CASE(test_identity_is_refused),
        CASE(test_many_at_once),
        CASE(test_idle),
        CASE(test_held_back),
        CASE(test_restart),
        CASE(test_stop),
        CASE(test_stop_while_one_is_made),
        CASE(test_restart_without_a_pool),
        CASE(test_crash_while_it_is_given),
        CASE(test_crash_while_it_is_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
