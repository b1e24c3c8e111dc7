/* SPDX-License-Identifier: MIT */
#pragma once

/* The link layer that gives a serial port (virtio-serial under QEMU) sessions: a nonce tells one client's
 * bytes from those that a killed one left behind, a length and a checksum frame them. A pure state machine,
 * described in docs/protocols.md ("Link layer"). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_HEADER_SIZE 20u
#define LINK_PAYLOAD_MAX 8192u
#define LINK_FRAME_MAX (LINK_HEADER_SIZE + LINK_PAYLOAD_MAX)

typedef enum LinkRole {
    LINK_CLIENT,
    LINK_SERVER,
} LinkRole;

typedef struct Link Link;

int ttrpc_link_new(LinkRole role, Link **ret);
Link *ttrpc_link_free(Link *l);

/* A client's new session: everything is ignored until it is acknowledged. `nonce` is random. */
void ttrpc_link_start(Link *l, uint64_t nonce);
/* Ends the session on this side; what follows is still looked at for a new one. */
void ttrpc_link_end(Link *l);
/* The same, and forgets what was received of a frame: the other side has closed the port. */
void ttrpc_link_stop(Link *l);
/* Whether data can be sent: the session was reset and acknowledged. */
bool ttrpc_link_is_established(const Link *l);

/* For a server that goes on with another one's session: its nonce, and whether nothing of what was received is
 * left to be looked at. */
uint64_t ttrpc_link_nonce(const Link *l);
bool ttrpc_link_is_at_rest(const Link *l);
void ttrpc_link_resume(Link *l, uint64_t nonce);

typedef enum LinkEventType {
    LINK_STARTED, /* server: a client has reset the session, acknowledge it; client: it was acknowledged */
    LINK_DATA,
    LINK_CLOSED, /* the other side has ended the session */
    LINK_BROKEN, /* a damaged frame: the session is over */
} LinkEventType;

typedef struct LinkEvent {
    LinkEventType type;
    const uint8_t *payload; /* of LINK_DATA */
    size_t size;
} LinkEvent;

/* Gives the link bytes, which must stay valid until ttrpc_link_next() has returned 1. */
void ttrpc_link_feed(Link *l, const uint8_t *bytes, size_t n);
/* What they say: 0, or 1 when more bytes are needed, or -ENOMEM. Valid until the next call. */
int ttrpc_link_next(Link *l, LinkEvent *ret);

/* Bytes to be sent; the caller frees *ret. The first two begin with as many zeros as a frame can be long, so
 * that half a frame sent before is completed by them (and fails its checksum) instead of by what follows. */
int ttrpc_link_pack_reset(const Link *l, uint8_t **ret, size_t *ret_size);
int ttrpc_link_pack_reset_ack(const Link *l, uint8_t **ret, size_t *ret_size);
int ttrpc_link_pack_data(const Link *l, const uint8_t *bytes, size_t n, uint8_t **ret, size_t *ret_size);
int ttrpc_link_pack_close(const Link *l, uint8_t **ret, size_t *ret_size);
