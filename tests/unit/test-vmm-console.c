/* SPDX-License-Identifier: MIT */

/* The last words of a guest: what is kept, how much, and how it is told. */

#include "unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "vmm/console.h"

typedef struct Fixture {
    Loop *loop;
    Console *console;
    int guest; /* the VMM's end */
} Fixture;

static int setup(void **state)
{
    Fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    *state = f;
    if (loop_new(&f->loop) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -1;
    f->guest = fds[1];
    return console_new(f->loop, fds[0], &f->console);
}

static int teardown(void **state)
{
    Fixture *f = *state;

    console_free(f->console);
    loop_free(f->loop);
    fd_close(f->guest);
    free(f);
    return 0;
}

static void print(Fixture *f, const char *text)
{
    assert_int_equal(send(f->guest, text, strlen(text), 0), strlen(text));
}

static void assert_tail(const Fixture *f, size_t max, const char *text)
{
    char *tail = console_tail(f->console, max);

    assert_string_equal(tail, text);
    free(tail);
}

static void test_nothing(void **state)
{
    assert_tail(*state, 100, "");
}

static void test_from_loop(void **state)
{
    Fixture *f = *state;

    print(f, "Linux version 6.12\r\n");
    assert_true(loop_run_once(f->loop, 1000000) > 0);
    assert_tail(f, 100, "Linux version 6.12");
    print(f, "Kernel panic\r\n\r\n");
    for (int i = 0; i < 10; i++)
        (void)loop_run_once(f->loop, 20000);
    assert_tail(f, 100, "Linux version 6.12 | Kernel panic");
}

/* What the VMM had printed when it ended is read though nobody ran the loop. */
static void test_drain(void **state)
{
    Fixture *f = *state;

    print(f, "last words");
    f->guest = fd_close(f->guest);
    console_drain(f->console);
    assert_tail(f, 100, "last words");
    console_drain(f->console);
    (void)loop_run_once(f->loop, 0);
    assert_tail(f, 100, "last words");
}

/* A guest that prints all the time does not get all of our time. */
static void test_pauses(void **state)
{
    Fixture *f = *state;
    static const char block[4096] = "x";
    unsigned woken = 0;
    uint64_t end = loop_now() + 200 * USEC_PER_MSEC;

    while (loop_now() < end) {
        while (send(f->guest, block, sizeof(block), MSG_DONTWAIT) > 0)
            continue;
        woken += loop_run_once(f->loop, 10000) > 0;
    }
    /* A pause of 10 ms after each read, and the timer that ends it: 40 wake-ups. */
    assert_in_range(woken, 2, 60);
}

static void test_ring(void **state)
{
    Fixture *f = *state;
    char line[64], *tail;

    for (int i = 0; i < 2000; i++) {
        snprintf(line, sizeof(line), "this is line %i\n", i);
        print(f, line);
        console_drain(f->console);
    }
    tail = console_tail(f->console, 40);
    assert_string_equal(tail, "this is line 1998 | this is line 1999");
    free(tail);
    tail = console_tail(f->console, 1 << 20);
    /* 16 KiB of what was printed, without its line ends but with what stands for them. */
    assert_in_range(strlen(tail), 16000, 20000);
    free(tail);
}

static void test_text(void **state)
{
    static const struct {
        const char *text;
        size_t max;
        const char *tail;
    } cases[] = {
        {"", 10, ""},
        {"\r\n\n", 10, ""},
        {"\n\na\n\n\nb\n", 10, "a | b"},
        {"\x1b[2J\x1b[1;1Hclear\x1b[0m", 20, "clear"},
        {"\x1b"
         "7saved\x1b",
         20, "saved"},
        {"\x1b[31", 20, ""},
        {"tab\there\a\x7f", 20, "tabhere"},
        {"caf\xc3\xa9", 20, "caf??"},
        {"first line\nsecond", 9, "second"},
        {"a long line without end", 8, "hout end"},
        {"abc\ndef", 0, ""},
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char *tail = console_text_tail(cases[i].text, strlen(cases[i].text), cases[i].max);

        assert_string_equal(tail, cases[i].tail);
        free(tail);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pauses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ring, setup, teardown),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
