/* SPDX-License-Identifier: MIT */

/* The agent resolves no names, but parts of libnl that it never calls do, and a static program gets 110 kB of
 * glibc's name service switch for the mere reference (which could then only work with shared libraries that
 * the guest has not got). These take their place; they know no name. */

#include <netdb.h>
#include <stddef.h>

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
    return EAI_FAIL;
}

void freeaddrinfo(struct addrinfo *list)
{
}

int getnameinfo(const struct sockaddr *restrict address, socklen_t address_size, char *restrict host,
                socklen_t host_size, char *restrict service, socklen_t service_size, int flags)
{
    return EAI_FAIL;
}

struct protoent *getprotobyname(const char *name)
{
    return NULL;
}

struct protoent *getprotobynumber(int number)
{
    return NULL;
}
