/* SPDX-License-Identifier: MIT */

/* QMP as a VMM may send it that its guest has broken into. The first byte says how many commands were sent
 * and how the bytes are cut into pieces; the messages do not depend on that. */

#include <errno.h>

#include "base/json.h"
#include "fuzz.h"
#include "vmm/qmp.h"

enum { MESSAGES_MAX = 256 };

typedef struct Seen {
    QmpType type;
    uint64_t id;
    char *text; /* its whole line, rewritten */
} Seen;

typedef struct Run {
    Seen seen[MESSAGES_MAX];
    size_t n;
    int result; /* 1, or what ended the conversation */
} Run;

static void run_clear(Run *run)
{
    for (size_t i = 0; i < run->n; i++)
        free(run->seen[i].text);
}

static void check_message(const QmpMessage *m, uint64_t last_id, bool first)
{
    REQUIRE((m->type == QMP_GREETING) == first);
    REQUIRE(json_is_object(m->line));
    switch (m->type) {
    case QMP_GREETING:
        REQUIRE(json_is_object(m->data));
        break;
    case QMP_RETURN:
        REQUIRE(m->data && m->id >= 1 && m->id <= last_id);
        break;
    case QMP_ERROR:
        REQUIRE(m->name && m->text && m->id >= 1 && m->id <= last_id);
        break;
    case QMP_EVENT:
        REQUIRE(m->name && (!m->data || json_is_object(m->data)));
        break;
    }
}

static void send_commands(Qmp *q, unsigned n, uint64_t *ret_last)
{
    *ret_last = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t id;
        char *line;
        size_t size;

        REQUIRE(qmp_command(q, "query-status", NULL, &id, &line, &size) == 0);
        REQUIRE(id == *ret_last + 1 && strlen(line) == size && line[size - 1] == '\n');
        *ret_last = id;
        free(line);
    }
}

static void run(Input in, unsigned commands, size_t cut, Run *ret)
{
    uint64_t last_id;
    Qmp *q = NULL;

    *ret = (Run){.result = 1};
    REQUIRE(qmp_new(&q) == 0);
    send_commands(q, commands, &last_id);
    while (in.n > 0 && ret->result == 1) {
        _cleanup_error_ Error e = ERROR_INIT;
        Input piece = take(&in, cut);
        QmpMessage m;

        REQUIRE(qmp_feed(q, piece.bytes, piece.n) == 0);
        while ((ret->result = qmp_next(q, &m, &e)) == 0) {
            check_message(&m, last_id, ret->n == 0);
            REQUIRE(ret->n < MESSAGES_MAX);
            ret->seen[ret->n++] = (Seen){m.type, m.id, json_dumps(m.line, JSON_SORT_KEYS)};
            qmp_message_clear(&m);
        }
        if (ret->result < 0) {
            REQUIRE(e.number < 0 && e.message);
            REQUIRE(ret->result == -EBADMSG || ret->result == -EMSGSIZE);
            REQUIRE(qmp_next(q, &m, NULL) == ret->result && qmp_feed(q, "\n", 1) == ret->result);
        }
    }
    qmp_free(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Run whole, pieces;
    Input in = {data, size};
    uint8_t first = take_u8(&in);

    if (size > 3000) /* a message takes 14 bytes at least */
        return 0;
    run(in, first % 8, SIZE_MAX, &whole);
    run(in, first % 8, 1 + (first >> 3), &pieces);
    REQUIRE(whole.result == pieces.result && whole.n == pieces.n);
    for (size_t i = 0; i < whole.n; i++)
        REQUIRE(whole.seen[i].type == pieces.seen[i].type && whole.seen[i].id == pieces.seen[i].id &&
                strcmp(whole.seen[i].text ?: "", pieces.seen[i].text ?: "") == 0);
    run_clear(&whole);
    run_clear(&pieces);
    return 0;
}
