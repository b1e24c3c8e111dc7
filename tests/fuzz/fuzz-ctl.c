/* SPDX-License-Identifier: MIT */

/* What cloudhvctl reads of others: partition tables, image policies, versions, command lines and dumps. */

#include "fuzz.h"

#include "ctl/command.h"
#include "ctl/containerd.h"
#include "ctl/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* As strings, and as bytes without a NUL behind them. */
    _cleanup_free_ char *text = malloc(size + 1);
    unsigned major, minor;
    const char *config;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    (void)image_has_signature(data, size);
    /* What names an unsigned kind of partition is never strict. */
    if (image_policy_is_strict(text))
        REQUIRE(!strstr(text, "verity") && !strstr(text, "unprotected"));
    if (version_parse(text, &major, &minor) >= 0)
        REQUIRE(major < 10000);
    config = containerd_config_argument(text, size + 1);
    if (config)
        REQUIRE(config > text && config < text + size);
    ContainerdRuntime runtime = containerd_dump_runtime(text, "cloudhv");
    REQUIRE(runtime.found || (!runtime.type_ours && !runtime.annotations));
    return 0;
}
