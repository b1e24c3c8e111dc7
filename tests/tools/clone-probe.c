/* SPDX-License-Identifier: MIT */

/* What tells a VM from another one, as the first process of its first container sees it: prints "KEY VALUE" lines. To
 * be linked statically. The initial sequence number is that of a connection to a closed port, always between the
 * same two addresses, less what the kernel adds for the time (RFC 6528; net/core/secure_seq.c: 64 ns a step): what
 * is left depends on the kernel's secret alone. */

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static void print_hex(const char *key, const uint8_t *bytes, size_t n)
{
    printf("%s ", key);
    for (size_t i = 0; i < n; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

static void print_file(const char *key, const char *path)
{
    char line[128] = "";
    FILE *f = fopen(path, "re");

    if (!f || !fgets(line, sizeof(line), f)) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    line[strcspn(line, "\n")] = 0;
    printf("%s %s\n", key, line);
}

static uint64_t realtime(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void print_sequence_number(void)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(40000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(40001), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_ll lo = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)if_nametoindex("lo")};
    int packets = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct pollfd p = {.fd = packets, .events = POLLIN};
    uint64_t before;

    if (packets < 0 || bind(packets, (struct sockaddr *)&lo, sizeof(lo)) < 0)
        fail("packet socket");
    if (tcp < 0 || bind(tcp, (struct sockaddr *)&from, sizeof(from)) < 0)
        fail("TCP socket");
    before = realtime();
    (void)connect(tcp, (struct sockaddr *)&to, sizeof(to));
    while (poll(&p, 1, 10000) > 0) {
        uint8_t packet[256];
        ssize_t n = recv(packets, packet, sizeof(packet), 0);
        const struct tcphdr *header = (const struct tcphdr *)(packet + 20);

        if (n < 40 || packet[0] != 0x45 || packet[9] != IPPROTO_TCP || !header->syn || header->dest != htons(40001))
            continue;
        printf("isn %u\n", ntohl(header->seq) - (uint32_t)(before >> 6));
        return;
    }
    fprintf(stderr, "no SYN was seen\n");
    exit(1);
}

int main(void)
{
    volatile int here = 0;
    struct utsname uts;
    uint8_t bytes[16];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        fail("getrandom");
    print_hex("random", bytes, sizeof(bytes));
    print_hex("at_random", (const uint8_t *)getauxval(AT_RANDOM), 16);
    print_file("uuid", "/proc/sys/kernel/random/uuid");
    print_file("boot_id", "/proc/sys/kernel/random/boot_id");
    print_file("machine_id", "/machine-id");
    uname(&uts);
    printf("hostname %s\n", uts.nodename);
    printf("stack %p\n", (void *)&here);
    printf("clock %llu\n", (unsigned long long)realtime());
    print_sequence_number();
    return 0;
}
