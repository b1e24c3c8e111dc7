/* SPDX-License-Identifier: MIT */

#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

void net_config_clear(NetConfig *config)
{
    for (size_t i = 0; i < config->n_interfaces; i++)
        free(config->interfaces[i].addresses);
    free(config->interfaces);
    free(config->routes);
    free(config->neighbors);
    *config = NET_CONFIG_INIT;
}

/* Grows in powers of two, which needs no field for what is allocated. */
static void *append(void **array, size_t *n, size_t size, size_t max)
{
    void *element;

    if (*n >= max) {
        errno = E2BIG;
        return NULL;
    }
    if ((*n & (*n - 1)) == 0) {
        void *p = realloc(*array, (*n == 0 ? 1 : *n * 2) * size);

        if (!p) {
            errno = ENOMEM;
            return NULL;
        }
        *array = p;
    }
    element = (char *)*array + *n * size;
    memset(element, 0, size);
    (*n)++;
    return element;
}

NetInterface *net_config_add_interface(NetConfig *config)
{
    return append((void **)&config->interfaces, &config->n_interfaces, sizeof(NetInterface),
                  NET_INTERFACES_MAX);
}

NetAddress *net_interface_add_address(NetInterface *interface)
{
    return append((void **)&interface->addresses, &interface->n_addresses, sizeof(NetAddress),
                  NET_ADDRESSES_MAX);
}

NetRoute *net_config_add_route(NetConfig *config)
{
    return append((void **)&config->routes, &config->n_routes, sizeof(NetRoute), NET_ROUTES_MAX);
}

NetNeighbor *net_config_add_neighbor(NetConfig *config)
{
    return append((void **)&config->neighbors, &config->n_neighbors, sizeof(NetNeighbor), NET_NEIGHBORS_MAX);
}

int net_ip_set(NetIp *ip, const void *bytes, size_t n)
{
    if (n != 0 && n != 4 && n != 16)
        return -EINVAL;
    *ip = (NetIp){.n = (uint8_t)n};
    if (n > 0)
        memcpy(ip->bytes, bytes, n);
    return 0;
}

const char *net_ip_string(const NetIp *ip, char buffer[static NET_IP_STRING_SIZE])
{
    if (ip->n != 4 && ip->n != 16)
        return "none";
    return inet_ntop(ip->n == 4 ? AF_INET : AF_INET6, ip->bytes, buffer, NET_IP_STRING_SIZE) ?: "?";
}

const char *net_mac_string(const uint8_t mac[static NET_MAC_SIZE], char buffer[static NET_MAC_STRING_SIZE])
{
    snprintf(buffer, NET_MAC_STRING_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
    return buffer;
}

bool net_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n >= NET_NAME_SIZE)
        return false;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "all") == 0 ||
        strcmp(name, "default") == 0)
        return false;
    for (const char *p = name; *p; p++)
        if (*p <= ' ' || *p >= 127 || *p == '/' || *p == ':' || *p == '%')
            return false;
    return true;
}
