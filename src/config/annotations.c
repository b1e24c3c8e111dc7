/* SPDX-License-Identifier: MIT */

#include "config/annotations.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/fs.h"
#include "config/config.h"

#define KERNEL_PARAMS_MAX 1024 /* the kernel's own limit for the whole line is 2048 */
#define MEMORY_MIN_MB 64
#define MEMORY_MAX_MB (1U << 20)
#define WARM "io.cloudhv.warm"

/* The first that is present wins. */
static const char *const prefixes[] = {"io.cloudhv.config.hypervisor.",
                                       "io.katacontainers.config.hypervisor."};

/* Kernel parameters that cloudhv sets, and without which the guest does not come up or says nothing: with `=`
 * in any value, without it as a word of its own. */
static const char *const reserved[] = {
    "--",
    "init=",
    "rdinit=",
    "root=",
    "rootfstype=",
    "rootflags=",
    "rootwait",
    "rootdelay=",
    "ro",
    "rw",
    "initrd=",
    "noinitrd",
    "console=",
    "earlyprintk",
    "earlyprintk=",
    "earlycon",
    "earlycon=",
    "panic=",
    "reboot=",
    "net.ifnames=",
    "ip=",
    "nfsroot=",
    "mem=",
    "memmap=",
    "maxcpus=",
    "nr_cpus=",
    "nosmp",
    "single",
    "emergency",
    "tsc_early_khz=",
    "virtio_mmio.device=",
    "dyndbg=",
    "bootconfig",
    "kgdboc=",
};

static int bad(bool warn, Annotations *a, Error *e, const char *format, ...) _printf_(4, 5);

/* One bad value: the end, or a warning more. */
static int bad(bool warn, Annotations *a, Error *e, const char *format, ...)
{
    _cleanup_error_ Error message = ERROR_INIT;
    char **longer;
    va_list ap;

    va_start(ap, format);
    error_setv(&message, -EINVAL, format, ap);
    va_end(ap);
    if (!warn)
        return error_move(e, &message);
    longer = realloc(a->warnings, (a->n_warnings + 1) * sizeof(*longer));
    if (!longer || !message.message)
        return error_set_errno(e, -ENOMEM, "cannot read the annotations");
    a->warnings = longer;
    a->warnings[a->n_warnings++] = TAKE_PTR(message.message);
    return 0;
}

/* 1 and the annotation's full name and value, 0 when neither form of it is there. */
static int lookup(json_t *annotations, const char *name, bool warn, Annotations *a, char **ret_key,
                  const char **ret_value, Error *e)
{
    for (size_t i = 0; i < ELEMENTSOF(prefixes); i++) {
        _cleanup_free_ char *key = string_printf("%s%s", prefixes[i], name);
        json_t *value;

        if (!key)
            return error_set_errno(e, -ENOMEM, "cannot read the annotations");
        value = json_object_get(annotations, key);
        if (!value)
            continue;
        if (!json_is_string(value)) {
            int r = bad(warn, a, e, "annotation %s must be a string", key);

            return r < 0 ? r : 0;
        }
        *ret_key = TAKE_PTR(key);
        *ret_value = json_string_value(value);
        return 1;
    }
    return 0;
}

/* Decimal digits only: no sign, no white space, no octal. */
static bool parse_number(const char *text, uint64_t *ret)
{
    uint64_t v = 0;

    if (!*text || strlen(text) > 18)
        return false;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *ret = v;
    return true;
}

static int read_number(json_t *annotations, const char *name, uint64_t min, uint64_t max, bool warn,
                       Annotations *a, uint64_t *ret, Error *e)
{
    _cleanup_free_ char *key = NULL;
    const char *value = NULL;
    uint64_t v;
    int r = lookup(annotations, name, warn, a, &key, &value, e);

    if (r <= 0)
        return r;
    if (!parse_number(value, &v))
        return bad(warn, a, e, "annotation %s is \"%.64s\", but must be a whole number", key, value);
    if (v < min || v > max)
        return bad(warn, a, e, "annotation %s is %s, but must be between %llu and %llu", key, value,
                   (unsigned long long)min, (unsigned long long)max);
    *ret = v;
    return 0;
}

/* 1 for a switch that is set, 0 for one that is not there or was bad and warned about. */
static int parse_flag(const char *key, const char *value, bool warn, Annotations *a, bool *ret, Error *e)
{
    if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0) {
        int r = bad(warn, a, e, "annotation %s is \"%.64s\", but must be true or false", key, value);

        return r < 0 ? r : 0;
    }
    *ret = strcmp(value, "true") == 0;
    return 1;
}

