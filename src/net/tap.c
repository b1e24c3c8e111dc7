/* SPDX-License-Identifier: MIT */

#include "net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/sha256.h"
#include "net/link.h"
#include "net/tap-filter.h"
#include "net/tc.h"

#define TAP_PREFIX "chtap"

enum { TAP_HASH_DIGITS = 7 };

static void digest_of(const char *sandbox_id, unsigned index, uint8_t digest[static SHA256_SIZE])
{
    uint32_t number = index;
    Sha256 s;

    sha256_init(&s);
    sha256_add_string(&s, sandbox_id);
    if (index != UINT_MAX)
        sha256_add(&s, &number, sizeof(number));
    sha256_finish(&s, digest);
}

void tap_name(const char *sandbox_id, unsigned index, char name[static NET_NAME_SIZE])
{
    uint8_t digest[SHA256_SIZE];
    uint32_t hash;

    digest_of(sandbox_id, UINT_MAX, digest);
    memcpy(&hash, digest, sizeof(hash));
    snprintf(name, NET_NAME_SIZE, TAP_PREFIX "%0*x%02u", TAP_HASH_DIGITS, hash & 0xfffffff, index % 100);
}

bool tap_name_is_ours(const char *name)
{
    const char *p = name + strlen(TAP_PREFIX);

    if (strncmp(name, TAP_PREFIX, strlen(TAP_PREFIX)) != 0)
        return false;
    return strspn(p, "0123456789abcdef") == TAP_HASH_DIGITS + 2 && strlen(p) == TAP_HASH_DIGITS + 2;
}

void tap_device_mac(const char *sandbox_id, unsigned index, uint8_t mac[static NET_MAC_SIZE])
{
    uint8_t digest[SHA256_SIZE];

    digest_of(sandbox_id, index, digest);
    memcpy(mac, digest, NET_MAC_SIZE);
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02); /* locally administered, unicast */
}

/* Everything between the device's making and its being up. */
static int tap_set_up(Rtnl *rtnl, unsigned index, const char *name, uint32_t mtu, Error *e)
{
    int r;

    r = tc_ensure_ingress(rtnl, index, name, e);
    if (r >= 0)
        r = tc_drop_all(rtnl, index, name, TAP_PRIORITY_DROP, e);
    /* The host's stack has no business on this device: no address, no solicitations into the guest. */
    if (r >= 0)
        r = link_set_no_ipv6_autoconf(rtnl, index, name, e);
    if (r >= 0 && mtu > 0)
        r = link_set_mtu(rtnl, index, name, mtu, e);
    if (r >= 0)
        r = link_set_up(rtnl, index, name, true, e);
    return r;
}

int tap_new(Rtnl *rtnl, const char *name, uint32_t mtu, int *ret_fd, unsigned *ret_index, Error *e)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL};
    _cleanup_close_ int fd = -EBADF;
    unsigned index;
    int r;

    if (!net_name_is_valid(name))
        return error_set(e, -EINVAL, "cannot make a TAP: bad name '%s'", name);
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set_errno(e, -errno, "cannot open /dev/net/tun to make TAP %s", name);
    memcpy(ifr.ifr_name, name, strlen(name) + 1);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
        r = -errno;
        if (r == -EBUSY)
            return error_set(e, r, "cannot make TAP %s: it exists, so a VMM still holds it", name);
        return error_set_errno(e, r, "cannot make TAP %s", name);
    }
    index = if_nametoindex(name);
    if (index == 0)
        return error_set_errno(e, -errno, "cannot find TAP %s, which was just made", name);
    r = tap_set_up(rtnl, index, name, mtu, e);
    if (r < 0)
        return r;
    *ret_fd = TAKE_FD(fd);
    *ret_index = index;
    return 0;
}
