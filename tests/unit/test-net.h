/* SPDX-License-Identifier: MIT */
#pragma once

/* For the tests of src/net: a network namespace of their own, and frames. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/net.h"
#include "unit.h"

enum { TEST_SKIPPED = 77 }; /* meson's exit status for it */

static const uint8_t pod_mac[6] = {0x0a, 0x58, 0x0a, 0x01, 0x02, 0x03};
static const uint8_t other_mac[6] = {0x0a, 0x58, 0x0a, 0x01, 0x02, 0x99};

/* A namespace for each test; it ends when the next one is made, or with the process. */
static int _unused_ new_namespace(void **state)
{
    return unshare(CLONE_NEWNET) < 0 ? -1 : 0;
}

static void _unused_ run(const char *command)
{
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

static bool _unused_ succeeds(const char *command)
{
    return system(command) == 0;
}

static NetIp _unused_ ip_of(const char *text)
{
    NetIp ip = {.n = strchr(text, ':') ? 16 : 4};

    assert_int_equal(inet_pton(ip.n == 4 ? AF_INET : AF_INET6, text, ip.bytes), 1);
    return ip;
}

typedef struct Frame {
    uint8_t bytes[256];
    size_t n;
} Frame;

static Frame _unused_ frame_new(const uint8_t *source, uint16_t protocol)
{
    Frame f = {.n = ETH_HLEN};

    memset(f.bytes, 0xff, 6);
    memcpy(f.bytes + 6, source, 6);
    f.bytes[12] = (uint8_t)(protocol >> 8);
    f.bytes[13] = (uint8_t)protocol;
    return f;
}

static Frame _unused_ frame_ip4(const uint8_t *mac, const char *source)
{
    Frame f = frame_new(mac, ETH_P_IP);
    uint8_t *ip = f.bytes + f.n;
    NetIp from = ip_of(source), to = ip_of("10.9.9.9");

    ip[0] = 0x45;
    ip[3] = 28;
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, from.bytes, 4);
    memcpy(ip + 16, to.bytes, 4);
    f.n += 28;
    return f;
}

static Frame _unused_ frame_arp(const uint8_t *mac, const uint8_t *sender_mac, const char *sender)
{
    static const uint8_t types[] = {0, 1, 8, 0, 6, 4, 0, 1};
    Frame f = frame_new(mac, ETH_P_ARP);
    NetIp from = ip_of(sender), to = ip_of("10.9.9.9");

    memcpy(f.bytes + 14, types, sizeof(types));
    memcpy(f.bytes + 22, sender_mac, 6);
    memcpy(f.bytes + 28, from.bytes, 4);
    memcpy(f.bytes + 38, to.bytes, 4);
    f.n = 42;
    return f;
}

static Frame _unused_ frame_ip6(const uint8_t *mac, const char *source, uint8_t next)
{
    Frame f = frame_new(mac, ETH_P_IPV6);
    NetIp from = ip_of(source), to = ip_of("fd00::9");

    f.bytes[14] = 0x60;
    f.bytes[19] = 32;
    f.bytes[20] = next;
    f.bytes[21] = 255;
    memcpy(f.bytes + 22, from.bytes, 16);
    memcpy(f.bytes + 38, to.bytes, 16);
    f.n = 14 + 40 + 32;
    return f;
}

static Frame _unused_ frame_nd(const uint8_t *mac, const char *source, uint8_t type, const char *target)
{
    Frame f = frame_ip6(mac, source, 58);
    NetIp t = ip_of(target);

    f.bytes[54] = type;
    memcpy(f.bytes + 62, t.bytes, 16);
    return f;
}
