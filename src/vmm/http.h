/* SPDX-License-Identifier: MIT */
#pragma once

/* Answers of an HTTP/1.1 server, as a state machine without I/O: bytes go in, whole responses come out (RFC 9112).
 * Only what Cloud Hypervisor's API needs: a body is as long as Content-Length says. The VMM is not trusted: all is
 * bounded, and what does not fit ends the conversation. */

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Status line and headers together; Cloud Hypervisor sends about 120 bytes. */
#define HTTP_HEAD_MAX (8 * 1024)
/* The longest answer we ask for, vm.info with all devices, is far below that. */
#define HTTP_BODY_MAX (512 * 1024)

typedef struct HttpParser HttpParser;

typedef struct HttpResponse {
    unsigned status; /* 200 to 599: provisional ones are skipped */
    bool close;      /* the server will not answer on this connection again */
    char *body;      /* owned; NULL where there is none, otherwise followed by a NUL */
    size_t size;
} HttpResponse;

void http_response_clear(HttpResponse *response);
#define _cleanup_http_response_ _cleanup_(http_response_clear)

int http_parser_new(HttpParser **ret);
HttpParser *http_parser_free(HttpParser *parser);
DEFINE_CLEANUP_FUNC(HttpParser *, http_parser_free)

/* Takes bytes from the server. Call http_parser_next() until it has no more after each. Returns 0, -ENOMEM, or
 * -EMSGSIZE when far more is kept than one response may have. */
int http_parser_feed(HttpParser *parser, const void *data, size_t n);

/* Gives the next whole response: 0 found, 1 none, negative when it can't be one (-EMSGSIZE: too long, -EBADMSG:
 * anything else); then the conversation is over and each further call says the same. */
int http_parser_next(HttpParser *parser, HttpResponse *ret, Error *e);

/* Whether there are bytes after the response that was given last: of one that nobody asked for, unless requests were
 * sent ahead. */
bool http_parser_has_more(const HttpParser *parser);

/* Makes a request; `body` may be NULL. The caller frees it; NULL when out of memory. */
char *http_request(const char *method, const char *path, const char *body, size_t *ret_size);
