/* SPDX-License-Identifier: MIT */

#include "vmm/http.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"

struct HttpParser {
    char *data;
    size_t size, allocated;
    bool in_body;
    HttpResponse current; /* its head was read */
    size_t wanted;        /* bytes of its body */
    bool sized;           /* it said so */
    bool broken;
    int number; /* once broken */
};

int http_parser_new(HttpParser **ret)
{
    *ret = calloc(1, sizeof(**ret));
    return *ret ? 0 : -ENOMEM;
}

HttpParser *http_parser_free(HttpParser *parser)
{
    if (!parser)
        return NULL;
    http_response_clear(&parser->current);
    free(parser->data);
    free(parser);
    return NULL;
}

void http_response_clear(HttpResponse *response)
{
    free(response->body);
    *response = (HttpResponse){0};
}

int http_parser_feed(HttpParser *parser, const void *data, size_t n)
{
    char *grown;

    if (parser->broken)
        return 0;
    if (n > HTTP_HEAD_MAX + HTTP_BODY_MAX - parser->size)
        return -EMSGSIZE;
    if (parser->size + n > parser->allocated) {
        size_t allocated = 2 * (parser->size + n);

        grown = realloc(parser->data, allocated);
        if (!grown)
            return -ENOMEM;
        parser->data = grown;
        parser->allocated = allocated;
    }
    memcpy(parser->data + parser->size, data, n);
    parser->size += n;
    return 0;
}

static void consume(HttpParser *parser, size_t n)
{
    parser->size -= n;
    if (parser->size > 0) {
        memmove(parser->data, parser->data + n, parser->size);
        return;
    }
    /* Answers are rare: between them nothing is kept. */
    free(parser->data);
    parser->data = NULL;
    parser->allocated = 0;
}

static int broken(HttpParser *parser, int number, Error *e, const char *what)
{
    parser->broken = true;
    parser->number = number;
    return error_set(e, number, "HTTP response %s", what);
}

/* "HTTP/1.1 204 No Content"; the words may be missing, and so may the space before them. */
static bool parse_status_line(const char *line, size_t n, unsigned *ret)
{
    static const char version[] = "HTTP/1.";
    unsigned status = 0;

    if (n < 12 || memcmp(line, version, 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return false;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
        status = 10 * status + (unsigned)(line[i] - '0');
    }
    if (status < 100 || status > 599 || (n > 12 && line[12] != ' '))
        return false;
    *ret = status;
    return true;
}

static bool parse_length(const char *text, size_t n, size_t *ret)
{
    size_t value = 0;

    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = 10 * value + (size_t)(text[i] - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *ret = value;
    return true;
}

static bool name_is(const char *name, size_t n, const char *wanted)
{
    return n == strlen(wanted) && strncasecmp(name, wanted, n) == 0;
}

static int parse_header(HttpParser *parser, const char *line, size_t n, Error *e)
{
    const char *colon = memchr(line, ':', n), *value;
    size_t name, size, length;

    /* A space before the colon, or a folded line, is how responses are smuggled. */
    if (!colon || colon == line || line[0] == ' ' || line[0] == '\t' || colon[-1] == ' ' || colon[-1] == '\t')
        return broken(parser, -EBADMSG, e, "has a malformed header");
    name = (size_t)(colon - line);
    value = colon + 1;
    size = n - name - 1;
    while (size > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        size--;
    }
    while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t'))
        size--;
    if (name_is(line, name, "Content-Length")) {
        if (!parse_length(value, size, &length) || (parser->sized && length != parser->wanted))
            return broken(parser, -EBADMSG, e, "has a bad Content-Length");
        if (length > HTTP_BODY_MAX)
            return broken(parser, -EMSGSIZE, e, "is too long");
        parser->sized = true;
        parser->wanted = length;
    } else if (name_is(line, name, "Transfer-Encoding")) {
        return broken(parser, -EBADMSG, e, "has a Transfer-Encoding");
    } else if (name_is(line, name, "Connection")) {
        parser->current.close = name_is(value, size, "close");
    }
    return 0;
}

static size_t line_length(const char *line, const char *stop)
{
    size_t n = 0;

    while (line + n < stop && line[n] != '\r')
        n++;
    return n;
}

/* Reads status line and headers. */
static int parse_head(HttpParser *parser, const char *line, const char *stop, Error *e)
{
    bool first = true;

    parser->sized = false;
    parser->wanted = 0;
    parser->current = (HttpResponse){0};
    while (line < stop) {
        size_t n = line_length(line, stop);
        int r = 0;

        /* A line ends with both, and they are nowhere else. */
        if (memchr(line, 0, n) || memchr(line, '\n', n) || (line + n < stop && line[n + 1] != '\n'))
            return broken(parser, -EBADMSG, e, "has control characters in its head");
        if (!first)
            r = parse_header(parser, line, n, e);
        else if (!parse_status_line(line, n, &parser->current.status))
            r = broken(parser, -EBADMSG, e, "has no status line");
        if (r < 0)
            return r;
        first = false;
        line += n + 2;
    }
    if (first)
        return broken(parser, -EBADMSG, e, "has no status line");
    /* Neither has a body, whatever the headers say (RFC 9112, 6.3). */
    if (parser->current.status < 200 || parser->current.status == 204 || parser->current.status == 304)
        parser->wanted = 0;
    else if (!parser->sized)
        return broken(parser, -EBADMSG, e, "has no Content-Length");
    return 0;
}

/* The same results as http_parser_next(). */
static int next_head(HttpParser *parser, Error *e)
{
    const char *data = parser->data, *end = data ? memmem(data, parser->size, "\r\n\r\n", 4) : NULL;
    size_t head;
    int r;

    if (!end)
        return parser->size > HTTP_HEAD_MAX ? broken(parser, -EMSGSIZE, e, "has too long a head") : 1;
    head = (size_t)(end - data);
    if (head > HTTP_HEAD_MAX)
        return broken(parser, -EMSGSIZE, e, "has too long a head");
    r = parse_head(parser, data, end, e);
    if (r < 0)
        return r;
    consume(parser, head + 4);
    parser->in_body = true;
    return 0;
}

int http_parser_next(HttpParser *parser, HttpResponse *ret, Error *e)
{
    int r;

    do {
        if (parser->broken)
            return error_set(e, parser->number, "the conversation over HTTP is broken");
        r = parser->in_body ? 0 : next_head(parser, e);
        if (r != 0)
            return r;
        if (parser->size < parser->wanted)
            return 1;
        parser->in_body = false;
    } while (parser->current.status < 200);

    if (parser->wanted > 0) {
        parser->current.body = malloc(parser->wanted + 1);
        if (!parser->current.body)
            return broken(parser, -ENOMEM, e, "cannot be kept");
        memcpy(parser->current.body, parser->data, parser->wanted);
        parser->current.body[parser->wanted] = 0;
        parser->current.size = parser->wanted;
        consume(parser, parser->wanted);
    }
    *ret = parser->current;
    parser->current = (HttpResponse){0};
    return 0;
}

bool http_parser_has_more(const HttpParser *parser)
{
    return parser->size > 0;
}

char *http_request(const char *method, const char *path, const char *body, size_t *ret_size)
{
    char *request;

    if (body)
        request = string_printf("%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
                                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                                method, path, strlen(body), body);
    else
        request = string_printf("%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", method, path);
    if (request)
        *ret_size = strlen(request);
    return request;
}
