/* SPDX-License-Identifier: MIT */

/* The messages that the agent checks before it acts on them: networks, identities, volumes, file entries. The
 * first byte says which. */

#include <stdint.h>
#include <string.h>

#include "agent/cgroup.h"
#include "agent/identity.h"
#include "agent/names.h"
#include "agent/network.h"
#include "agent/volumes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_network(const uint8_t *data, size_t size)
{
    _cleanup_net_config_ NetConfig config = NET_CONFIG_INIT;
    Cloudhv__Agent__V1__ConfigureNetworkRequest *q =
        cloudhv__agent__v1__configure_network_request__unpack(NULL, size, data);

    if (q)
        (void)network_translate(q, &config, NULL);
    if (config.n_interfaces > NET_INTERFACES_MAX || config.n_routes > NET_ROUTES_MAX)
        abort();
    if (q)
        cloudhv__agent__v1__configure_network_request__free_unpacked(q, NULL);
}

static void try_identity(const uint8_t *data, size_t size)
{
    Cloudhv__Agent__V1__IdentityRequest *q = cloudhv__agent__v1__identity_request__unpack(NULL, size, data);

    if (!q)
        return;
    if (identity_check(q, NULL) >= 0)
        for (size_t i = 0; i < q->n_sysctls; i++) {
            _cleanup_free_ char *path = NULL;

            if (identity_sysctl_path(q->sysctls[i]->key, &path) < 0 || strstr(path, "/../"))
                abort();
        }
    cloudhv__agent__v1__identity_request__free_unpacked(q, NULL);
}

static void try_volumes(const uint8_t *data, size_t size)
{
    Cloudhv__Agent__V1__CreateContainerRequest *q =
        cloudhv__agent__v1__create_container_request__unpack(NULL, size, data);

    if (!q)
        return;
    if (volumes_check(q->volumes, q->n_volumes, NULL) >= 0)
        for (size_t i = 0; i < q->n_volumes; i++)
            if (strchr(q->volumes[i]->name, '/') || strcmp(q->volumes[i]->name, "..") == 0)
                abort();
    cloudhv__agent__v1__create_container_request__free_unpacked(q, NULL);
}

static void try_text(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size);
    uint64_t value;

    if (!text)
        return;
    (void)cgroup_event_value(text, "oom_kill", &value);
    if (name_path_is_valid(text) &&
        (text[0] == '/' || strstr(text, "/../") || strcmp(text, "..") == 0 || strncmp(text, "../", 3) == 0))
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0:
        try_network(data + 1, size - 1);
        break;
    case 1:
        try_identity(data + 1, size - 1);
        break;
    case 2:
        try_volumes(data + 1, size - 1);
        break;
    case 3:
        try_text(data + 1, size - 1);
        break;
    }
    return 0;
}
