/* SPDX-License-Identifier: MIT */

#include "net/source-filter.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <string.h>

/* Offsets in the frame. */
enum {
    ETH_SOURCE = 6,
    ETH_PROTOCOL = 12,
    IP4_SOURCE = ETH_HLEN + 12,
    ARP_TYPES = ETH_HLEN, /* hardware type, protocol type */
    ARP_SIZES = ETH_HLEN + 4,
    ARP_SENDER_MAC = ETH_HLEN + 8,
    ARP_SENDER_IP = ETH_HLEN + 14,
    IP6_NEXT = ETH_HLEN + 6,
    IP6_SOURCE = ETH_HLEN + 8,
    IP6_PAYLOAD = ETH_HLEN + 40,
    ND_TARGET = IP6_PAYLOAD + 8,
};

enum { VALUE_PASS = -1, VALUE_DROP = 0 };

/* Jumps of classic BPF go forward only; conditional ones reach 255 instructions, plain ones everywhere. So
 * each condition here guards exactly the one instruction that follows it. */
typedef struct Program {
    struct sock_filter *code;
    size_t n;
} Program;

static size_t emit(Program *p, unsigned code, uint32_t k)
{
    if (p->n < BPF_MAXINSNS)
        p->code[p->n] = (struct sock_filter){.code = (uint16_t)code, .k = k};
    return p->n++; /* goes on counting: the end sees that it did not fit */
}

static void emit_if(Program *p, uint32_t equal_to)
{
    size_t i = emit(p, BPF_JMP | BPF_JEQ | BPF_K, equal_to);

    if (i < BPF_MAXINSNS)
        p->code[i].jf = 1;
}

static void emit_unless(Program *p, uint32_t equal_to)
{
    size_t i = emit(p, BPF_JMP | BPF_JEQ | BPF_K, equal_to);

    if (i < BPF_MAXINSNS)
        p->code[i].jt = 1;
}

static void emit_return(Program *p, int value)
{
    emit(p, BPF_RET | BPF_K, (uint32_t)value);
}

static size_t emit_jump(Program *p)
{
    return emit(p, BPF_JMP | BPF_JA, 0);
}

/* Lets a jump made earlier go to what comes next. */
static void land(Program *p, size_t jump)
{
    if (jump < BPF_MAXINSNS)
        p->code[jump].k = (uint32_t)(p->n - jump - 1);
}

static void load8(Program *p, uint32_t offset)
{
    emit(p, BPF_LD | BPF_B | BPF_ABS, offset);
}

static void load16(Program *p, uint32_t offset)
{
    emit(p, BPF_LD | BPF_H | BPF_ABS, offset);
}

static void load32(Program *p, uint32_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, offset);
}

static uint32_t be32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void drop_unless_mac(Program *p, uint32_t offset, const uint8_t *mac)
{
    load32(p, offset);
    emit_unless(p, be32(mac));
    emit_return(p, VALUE_DROP);
    load16(p, offset + 4);
    emit_unless(p, (uint32_t)mac[4] << 8 | mac[5]);
    emit_return(p, VALUE_DROP);
}

/* Ends the program: passes if the IPv4 address at `offset` is the pod's, else drops. */
static void pass_if_ip4(Program *p, uint32_t offset, const NetInterface *interface)
{
    load32(p, offset);
    for (size_t i = 0; i < interface->n_addresses; i++) {
        const NetIp *ip = &interface->addresses[i].address;

        if (ip->n != 4)
            continue;
        emit_if(p, be32(ip->bytes));
        emit_return(p, VALUE_PASS);
    }
    emit_return(p, VALUE_DROP);
}

/* Goes on after the instruction that follows unless the 16 bytes at `offset` are `address`. */
static void emit_if_ip6(Program *p, uint32_t offset, const uint8_t *address)
{
    for (unsigned i = 0; i < 4; i++) {
        size_t at;

        load32(p, offset + i * 4);
        at = emit(p, BPF_JMP | BPF_JEQ | BPF_K, be32(address + i * 4));
        if (at < BPF_MAXINSNS)
            p->code[at].jf = (uint8_t)((3 - i) * 2 + 1);
    }
}

static void link_local_of(const uint8_t *mac, uint8_t address[static 16])
{
    const uint8_t bytes[16] = {0xfe,       0x80,   0,      0,    0,    0,      0,      0,
                               mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};

    memcpy(address, bytes, sizeof(bytes));
}

/* Runs `match` for each IPv6 address that the pod may use, between the test and what follows it. Gives the
 * jumps that `match` made, at most one for each address. */
static size_t for_each_ip6(Program *p, uint32_t offset, const NetInterface *interface, bool pass,
                           size_t *jumps)
{
    uint8_t link_local[16];
    size_t n = 0;

    link_local_of(interface->mac, link_local);
    for (size_t i = 0; i <= interface->n_addresses; i++) {
        const uint8_t *bytes = link_local;

        if (i < interface->n_addresses) {
            if (interface->addresses[i].address.n != 16)
                continue;
            bytes = interface->addresses[i].address.bytes;
        }
        emit_if_ip6(p, offset, bytes);
        if (pass)
            emit_return(p, VALUE_PASS);
        else
            jumps[n++] = emit_jump(p);
    }
    return n;
}

