/* SPDX-License-Identifier: MIT */

#include "vmm/qmp.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

struct Qmp {
    char *buffer;
    size_t size, allocated;
    size_t scanned; /* no newline before this offset */
    bool greeted;
    uint64_t next_id;
    int broken; /* negative once the protocol is broken */
};

void qmp_message_clear(QmpMessage *m)
{
    json_decref(m->line);
    *m = (QmpMessage){0};
}

int qmp_new(Qmp **ret)
{
    Qmp *qmp = calloc(1, sizeof(*qmp));

    if (!qmp)
        return -ENOMEM;
    qmp->next_id = 1;
    *ret = qmp;
    return 0;
}

Qmp *qmp_free(Qmp *qmp)
{
    if (qmp)
        free(qmp->buffer);
    free(qmp);
    return NULL;
}

int qmp_feed(Qmp *qmp, const void *data, size_t n)
{
    if (qmp->broken < 0)
        return qmp->broken;
    if (n > 2 * QMP_LINE_MAX - qmp->size)
        return qmp->broken = -EMSGSIZE;
    if (qmp->size + n > qmp->allocated) {
        char *grown = realloc(qmp->buffer, qmp->size + n);

        if (!grown)
            return -ENOMEM;
        qmp->buffer = grown;
        qmp->allocated = qmp->size + n;
    }
    if (n > 0)
        memcpy(qmp->buffer + qmp->size, data, n);
    qmp->size += n;
    return 0;
}

static void consume(Qmp *qmp, size_t n)
{
    qmp->size -= n;
    qmp->scanned = 0;
    if (qmp->size > 0) {
        memmove(qmp->buffer, qmp->buffer + n, qmp->size);
        return;
    }
    /* Most of the time nothing is under way, and there is one of these per VM. */
    free(qmp->buffer);
    qmp->buffer = NULL;
    qmp->allocated = 0;
}

static int read_error(json_t *object, QmpMessage *m, Error *e)
{
    json_t *error = NULL;
    int r;

    r = json_get_object(object, "error", "QMP", &error, e);
    if (r < 0)
        return r;
    r = json_get_string(error, "class", "QMP error", &m->name, e);
    if (r > 0)
        r = json_get_string(error, "desc", "QMP error", &m->text, e);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(e, -EBADMSG, "QMP: an error without class and description");
    m->type = QMP_ERROR;
    return 0;
}

static int read_answer(Qmp *qmp, json_t *object, QmpMessage *m, Error *e)
{
    int r;

    if (json_object_get(object, "error")) {
        r = read_error(object, m, e);
        if (r < 0)
            return r;
    } else {
        m->type = QMP_RETURN;
        m->data = json_object_get(object, "return");
    }
    r = json_get_uint(object, "id", "QMP answer", 1, qmp->next_id - 1, &m->id, e);
    if (r < 0)
        return r;
    if (r == 0)
        /* QEMU answers so when it could not even read the command. */
        return error_set(e, -EBADMSG, "QMP: an answer to no command: %s",
                         m->type == QMP_ERROR ? m->text : "return");
    return 0;
}

static int read_message(Qmp *qmp, json_t *object, QmpMessage *m, Error *e)
{
    bool greeting, answer;
    int r;

    if (!json_is_object(object))
        return error_set(e, -EBADMSG, "QMP: a line that is no object");
    greeting = json_object_get(object, "QMP");
    answer = json_object_get(object, "return") || json_object_get(object, "error");
    if (greeting == qmp->greeted)
        return error_set(e, -EBADMSG, "QMP: %s", greeting ? "a second greeting" : "no greeting at first");
    if (greeting) {
        m->type = QMP_GREETING;
        r = json_get_object(object, "QMP", "QMP greeting", &m->data, e);
        if (r < 0)
            return r;
        qmp->greeted = true;
        return 0;
    }
    if (answer)
        return read_answer(qmp, object, m, e);
    r = json_get_string(object, "event", "QMP", &m->name, e);
    if (r < 0)
        return r;
    if (r == 0)
        return error_set(e, -EBADMSG, "QMP: a line that is neither answer nor event");
    m->type = QMP_EVENT;
    r = json_get_object(object, "data", "QMP event", &m->data, e);
    return r < 0 ? r : 0;
}

static int next_line(Qmp *qmp, const char **ret, size_t *ret_size, size_t *ret_consumed, Error *e)
{
    for (;;) {
        const char *newline;
        size_t n;

        newline = qmp->size > qmp->scanned
                      ? memchr(qmp->buffer + qmp->scanned, '\n', qmp->size - qmp->scanned)
                      : NULL;
        n = newline ? (size_t)(newline - qmp->buffer) : qmp->size;
        if (n > QMP_LINE_MAX)
            return error_set(e, -EMSGSIZE, "QMP: a line of more than %i bytes", QMP_LINE_MAX);
        if (!newline) {
            qmp->scanned = qmp->size;
            return 1;
        }
        if (n > (size_t)(n > 0 && qmp->buffer[n - 1] == '\r')) {
            *ret = qmp->buffer;
            *ret_size = n;
            *ret_consumed = n + 1;
            return 0;
        }
        consume(qmp, n + 1);
    }
}

int qmp_next(Qmp *qmp, QmpMessage *ret, Error *e)
{
    _cleanup_qmp_message_ QmpMessage m = {0};
    const char *line = NULL;
    size_t n = 0, consumed = 0;
    int r;

    if (qmp->broken < 0)
        return error_set(e, qmp->broken, "QMP: the conversation is broken");
    r = next_line(qmp, &line, &n, &consumed, e);
    if (r > 0)
        return 1;
    if (r == 0) {
        r = json_parse(line, n, "QMP", &m.line, e);
        consume(qmp, consumed);
    }
    if (r == 0)
        r = read_message(qmp, m.line, &m, e);
    if (r < 0)
        return qmp->broken = r == -EMSGSIZE || r == -ENOMEM ? r : -EBADMSG;
    *ret = m;
    m = (QmpMessage){0};
    return 0;
}

int qmp_command(Qmp *qmp, const char *name, json_t *arguments, uint64_t *ret_id, char **ret_line,
                size_t *ret_size)
{
    _cleanup_json_ json_t *command = NULL, *owned = arguments;
    char *line, *grown;
    size_t n;

    command = json_pack("{s:s, s:I, s:O*}", "execute", name, "id", (json_int_t)qmp->next_id, "arguments",
                        arguments);
    if (!command)
        return -EINVAL;
    line = json_dumps(command, JSON_COMPACT);
    if (!line)
        return -ENOMEM;
    n = strlen(line);
    grown = realloc(line, n + 2);
    if (!grown) {
        free(line);
        return -ENOMEM;
    }
    grown[n++] = '\n';
    grown[n] = 0;
    *ret_id = qmp->next_id++;
    *ret_line = grown;
    *ret_size = n;
    return 0;
}
