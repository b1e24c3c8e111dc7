/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "vmm/qmp.h"

static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": "
                               "7}}, \"capabilities\": [\"oob\"]}}\r\n";

static int setup(void **state)
{
    return qmp_new((Qmp **)state);
}

static int teardown(void **state)
{
    qmp_free(*state);
    return 0;
}

static void feed(Qmp *q, const char *text)
{
    assert_int_equal(qmp_feed(q, text, strlen(text)), 0);
}

static void expect_none(Qmp *q)
{
    QmpMessage m;

    assert_int_equal(qmp_next(q, &m, NULL), 1);
}

static void expect(Qmp *q, QmpType type, QmpMessage *m)
{
    assert_int_equal(qmp_next(q, m, NULL), 0);
    assert_int_equal(m->type, type);
}

static void greet(Qmp *q)
{
    _cleanup_qmp_message_ QmpMessage m = {0};

    feed(q, greeting);
    expect(q, QMP_GREETING, &m);
    assert_non_null(json_object_get(m.data, "version"));
}

static uint64_t command(Qmp *q)
{
    uint64_t id;
    char *line;
    size_t n;

    assert_int_equal(qmp_command(q, "query-status", NULL, &id, &line, &n), 0);
    free(line);
    return id;
}

static void test_commands(void **state)
{
    Qmp *q = *state;
    uint64_t id;
    char *line;
    size_t n;

    assert_int_equal(qmp_command(q, "qmp_capabilities", NULL, &id, &line, &n), 0);
    assert_int_equal(id, 1);
    assert_int_equal(strlen(line), n);
    assert_string_equal(line, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
    free(line);
    assert_int_equal(qmp_command(q, "device_del", json_pack("{s:s}", "id", "a\n\"b"), &id, &line, &n), 0);
    assert_int_equal(id, 2);
    assert_string_equal(line, "{\"execute\":\"device_del\",\"id\":2,\"arguments\":{\"id\":\"a\\n\\\"b\"}}\n");
    free(line);
    /* A name that cannot be sent uses up neither the id nor the arguments. */
    assert_int_equal(qmp_command(q, "\xff", json_object(), &id, &line, &n), -EINVAL);
    assert_int_equal(command(q), 3);
}

static void test_bytewise(void **state)
{
    Qmp *q = *state;
    _cleanup_qmp_message_ QmpMessage m = {0};

    for (size_t i = 0; greeting[i]; i++) {
        expect_none(q);
        assert_int_equal(qmp_feed(q, greeting + i, 1), 0);
    }
    expect(q, QMP_GREETING, &m);
    expect_none(q);
}

static void test_interleaved(void **state)
{
    Qmp *q = *state;
    QmpMessage m;
    uint64_t a, b;

    greet(q);
    a = command(q);
    b = command(q);
    feed(q, "\r\n\n{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n"
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\n"
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"d0.x\"}}\n{\"return\": {\"sta");
    expect(q, QMP_EVENT, &m);
    assert_string_equal(m.name, "STOP");
    assert_null(m.data);
    qmp_message_clear(&m);
    expect(q, QMP_ERROR, &m);
    assert_int_equal(m.id, b);
    assert_string_equal(m.name, "GenericError");
    assert_string_equal(m.text, "no");
    qmp_message_clear(&m);
    expect(q, QMP_EVENT, &m);
    assert_string_equal(json_string_value(json_object_get(m.data, "device")), "d0.x");
    qmp_message_clear(&m);
    expect_none(q);
    feed(q, "tus\": \"running\"}, \"id\": 1}\n");
    expect(q, QMP_RETURN, &m);
    assert_int_equal(m.id, a);
    assert_string_equal(json_string_value(json_object_get(m.data, "status")), "running");
    qmp_message_clear(&m);
    expect_none(q);
}

static void expect_broken(Qmp *q, const char *text, int number)
{
    _cleanup_error_ Error e = ERROR_INIT;
    QmpMessage m;

    feed(q, text);
    assert_int_equal(qmp_next(q, &m, &e), number);
    assert_true(strlen(error_message(&e)) > 5);
    /* It stays broken, whatever follows. */
    assert_int_equal(qmp_next(q, &m, NULL), number);
    assert_int_equal(qmp_feed(q, greeting, strlen(greeting)), number);
}

static void test_broken(void **state)
{
    static const char *const lines[] = {
        "{\"QMP\": {}}\n",
        "not json\n",
        "[]\n",
        "{}\n",
        "{\"event\": 5}\n",
        "{\"event\": \"X\", \"data\": []}\n",
        "{\"return\": {}}\n",
        "{\"return\": {}, \"id\": 0}\n",
        "{\"return\": {}, \"id\": 2}\n",
        "{\"return\": {}, \"id\": -1}\n",
        "{\"return\": {}, \"id\": \"1\"}\n",
        "{\"return\": {}, \"id\": 99999999999999999999}\n",
        "{\"error\": {}, \"id\": 1}\n",
        "{\"error\": \"x\", \"id\": 1}\n",
        "{\"error\": {\"class\": \"GenericError\"}, \"id\": 1}\n",
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Expecting a value\"}}\n",
        "{\"return\": {}, \"return\": {}, \"id\": 1}\n",
        "{\"a\": \"\xff\"}\n",
        "{\"return\": {}, \"id\": 1} {}\n",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        Qmp *q;

        assert_int_equal(qmp_new(&q), 0);
        greet(q);
        command(q);
        expect_broken(q, lines[i], -EBADMSG);
        qmp_free(q);
    }
}

static void test_no_greeting(void **state)
{
    expect_broken(*state, "{\"event\": \"STOP\"}\n", -EBADMSG);
}

static void test_error_without_command(void **state)
{
    _cleanup_error_ Error e = ERROR_INIT;
    QmpMessage m;

    greet(*state);
    feed(*state, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"parse error\"}}\n");
    assert_int_equal(qmp_next(*state, &m, &e), -EBADMSG);
    assert_non_null(strstr(error_message(&e), "parse error"));
}

static void test_long_lines(void **state)
{
    Qmp *q = *state;
    char *chunk = malloc(QMP_LINE_MAX);
    QmpMessage m = {0};

    greet(q);
    /* As long as a line may be. */
    memset(chunk, ' ', QMP_LINE_MAX);
    memcpy(chunk, "{\"event\": \"X\"}", 14);
    assert_int_equal(qmp_feed(q, chunk, QMP_LINE_MAX), 0);
    expect_none(q);
    feed(q, "\n");
    expect(q, QMP_EVENT, &m);
    qmp_message_clear(&m);
    /* One byte more, with no end in sight. */
    assert_int_equal(qmp_feed(q, chunk, QMP_LINE_MAX), 0);
    expect_none(q);
    feed(q, " ");
    assert_int_equal(qmp_next(q, &m, NULL), -EMSGSIZE);
    free(chunk);
}

static void test_feed_without_reading(void **state)
{
    Qmp *q = *state;
    char *chunk = calloc(1, QMP_LINE_MAX);

    assert_int_equal(qmp_feed(q, chunk, QMP_LINE_MAX), 0);
    assert_int_equal(qmp_feed(q, chunk, QMP_LINE_MAX), 0);
    assert_int_equal(qmp_feed(q, chunk, 1), -EMSGSIZE);
    free(chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytewise, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interleaved, setup, teardown),
        cmocka_unit_test(test_broken),
        cmocka_unit_test_setup_teardown(test_no_greeting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_without_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feed_without_reading, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
