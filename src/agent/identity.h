/* SPDX-License-Identifier: MIT */
#pragma once

/* The VM's own identity: clock, random numbers, host name, machine id and the pod's sysctls. Given once, by
 * the host, before anything else; nothing of it is read or made before. */

#include <stdbool.h>
#include <stdint.h>

#include "agent.pb-c.h"
#include "base/error.h"

enum {
    IDENTITY_ENTROPY_MIN = 32,
    IDENTITY_ENTROPY_MAX = 512,
    IDENTITY_SYSCTLS_MAX = 256,
};

typedef struct Identity Identity;

typedef struct IdentityFacts {
    char boot_id[40];
    uint64_t memory_total; /* bytes */
    uint32_t vcpus_online;
} IdentityFacts;

int identity_new(Identity **ret);
Identity *identity_free(Identity *identity);
DEFINE_CLEANUP_FUNC(Identity *, identity_free)

/* Whether the VM has got its identity. */
bool identity_is_set(const Identity *identity);

/* Mixes the host's random numbers in and puts them to use. */
int identity_add_entropy(const ProtobufCBinaryData *entropy, Error *e);

/* Takes the identity. With the sandbox id that it has already, answers as the first time; -EBUSY for another
 * one, -EINVAL for a request that makes no sense. A failure leaves the VM without identity. */
int identity_take(Identity *identity, const Cloudhv__Agent__V1__IdentityRequest *request,
                  IdentityFacts *ret, Error *e);

/* Sets the realtime clock. */
int identity_set_clock(uint64_t realtime_nsec, Error *e);

/* A request's checks, without any effect. */
int identity_check(const Cloudhv__Agent__V1__IdentityRequest *request, Error *e);

/* Whether a pod may set this sysctl: those that belong to namespaces. "net.ipv4.x" and "net/ipv4/x" alike. */
bool identity_sysctl_is_allowed(const char *name);

/* The file of a sysctl under /proc/sys; -EINVAL. Slashes and dots may each be written for the other, as
 * sysctl(8) has it: whichever comes first separates. The caller frees it. */
int identity_sysctl_path(const char *name, char **ret);
