/* SPDX-License-Identifier: MIT */
#pragma once

/* CRC-32 as of IEEE 802.3: reflected, polynomial 0x04c11db7; crc32_ieee("123456789") is 0xcbf43926. */

#include <stddef.h>
#include <stdint.h>

uint32_t crc32_ieee(const void *bytes, size_t n);
