/* SPDX-License-Identifier: MIT */
#pragma once

/* SHA-256 (FIPS 180-4), for the keys of caches. None of the libraries we link has it, and libcrypto would be
 * larger than the program. */

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32
#define SHA256_HEX_SIZE 65 /* with the NUL */

typedef struct Sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
} Sha256;

void sha256_init(Sha256 *s);
void sha256_add(Sha256 *s, const void *data, size_t n);
void sha256_add_string(Sha256 *s, const char *text); /* with its NUL, so that parts cannot run together */
void sha256_finish(Sha256 *s, uint8_t digest[static SHA256_SIZE]);
void sha256_finish_hex(Sha256 *s, char hex[static SHA256_HEX_SIZE]);

/* Digest of what is left to read of a descriptor. Returns 0 or a negative errno. */
int sha256_fd_hex(int fd, char hex[static SHA256_HEX_SIZE]);
