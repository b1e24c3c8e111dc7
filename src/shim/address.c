/* SPDX-License-Identifier: MIT */

#include "shim/address.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "base/fs.h"
#include "base/sha256.h"

int address_socket_path(const char *directory, const char *containerd_address, const char *namespace, const char *id,
                        char **ret, Error *e)
{
    _cleanup_free_ char *path = NULL;
    char hex[SHA256_HEX_SIZE];
    Sha256 s;

    sha256_init(&s);
    /* The runtime's name keeps us apart from another runtime's shim of the same id. */
    sha256_add_string(&s, "io.containerd.cloudhv.v1");
    sha256_add_string(&s, containerd_address ?: "");
    sha256_add_string(&s, namespace);
    sha256_add_string(&s, id);
    sha256_finish_hex(&s, hex);
    path = string_printf("%s/%s", directory ?: ADDRESS_DEFAULT_DIR, hex);
    if (!path)
        return error_set_errno(e, -ENOMEM, "cannot name the socket");
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return error_set(e, -ENAMETOOLONG, "the socket's path %s is longer than %zu bytes", path,
                         sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    *ret = TAKE_PTR(path);
    return 0;
}
