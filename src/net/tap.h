/* SPDX-License-Identifier: MIT */
#pragma once

/* The TAP that connects a VM to its pod's network namespace.
 *
 * It is not persistent: the kernel removes it when the last descriptor is closed. The VMM gets a duplicate,
 * so the device lives exactly as long as shim or VMM hold it, and nothing remains of a crash. The other way
 * round, when the namespace goes first, the kernel detaches the device from the descriptors, and reads and
 * writes of the VMM give EBADFD: the guest sees a dead network, not an error of the VMM. So the shim closes
 * its descriptor once the daemon has it, and a TAP that is left over in a namespace means a VMM that still
 * runs.
 *
 * From its first moment the TAP drops all that comes from the guest, until redirect_install() says what may
 * pass. */

#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"
#include "net/rtnl.h"

/* Names of our TAPs: "chtap", 7 hexadecimal digits of the sandbox id's hash, 2 digits of the index. */
void tap_name(const char *sandbox_id, unsigned index, char name[static NET_NAME_SIZE]);
bool tap_name_is_ours(const char *name);

/* The MAC that the VMM gives the guest's device, by which the guest finds it: locally administered, unicast,
 * derived from sandbox id and index. */
void tap_device_mac(const char *sandbox_id, unsigned index, uint8_t mac[static NET_MAC_SIZE]);

/* Makes the TAP in the current network namespace (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR), with `mtu` (0: the
 * kernel's default), without addresses of its own, and raises it. Gives a CLOEXEC, non-blocking descriptor
 * and the interface's index. -EBUSY when there is one of that name: its VMM still runs. */
int tap_new(Rtnl *rtnl, const char *name, uint32_t mtu, int *ret_fd, unsigned *ret_index, Error *e);
