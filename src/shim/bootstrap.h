/* SPDX-License-Identifier: MIT */
#pragma once

/* What `start` reads from containerd and what it answers, as bytes in and bytes out.
 *
 * containerd up to 2.2 sends the runtime's options as one Any, or nothing; since 2.3 it sends BootstrapParams. The
 * two are told apart as containerd's own pkg/shim/compat.go does: the input is BootstrapParams when it decodes as
 * such and names the id and the namespace of the command line. */

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { BOOTSTRAP_INPUT_MAX = 10 * 1024 * 1024 };

typedef struct Bootstrap {
    bool params;         /* BootstrapParams: answer with a BootstrapResult */
    bool debug;          /* containerd logs at debug level or below */
    char *ttrpc_address; /* NULL when not given */
    char *socket_dir;    /* NULL when not given */
} Bootstrap;

#define BOOTSTRAP_INIT ((Bootstrap){0})
void bootstrap_clear(Bootstrap *b);
#define _cleanup_bootstrap_ _cleanup_(bootstrap_clear)

/* Input that is neither is an error; so is a socket_dir that is no absolute path. */
int bootstrap_parse(const void *data, size_t n, const char *id, const char *namespace, Bootstrap *ret, Error *e);

typedef enum BootstrapAnswer {
    BOOTSTRAP_ANSWER_ADDRESS,  /* the bare address, which stands for version 2: containerd 1.6 reads nothing else */
    BOOTSTRAP_ANSWER_JSON,     /* {"version":3,…}: containerd 2.0 to 2.2 */
    BOOTSTRAP_ANSWER_PROTOBUF, /* BootstrapResult with version 3: containerd 2.3 and later */
} BootstrapAnswer;

/* The form that fits. `containerd_major` is the major version of the containerd that started us, 0 if unknown. */
BootstrapAnswer bootstrap_choose(const Bootstrap *b, unsigned containerd_major);

/* Gives the bytes to print, which the caller frees. `address` is "unix:///path". */
int bootstrap_answer(BootstrapAnswer answer, const char *address, char **ret, size_t *ret_size);

/* The major version in what `containerd --version` prints ("containerd NAME VERSION REVISION"), with and without
 * a leading "v"; -EINVAL when there is none. */
int bootstrap_parse_version(const char *text, unsigned *ret_major);
