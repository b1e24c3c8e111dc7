/* SPDX-License-Identifier: MIT */

#include "shim/bootstrap.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/fs.h"
#include "containerd-bootstrap.pb-c.h"

/* containerd.runtime.bootstrap.v1.LogLevel */
enum { LOG_LEVEL_DEBUG = -4 };

static void params_free(Containerd__BootstrapParams **p)
{
    if (*p)
        containerd__bootstrap_params__free_unpacked(*p, NULL);
}

static void any_free(Containerd__Any **p)
{
    if (*p)
        containerd__any__free_unpacked(*p, NULL);
}

void bootstrap_clear(Bootstrap *b)
{
    free(b->ttrpc_address);
    free(b->socket_dir);
    *b = BOOTSTRAP_INIT;
}

static int copy_string(const char *text, char **ret)
{
    char *copy;

    if (!*text)
        return 0;
    copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    *ret = copy;
    return 0;
}

static int take_params(const Containerd__BootstrapParams *p, Bootstrap *ret, Error *e)
{
    _cleanup_bootstrap_ Bootstrap b = BOOTSTRAP_INIT;
    int r;

    if (*p->socket_dir && *p->socket_dir != '/')
        return error_set(e, -EINVAL, "socket_dir \"%s\" of the bootstrap parameters is no absolute path",
                         p->socket_dir);
    b.params = true;
    b.debug = p->log_level <= LOG_LEVEL_DEBUG;
    r = copy_string(p->containerd_ttrpc_address, &b.ttrpc_address);
    if (r >= 0)
        r = copy_string(p->socket_dir, &b.socket_dir);
    if (r < 0)
        return error_set_errno(e, r, "cannot keep the bootstrap parameters");
    *ret = b;
    b = BOOTSTRAP_INIT;
    return 0;
}

int bootstrap_parse(const void *data, size_t n, const char *id, const char *namespace, Bootstrap *ret, Error *e)
{
    _cleanup_(params_free) Containerd__BootstrapParams *params = NULL;
    _cleanup_(any_free) Containerd__Any *any = NULL;

    if (n > BOOTSTRAP_INPUT_MAX)
        return error_set(e, -EFBIG, "more than %i bytes on standard input", BOOTSTRAP_INPUT_MAX);
    if (n > 0) {
        params = containerd__bootstrap_params__unpack(NULL, n, data);
        if (params && strcmp(params->instance_id, id) == 0 && strcmp(params->namespace_, namespace) == 0)
            return take_params(params, ret, e);
        any = containerd__any__unpack(NULL, n, data);
        if (!any)
            return error_set(e, -EINVAL, "standard input is neither containerd's bootstrap parameters for %s/%s "
                                         "nor runtime options", namespace, id);
    }
    *ret = BOOTSTRAP_INIT;
    return 0;
}

BootstrapAnswer bootstrap_choose(const Bootstrap *b, unsigned containerd_major)
{
    if (b->params)
        return BOOTSTRAP_ANSWER_PROTOBUF;
    return containerd_major >= 2 ? BOOTSTRAP_ANSWER_JSON : BOOTSTRAP_ANSWER_ADDRESS;
}

static int answer_protobuf(const char *address, char **ret, size_t *ret_size)
{
    Containerd__BootstrapResult result = CONTAINERD__BOOTSTRAP_RESULT__INIT;
    uint8_t *data;

    result.version = 3;
    result.address = (char *)address;
    result.protocol = (char *)"ttrpc";
    data = malloc(containerd__bootstrap_result__get_packed_size(&result));
    if (!data)
        return -ENOMEM;
    *ret_size = containerd__bootstrap_result__pack(&result, data);
    *ret = (char *)data;
    return 0;
}

int bootstrap_answer(BootstrapAnswer answer, const char *address, char **ret, size_t *ret_size)
{
    char *text;

    if (answer == BOOTSTRAP_ANSWER_PROTOBUF)
        return answer_protobuf(address, ret, ret_size);
    /* Nothing in the address needs escaping: it is a directory of containerd's and a hexadecimal name. */
    text = answer == BOOTSTRAP_ANSWER_JSON
               ? string_printf("{\"version\":3,\"address\":\"%s\",\"protocol\":\"ttrpc\"}", address)
               : strdup(address);
    if (!text)
        return -ENOMEM;
    *ret = text;
    *ret_size = strlen(text);
    return 0;
}

int bootstrap_parse_version(const char *text, unsigned *ret_major)
{
    unsigned major = 0, n = 0;

    /* The version is the third word. */
    for (int i = 0; i < 2; i++) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    if (*text == 'v')
        text++;
    for (; isdigit((unsigned char)*text) && n < 4; text++, n++)
        major = major * 10 + (unsigned)(*text - '0');
    if (n == 0 || *text != '.')
        return -EINVAL;
    *ret_major = major;
    return 0;
}
