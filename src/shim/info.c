/* SPDX-License-Identifier: MIT */

#include "shim/info.h"

#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "containerd-types.pb-c.h"
#include "shim/bootstrap.h"

int info_print_version(void)
{
    return printf("containerd-shim-cloudhv-v1:\n  Version:  %s\n  Runtime:  %s\n", CLOUDHV_VERSION,
                  SHIM_RUNTIME_NAME) < 0 || fflush(stdout) != 0
               ? -EIO
               : 0;
}

static int print(Containerd__Any *options, Error *e)
{
    Containerd__RuntimeInfo info = CONTAINERD__RUNTIME_INFO__INIT;
    Containerd__RuntimeVersion version = CONTAINERD__RUNTIME_VERSION__INIT;
    Containerd__RuntimeInfo__AnnotationsEntry allow_mounts = CONTAINERD__RUNTIME_INFO__ANNOTATIONS_ENTRY__INIT;
    Containerd__RuntimeInfo__AnnotationsEntry *annotations[] = {&allow_mounts};
    _cleanup_free_ uint8_t *data = NULL;
    int r;

    version.version = (char *)CLOUDHV_VERSION;
    allow_mounts.key = (char *)"containerd.io/runtime-allow-mounts";
    info.name = (char *)SHIM_RUNTIME_NAME;
    info.version = &version;
    info.options = options;
    info.n_annotations = ELEMENTSOF(annotations);
    info.annotations = annotations;
    data = malloc(containerd__runtime_info__get_packed_size(&info));
    if (!data)
        return error_set_errno(e, -ENOMEM, "cannot write the runtime's description");
    r = fd_write_full(STDOUT_FILENO, data, containerd__runtime_info__pack(&info, data));
    return r < 0 ? error_set_errno(e, r, "cannot write to standard output") : 0;
}

int info_print(Error *e)
{
    _cleanup_free_ char *data = NULL;
    Containerd__Any *options = NULL;
    size_t n = 0;
    int r;

    r = fd_read_all(STDIN_FILENO, BOOTSTRAP_INPUT_MAX, &data, &n);
    if (r < 0)
        return error_set_errno(e, r, "cannot read the runtime's options from standard input");
    if (n > 0) {
        options = containerd__any__unpack(NULL, n, (uint8_t *)data);
        if (!options)
            return error_set(e, -EINVAL, "standard input is no runtime options");
    }
    r = print(options, e);
    if (options)
        containerd__any__free_unpacked(options, NULL);
    return r;
}
