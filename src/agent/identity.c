/* SPDX-License-Identifier: MIT */

#include "agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "agent/names.h"
#include "base/fd.h"
#include "base/fs.h"

enum {
    HOSTNAME_MAX = 64, /* the kernel's */
    SYSCTL_VALUE_MAX = 4096,
};

struct Identity {
    char *sandbox_id; /* NULL: not yet */
    IdentityFacts facts;
};

int identity_new(Identity **ret)
{
    *ret = calloc(1, sizeof(**ret));
    return *ret ? 0 : -ENOMEM;
}

Identity *identity_free(Identity *identity)
{
    if (identity)
        free(identity->sandbox_id);
    free(identity);
    return NULL;
}

bool identity_is_set(const Identity *identity)
{
    return identity->sandbox_id != NULL;
}

bool identity_sysctl_is_allowed(const char *name)
{
    static const char *const prefixes[] = {"net/", "kernel/shm", "kernel/msg", "fs/mqueue/"};
    static const char *const names[] = {"kernel/sem"};
    _cleanup_free_ char *path = NULL;
    const char *rest;

    if (identity_sysctl_path(name, &path) < 0)
        return false;
    rest = path + strlen("/proc/sys/");
    for (size_t i = 0; i < ELEMENTSOF(prefixes); i++)
        if (strncmp(rest, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (strcmp(rest, names[i]) == 0)
            return true;
    return false;
}

int identity_sysctl_path(const char *name, char **ret)
{
    _cleanup_free_ char *rest = strdup(name);
    size_t first = strcspn(name, "./");

    if (!rest)
        return -ENOMEM;
    if (name[first] == '.')
        for (char *p = rest; *p; p++)
            *p = *p == '.' ? '/' : *p == '/' ? '.' : *p;
    if (!name_path_is_valid(rest))
        return -EINVAL;
    *ret = string_printf("/proc/sys/%s", rest);
    return *ret ? 0 : -ENOMEM;
}

static bool machine_id_is_valid(const char *id)
{
    return strlen(id) == 32 && strspn(id, "0123456789abcdef") == 32;
}

static bool hostname_is_valid(const char *name)
{
    return strlen(name) <= HOSTNAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == strlen(name);
}

int identity_check(const Cloudhv__Agent__V1__IdentityRequest *q, Error *e)
{
    if (!name_is_valid(q->sandbox_id))
        return error_set(e, -EINVAL, "not a sandbox id: \"%.140s\"", q->sandbox_id);
    if (!hostname_is_valid(q->hostname))
        return error_set(e, -EINVAL, "not a host name: \"%.140s\"", q->hostname);
    if (!hostname_is_valid(q->domainname))
        return error_set(e, -EINVAL, "not a domain name: \"%.140s\"", q->domainname);
    if (!machine_id_is_valid(q->machine_id))
        return error_set(e, -EINVAL, "not a machine id: \"%.64s\"", q->machine_id);
    if (q->entropy.len < IDENTITY_ENTROPY_MIN || q->entropy.len > IDENTITY_ENTROPY_MAX)
        return error_set(e, -EINVAL, "%zu bytes of entropy, not %i to %i", q->entropy.len, IDENTITY_ENTROPY_MIN,
                         IDENTITY_ENTROPY_MAX);
    if (q->n_sysctls > IDENTITY_SYSCTLS_MAX)
        return error_set(e, -EINVAL, "%zu sysctls, more than %i", q->n_sysctls, IDENTITY_SYSCTLS_MAX);
    for (size_t i = 0; i < q->n_sysctls; i++) {
        if (!identity_sysctl_is_allowed(q->sysctls[i]->key))
            return error_set(e, -EINVAL, "a pod cannot set the sysctl \"%.256s\": it is not its own",
                             q->sysctls[i]->key);
        if (strlen(q->sysctls[i]->value) > SYSCTL_VALUE_MAX)
            return error_set(e, -EINVAL, "the value of the sysctl %s is too long", q->sysctls[i]->key);
    }
    return 0;
}

/* What the host's random numbers add is what tells this VM from others made of the same template, so it is
 * mixed in and put to use at once (facts: Firecracker's random-for-clones). */
int identity_add_entropy(const ProtobufCBinaryData *entropy, Error *e)
{
    _cleanup_close_ int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    union {
        struct rand_pool_info info;
        char space[sizeof(struct rand_pool_info) + IDENTITY_ENTROPY_MAX];
    } pool = {0};

    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open /dev/urandom");
    pool.info.entropy_count = (int)entropy->len * 8;
    pool.info.buf_size = (int)entropy->len;
    memcpy(pool.space + sizeof(struct rand_pool_info), entropy->data, entropy->len);
    if (ioctl(fd, RNDADDENTROPY, &pool) < 0)
        return error_set_errno(e, -errno, "cannot add entropy");
    explicit_bzero(&pool, sizeof(pool));
    /* Kernels before 4.14 do not know it. */
    if (ioctl(fd, RNDRESEEDCRNG) < 0 && errno != EINVAL && errno != ENOTTY)
        return error_set_errno(e, -errno, "cannot reseed the random number generator");
    return 0;
}

int identity_set_clock(uint64_t realtime_nsec, Error *e)
{
    struct timespec ts = {.tv_sec = (time_t)(realtime_nsec / 1000000000ULL),
                          .tv_nsec = (long)(realtime_nsec % 1000000000ULL)};

    if (realtime_nsec == 0)
        return error_set(e, -EINVAL, "the clock cannot be set to 0");
    return clock_settime(CLOCK_REALTIME, &ts) < 0 ? error_set_errno(e, -errno, "cannot set the clock") : 0;
}

static int set_names(const Cloudhv__Agent__V1__IdentityRequest *q, Error *e)
{
    char hostname[HOSTNAME_MAX + 1];

    if (q->hostname[0])
        snprintf(hostname, sizeof(hostname), "%s", q->hostname);
    else
        snprintf(hostname, sizeof(hostname), "%.12s", q->sandbox_id);
    if (sethostname(hostname, strlen(hostname)) < 0)
        return error_set_errno(e, -errno, "cannot set the host name %s", hostname);
    if (setdomainname(q->domainname, strlen(q->domainname)) < 0)
        return error_set_errno(e, -errno, "cannot set the domain name %s", q->domainname);
    return 0;
}

/* The root file system is read-only; its /etc/machine-id leads here. */
static int write_machine_id(const char *id, Error *e)
{
    _cleanup_free_ char *line = string_printf("%s\n", id);
    int r = line ? fs_write_file_atomic("/run/machine-id", line, strlen(line), 0444) : -ENOMEM;

    return r < 0 ? error_set_errno(e, r, "cannot write /run/machine-id") : 0;
}

static int set_sysctls(const Cloudhv__Agent__V1__IdentityRequest *q, Error *e)
{
    for (size_t i = 0; i < q->n_sysctls; i++) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = identity_sysctl_path(q->sysctls[i]->key, &path);
        if (r >= 0)
            r = fs_write_existing(path, q->sysctls[i]->value);
        if (r < 0)
            return error_set(e, -EINVAL, "cannot set the sysctl %s to \"%.256s\": %s", q->sysctls[i]->key,
                             q->sysctls[i]->value, strerrordesc_np(-r) ?: "unknown error");
    }
    return 0;
}

static int gather_facts(IdentityFacts *ret, Error *e)
{
    _cleanup_free_ char *boot_id = NULL;
    struct sysinfo si;
    int r;

    r = fs_read_file("/proc/sys/kernel/random/boot_id", 64, &boot_id, NULL);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the boot id");
    if (sysinfo(&si) < 0)
        return error_set_errno(e, -errno, "cannot read the size of the memory");
    boot_id[strcspn(boot_id, "\n")] = 0;
    snprintf(ret->boot_id, sizeof(ret->boot_id), "%s", boot_id);
    ret->memory_total = (uint64_t)si.totalram * si.mem_unit;
    ret->vcpus_online = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    return 0;
}

int identity_take(Identity *identity, const Cloudhv__Agent__V1__IdentityRequest *q, IdentityFacts *ret,
                  Error *e)
{
    _cleanup_free_ char *sandbox_id = NULL;
    int r;

    if (identity->sandbox_id) {
        if (strcmp(identity->sandbox_id, q->sandbox_id) != 0)
            return error_set(e, -EBUSY, "the VM belongs to another sandbox, %s", identity->sandbox_id);
        *ret = identity->facts;
        return 0;
    }
    r = identity_check(q, e);
    if (r < 0)
        return r;
    sandbox_id = strdup(q->sandbox_id);
    if (!sandbox_id)
        return error_set(e, -ENOMEM, "out of memory");
    r = identity_add_entropy(&q->entropy, e);
    if (r >= 0)
        r = identity_set_clock(q->realtime_nsec, e);
    if (r >= 0)
        r = set_names(q, e);
    if (r >= 0)
        r = write_machine_id(q->machine_id, e);
    if (r >= 0)
        r = set_sysctls(q, e);
    if (r >= 0)
        r = gather_facts(&identity->facts, e);
    if (r < 0)
        return r;
    identity->sandbox_id = TAKE_PTR(sandbox_id);
    *ret = identity->facts;
    return 0;
}