static const char *reserved_parameter(const char *word, size_t n)
{
    for (size_t i = 0; i < ELEMENTSOF(reserved); i++) {
        size_t length = strlen(reserved[i]);
        char last = reserved[i][length - 1];

        if (last == '=' ? n >= length && memcmp(word, reserved[i], length) == 0
                        : n == length && memcmp(word, reserved[i], length) == 0)
            return reserved[i];
    }
    return NULL;
}

static int check_kernel_params(const char *key, const char *value, bool warn, Annotations *a, Error *e)
{
    if (strlen(value) > KERNEL_PARAMS_MAX)
        return bad(warn, a, e, "annotation %s has more than %i characters", key, KERNEL_PARAMS_MAX);
    for (const char *p = value; *p; p++) {
        /* Quotes would let a value hold white space, and thereby hide what follows from the check below. */
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e || *p == '"')
            return bad(warn, a, e, "annotation %s has a character other than printable ASCII without quotes",
                       key);
    }
    for (const char *p = value; *p;) {
        size_t n = strcspn(p, " ");
        char word[KERNEL_PARAMS_MAX + 1];
        const char *ours;

        /* The kernel takes "-" and "_" in a parameter's name for the same. */
        for (size_t i = 0; i < n; i++)
            word[i] = p[i] == '-' && i > 1 && !memchr(p, '=', i) ? '_' : p[i];
        ours = reserved_parameter(word, n);
        if (ours)
            return bad(warn, a, e, "annotation %s has \"%.*s\", but %s is set by cloudhv", key,
                       (int)(n > 64 ? 64 : n), p, ours);
        p += n;
        p += strspn(p, " ");
    }
    return 1;
}

static int read_kernel_params(json_t *annotations, bool warn, Annotations *a, Error *e)
{
    _cleanup_free_ char *key = NULL;
    const char *value = NULL;
    int r = lookup(annotations, "kernel_params", warn, a, &key, &value, e);

    if (r <= 0)
        return r;
    r = check_kernel_params(key, value, warn, a, e);
    if (r <= 0)
        return r;
    value += strspn(value, " ");
    if (!*value)
        return 0;
    a->kernel_params = strdup(value);
    return a->kernel_params ? 0 : error_set_errno(e, -ENOMEM, "cannot read the annotations");
}

static int read_virtio_mem(json_t *annotations, bool warn, Annotations *a, Error *e)
{
    _cleanup_free_ char *key = NULL;
    const char *value = NULL;
    int r = lookup(annotations, "enable_virtio_mem", warn, a, &key, &value, e);

    if (r <= 0)
        return r;
    r = parse_flag(key, value, warn, a, &a->enable_virtio_mem, e);
    if (r < 0)
        return r;
    a->enable_virtio_mem_set = r > 0;
    return 0;
}

static int read_warm(json_t *annotations, bool warn, Annotations *a, Error *e)
{
    json_t *value = json_object_get(annotations, WARM);
    int r;

    if (!value)
        return 0;
    if (!json_is_string(value))
        return bad(warn, a, e, "annotation %s must be a string", WARM);
    r = parse_flag(WARM, json_string_value(value), warn, a, &a->warm, e);
    return r < 0 ? r : 0;
}

int annotations_parse(json_t *annotations, bool warn, Annotations **ret, Error *e)
{
    _cleanup_annotations_ Annotations *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return error_set_errno(e, -ENOMEM, "cannot read the annotations");
    r = read_number(annotations, "default_memory", MEMORY_MIN_MB, MEMORY_MAX_MB, warn, a,
                    &a->default_memory_mb, e);
    if (r >= 0)
        r = read_number(annotations, "memory_limit", MEMORY_MIN_MB, MEMORY_MAX_MB, warn, a,
                        &a->memory_limit_mb, e);
    if (r >= 0)
        r = read_number(annotations, "default_vcpus", 1, CONFIG_VCPUS_MAX, warn, a, &a->default_vcpus, e);
    if (r >= 0)
        r = read_number(annotations, "default_max_vcpus", 1, CONFIG_VCPUS_MAX, warn, a, &a->default_max_vcpus,
                        e);
    if (r >= 0)
        r = read_kernel_params(annotations, warn, a, e);
    if (r >= 0)
        r = read_virtio_mem(annotations, warn, a, e);
    if (r >= 0)
        r = read_warm(annotations, warn, a, e);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(a);
    return 0;
}

Annotations *annotations_free(Annotations *annotations)
{
    if (!annotations)
        return NULL;
    for (size_t i = 0; i < annotations->n_warnings; i++)
        free(annotations->warnings[i]);
    free(annotations->warnings);
    free(annotations->kernel_params);
    free(annotations);
    return NULL;
}
