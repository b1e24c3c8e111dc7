/* SPDX-License-Identifier: MIT */

#include "unit.h"

#include <errno.h>
#include <string.h>

#include "vmm/ch-events.h"

/* As Cloud Hypervisor writes them. */
static const char stream[] = "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 7346}\n  ,\n  \"source\": \"vmm\",\n"
                             "  \"event\": \"starting\",\n  \"properties\": null\n}\n\n"
                             "{\n  \"source\": \"vm\",\n  \"event\": \"device-removed\",\n  \"properties\": {\n"
                             "    \"id\": \"d.}\\\"{\",\n    \"bdf\": \"0000:00:04.0\"\n  }\n}\n\n";

static void expect(ChEvents *events, const char *source, const char *name, const char *id)
{
    _cleanup_ch_event_ ChEvent event = {0};

    assert_int_equal(ch_events_next(events, &event, NULL), 0);
    assert_string_equal(event.source, source);
    assert_string_equal(event.event, name);
    if (id)
        assert_string_equal(event.id, id);
    else
        assert_null(event.id);
}

static void expect_none(ChEvents *events)
{
    ChEvent event;

    assert_int_equal(ch_events_next(events, &event, NULL), 1);
}

static void test_stream(void **state)
{
    ChEvents events = {0};

    expect_none(&events);
    assert_int_equal(ch_events_feed(&events, stream, sizeof(stream) - 1), 0);
    expect(&events, "vmm", "starting", NULL);
    expect(&events, "vm", "device-removed", "d.}\"{");
    expect_none(&events);
    assert_null(events.data);
    ch_events_clear(&events);
}

static void test_byte_by_byte(void **state)
{
    ChEvents events = {0};
    unsigned n = 0;

    for (size_t i = 0; i < sizeof(stream) - 1; i++) {
        _cleanup_ch_event_ ChEvent event = {0};

        assert_int_equal(ch_events_feed(&events, stream + i, 1), 0);
        n += ch_events_next(&events, &event, NULL) == 0;
    }
    assert_int_equal(n, 2);
    ch_events_clear(&events);
}

static void test_broken(void **state)
{
    static const char *const cases[] = {
        "[]", "x", "{}", "{\"source\":1,\"event\":\"x\"}", "{\"source\":\"vm\"}", "{\"source\":\"vm\",\"event\":\"x\",}",
        "{\"source\":\"vm\",\"event\":\"x\",\"properties\":[]}",
        "{\"source\":\"vm\",\"event\":\"x\",\"properties\":{\"id\":7}}",
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        ChEvents events = {0};
        ChEvent event;

        assert_int_equal(ch_events_feed(&events, cases[i], strlen(cases[i])), 0);
        assert_int_equal(ch_events_next(&events, &event, NULL), -EBADMSG);
        assert_int_equal(ch_events_feed(&events, stream, sizeof(stream) - 1), 0);
        assert_int_equal(ch_events_next(&events, &event, NULL), -EBADMSG);
        ch_events_clear(&events);
    }
}

static void test_endless(void **state)
{
    static char text[CH_EVENT_MAX];
    ChEvents events = {0};
    ChEvent event;

    memset(text, 'x', sizeof(text));
    memcpy(text, "{\"", 2);
    assert_int_equal(ch_events_feed(&events, text, sizeof(text)), 0);
    expect_none(&events);
    assert_int_equal(ch_events_feed(&events, text + 2, 1), 0);
    assert_int_equal(ch_events_next(&events, &event, NULL), -EBADMSG);
    ch_events_clear(&events);
    assert_int_equal(ch_events_feed(&events, text, sizeof(text)), 0);
    assert_int_equal(ch_events_feed(&events, text, sizeof(text)), 0);
    assert_int_equal(ch_events_feed(&events, text, 1), -EMSGSIZE);
    ch_events_clear(&events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_endless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