/* Drops neighbour discovery behind one extension header, and a second extension header. */
static void emit_extension_header(Program *p)
{
    static const uint8_t refused_next[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS,
                                           IPPROTO_FRAGMENT};
    size_t other;

    load8(p, IP6_PAYLOAD);
    for (size_t i = 0; i < ELEMENTSOF(refused_next); i++) {
        emit_if(p, refused_next[i]);
        emit_return(p, VALUE_DROP);
    }
    emit_unless(p, IPPROTO_ICMPV6);
    other = emit_jump(p);
    load8(p, IP6_PAYLOAD + 1); /* its size in units of 8 bytes, without the first 8 */
    emit(p, BPF_ALU | BPF_LSH | BPF_K, 3);
    emit(p, BPF_ALU | BPF_ADD | BPF_K, 8);
    emit(p, BPF_MISC | BPF_TAX, 0);
    emit(p, BPF_LD | BPF_B | BPF_IND, IP6_PAYLOAD);
    for (unsigned type = ND_ROUTER_ADVERT; type <= ND_REDIRECT; type++) {
        emit_if(p, type);
        emit_return(p, VALUE_DROP);
    }
    land(p, other);
}

static void emit_ip6(Program *p, const NetInterface *interface)
{
    static const uint8_t unspecified[16] = {0};
    static const uint8_t extensions[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS};
    size_t target_jumps[NET_ADDRESSES_MAX + 1], n_targets, extension[ELEMENTSOF(extensions)];
    size_t to_source[3], advert, detection, after_extension, not_detection;

    load8(p, IP6_NEXT);
    for (size_t i = 0; i < ELEMENTSOF(extensions); i++) {
        emit_if(p, extensions[i]);
        extension[i] = emit_jump(p);
    }
    emit_unless(p, IPPROTO_ICMPV6);
    to_source[0] = emit_jump(p);
    load8(p, IP6_PAYLOAD);
    emit_if(p, ND_ROUTER_ADVERT);
    emit_return(p, VALUE_DROP);
    emit_if(p, ND_REDIRECT);
    emit_return(p, VALUE_DROP);
    emit_if(p, ND_NEIGHBOR_ADVERT);
    advert = emit_jump(p);
    emit_unless(p, ND_NEIGHBOR_SOLICIT);
    to_source[1] = emit_jump(p);
    emit_if_ip6(p, IP6_SOURCE, unspecified);
    detection = emit_jump(p);
    to_source[2] = emit_jump(p);

    for (size_t i = 0; i < ELEMENTSOF(extensions); i++)
        land(p, extension[i]);
    emit_extension_header(p);
    after_extension = emit_jump(p);

    land(p, advert);
    land(p, detection);
    n_targets = for_each_ip6(p, ND_TARGET, interface, false, target_jumps);
    emit_return(p, VALUE_DROP);
    for (size_t i = 0; i < n_targets; i++)
        land(p, target_jumps[i]);
    load8(p, IP6_PAYLOAD);
    emit_unless(p, ND_NEIGHBOR_SOLICIT);
    not_detection = emit_jump(p);
    emit_return(p, VALUE_PASS); /* a solicitation is here only with the unspecified source */

    land(p, not_detection);
    land(p, after_extension);
    for (size_t i = 0; i < ELEMENTSOF(to_source); i++)
        land(p, to_source[i]);
    for_each_ip6(p, IP6_SOURCE, interface, true, NULL);
    emit_return(p, VALUE_DROP);
}

int source_filter_build(const NetInterface *interface, struct sock_filter **ret, size_t *ret_n)
{
    _cleanup_free_ struct sock_filter *code = calloc(BPF_MAXINSNS, sizeof(*code));
    Program p = {.code = code};
    size_t not_ip4, not_arp, not_ip6;

    if (!code)
        return -ENOMEM;
    if (interface->n_addresses > NET_ADDRESSES_MAX)
        return -E2BIG;
    load8(&p, (uint32_t)SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT);
    emit_unless(&p, 0);
    emit_return(&p, VALUE_DROP);
    drop_unless_mac(&p, ETH_SOURCE, interface->mac);

    load16(&p, ETH_PROTOCOL);
    emit_unless(&p, ETH_P_IP);
    not_ip4 = emit_jump(&p);
    pass_if_ip4(&p, IP4_SOURCE, interface);

    land(&p, not_ip4);
    emit_unless(&p, ETH_P_ARP);
    not_arp = emit_jump(&p);
    load32(&p, ARP_TYPES);
    emit_unless(&p, 1U << 16 | ETH_P_IP); /* 1: Ethernet */
    emit_return(&p, VALUE_DROP);
    load16(&p, ARP_SIZES);
    emit_unless(&p, NET_MAC_SIZE << 8 | 4);
    emit_return(&p, VALUE_DROP);
    drop_unless_mac(&p, ARP_SENDER_MAC, interface->mac);
    pass_if_ip4(&p, ARP_SENDER_IP, interface);

    land(&p, not_arp);
    emit_unless(&p, ETH_P_IPV6);
    not_ip6 = emit_jump(&p);
    emit_ip6(&p, interface);

    land(&p, not_ip6);
    emit_return(&p, VALUE_DROP);
    if (p.n > BPF_MAXINSNS)
        return -E2BIG;
    *ret = TAKE_PTR(code);
    *ret_n = p.n;
    return 0;
}
