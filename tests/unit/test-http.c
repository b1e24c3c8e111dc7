/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "vmm/http.h"

static int setup(void **state)
{
    return http_parser_new((HttpParser **)state);
}

static int teardown(void **state)
{
    http_parser_free(*state);
    return 0;
}

static void feed(HttpParser *p, const char *text)
{
    assert_int_equal(http_parser_feed(p, text, strlen(text)), 0);
}

static void expect(HttpParser *p, unsigned status, const char *body)
{
    _cleanup_http_response_ HttpResponse response = {0};

    assert_int_equal(http_parser_next(p, &response, NULL), 0);
    assert_int_equal(response.status, status);
    if (body)
        assert_string_equal(response.body, body);
    else
        assert_null(response.body);
    assert_int_equal(response.size, body ? strlen(body) : 0);
}

static void expect_none(HttpParser *p)
{
    HttpResponse response;

    assert_int_equal(http_parser_next(p, &response, NULL), 1);
}

static void expect_broken(HttpParser *p, int number, const char *words)
{
    _cleanup_error_ Error e = ERROR_INIT;
    HttpResponse response;

    assert_int_equal(http_parser_next(p, &response, &e), number);
    if (!strstr(error_message(&e), words))
        fail_msg("\"%s\" is not in \"%s\"", words, error_message(&e));
    /* It stays so. */
    feed(p, "HTTP/1.1 204 \r\n\r\n");
    assert_int_equal(http_parser_next(p, &response, NULL), number);
}

/* As Cloud Hypervisor sends them. */
static const char with_body[] = "HTTP/1.1 200 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n"
                                "Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"pid\": 12345}";
static const char without_body[] =
    "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n";

static void test_responses(void **state)
{
    HttpParser *p = *state;

    expect_none(p);
    feed(p, with_body);
    feed(p, without_body);
    expect(p, 200, "{\"pid\": 12345}");
    assert_true(http_parser_has_more(p));
    expect(p, 204, NULL);
    assert_false(http_parser_has_more(p));
    expect_none(p);
    feed(p, "HTTP/1.0 500 Internal Server Error\r\ncontent-length:\t2 \r\nConnection: close\r\n\r\n[]");
    {
        _cleanup_http_response_ HttpResponse response = {0};

        assert_int_equal(http_parser_next(p, &response, NULL), 0);
        assert_int_equal(response.status, 500);
        assert_true(response.close);
    }
    feed(p, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n");
    expect(p, 200, NULL);
}

static void test_byte_by_byte(void **state)
{
    HttpParser *p = *state;

    for (size_t i = 0; i < sizeof(with_body) - 2; i++) {
        assert_int_equal(http_parser_feed(p, with_body + i, 1), 0);
        expect_none(p);
    }
    assert_int_equal(http_parser_feed(p, with_body + sizeof(with_body) - 2, 1), 0);
    expect(p, 200, "{\"pid\": 12345}");
}

/* "100 Continue" and the like are no answers. */
static void test_provisional(void **state)
{
    HttpParser *p = *state;

    feed(p, "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n");
    expect_none(p);
    feed(p, without_body);
    expect(p, 204, NULL);
}

static void test_broken(void **state)
{
    static const struct {
        const char *text, *words;
        int number;
    } cases[] = {
        {"\r\n\r\n", "no status line", -EBADMSG},
        {"HTTP/2 200 \r\n\r\n", "no status line", -EBADMSG},
        {"HTTP/1.1 2x0 \r\n\r\n", "no status line", -EBADMSG},
        {"HTTP/1.1 2000 \r\n\r\n", "no status line", -EBADMSG},
        {"HTTP/1.1 099 \r\n\r\n", "no status line", -EBADMSG},
        {"220 mail.example.org\r\n\r\n", "no status line", -EBADMSG},
        {"HTTP/1.1 200 \r\n\r\n", "no Content-Length", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n", "bad Content-Length", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length: \r\n\r\n", "bad Content-Length", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length: 99999999999999999999\r\n\r\n", "bad Content-Length", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad Content-Length", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length: 600000\r\n\r\n", "too long", -EMSGSIZE},
        {"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding", -EBADMSG},
        {"HTTP/1.1 200 \r\nContent-Length : 1\r\n\r\n", "malformed header", -EBADMSG},
        {"HTTP/1.1 200 \r\nA: b\r\n c\r\n\r\n", "malformed header", -EBADMSG},
        {"HTTP/1.1 200 \r\nnothing\r\n\r\n", "malformed header", -EBADMSG},
        {"HTTP/1.1 200 \r\nA: b\nContent-Length: 1\r\n\r\n", "control characters", -EBADMSG},
        {"HTTP/1.1 200 \r\nA: b\rContent-Length: 1\r\n\r\n", "control characters", -EBADMSG},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(http_parser_freep) HttpParser *p = NULL;

        assert_int_equal(http_parser_new(&p), 0);
        feed(p, cases[i].text);
        expect_broken(p, cases[i].number, cases[i].words);
    }
}

static void test_endless_head(void **state)
{
    HttpParser *p = *state;

    feed(p, "HTTP/1.1 200 \r\n");
    for (int i = 0; i < HTTP_HEAD_MAX / 16; i++) {
        feed(p, "Header: value!\r\n");
        if (i < HTTP_HEAD_MAX / 16 - 1)
            expect_none(p);
    }
    expect_broken(p, -EMSGSIZE, "too long a head");
}

static void test_too_much_is_refused(void **state)
{
    static char big[HTTP_BODY_MAX];
    HttpParser *p = *state;

    memset(big, 'x', sizeof(big));
    assert_int_equal(http_parser_feed(p, big, sizeof(big)), 0);
    assert_int_equal(http_parser_feed(p, big, HTTP_HEAD_MAX + 1), -EMSGSIZE);
}

static void test_requests(void **state)
{
    char *request;
    size_t n;

    request = http_request("GET", "/api/v1/vmm.ping", NULL, &n);
    assert_string_equal(request, "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    assert_int_equal(n, strlen(request));
    free(request);
    request = http_request("PUT", "/api/v1/vm.resize", "{}", &n);
    assert_string_equal(request, "PUT /api/v1/vm.resize HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
                                 "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    free(request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_responses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_provisional, setup, teardown),
        cmocka_unit_test(test_broken),
        cmocka_unit_test_setup_teardown(test_endless_head, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_much_is_refused, setup, teardown),
        cmocka_unit_test(test_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
