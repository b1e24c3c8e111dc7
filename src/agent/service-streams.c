/* SPDX-License-Identifier: MIT */

#include "agent/service-streams.h"

#include <errno.h>

/* A call that waits, and for what. */
typedef struct OpenCall {
    TtrpcCall *call;
    ProcessWait *wait;
    OutputStream *output;
    InputStream *input;
} OpenCall;

Container *service_find_container(TtrpcCall *call, const AgentContext *context, const char *id)
{
    Container *c = containers_find(context->containers, id);

    if (!c)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "%s: there is no container \"%.140s\"", ttrpc_call_method(call),
                        id);
    return c;
}

Process *service_find_process(TtrpcCall *call, const AgentContext *context, const char *id, const char *exec_id)
{
    Container *c = service_find_container(call, context, id);
    Process *p;

    if (!c)
        return NULL;
    p = exec_id[0] ? container_exec_process(c, exec_id) : container_process(c);
    if (p)
        return p;
    ttrpc_call_fail(call, TTRPC_NOT_FOUND, "%s: there is no process \"%.140s\" in the container %s",
                    ttrpc_call_method(call), exec_id, id);
    return NULL;
}

static OpenCall *open_call_new(TtrpcCall *call)
{
    OpenCall *o = calloc(1, sizeof(*o));

    if (o)
        o->call = call;
    else
        ttrpc_call_fail(call, TTRPC_RESOURCE_EXHAUSTED, "out of memory");
    return o;
}

/* The caller is gone, or did not want to wait longer. */
static void on_cancel(TtrpcCall *call, void *userdata)
{
    _cleanup_free_ OpenCall *o = userdata;

    process_wait_cancel(o->wait);
    if (o->output)
        output_stream_cancel(o->output);
    if (o->input)
        input_stream_cancel(o->input);
    ttrpc_call_fail(call, TTRPC_CANCELED, "canceled");
}

static void reply_exit(TtrpcCall *call, const ProcessExit *exit)
{
    Cloudhv__Agent__V1__WaitProcessResponse response = CLOUDHV__AGENT__V1__WAIT_PROCESS_RESPONSE__INIT;

    response.exit_status = exit->status;
    response.exited_at_nsec = exit->nsec;
    response.oom_killed = exit->oom_killed;
    ttrpc_call_reply(call, &response.base);
}

static void on_process_end(const ProcessExit *exit, void *userdata)
{
    _cleanup_free_ OpenCall *o = userdata;

    if (exit)
        reply_exit(o->call, exit);
    else
        ttrpc_call_fail(o->call, TTRPC_NOT_FOUND, "WaitProcess: the process was deleted");
}

void service_wait_process(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ProcessRequest *q = (const Cloudhv__Agent__V1__ProcessRequest *)request;
    AgentContext *context = userdata;
    Process *p;
    OpenCall *o;
    int r;

    if (service_refuse(call, context))
        return;
    p = service_find_process(call, context, q->id, q->exec_id);
    if (!p)
        return;
    if (process_exit(p)) {
        reply_exit(call, process_exit(p));
        return;
    }
    o = open_call_new(call);
    if (!o)
        return;
    r = process_wait(p, on_process_end, o, &o->wait);
    if (r < 0) {
        free(o);
        service_fail(call, r, NULL);
        return;
    }
    ttrpc_call_set_cancel(call, on_cancel, o);
}

static void on_output(int number, const void *data, size_t n, bool eof, void *userdata)
{
    Cloudhv__Agent__V1__ReadStreamResponse response = CLOUDHV__AGENT__V1__READ_STREAM_RESPONSE__INIT;
    _cleanup_free_ OpenCall *o = userdata;

    if (number == -ECANCELED) {
        ttrpc_call_fail(o->call, TTRPC_ABORTED, "ReadStream: another call reads the stream, or it is gone");
        return;
    }
    if (number < 0) {
        service_fail(o->call, number, NULL);
        return;
    }
    response.data.data = (uint8_t *)data;
    response.data.len = n;
    response.eof = eof;
    ttrpc_call_reply(o->call, &response.base);
}

static OutputStream *find_output(TtrpcCall *call, const Process *p, Cloudhv__Agent__V1__Stream stream)
{
    OutputStream *s = NULL;

    if (stream == CLOUDHV__AGENT__V1__STREAM__STREAM_STDOUT)
        s = process_stdout(p);
    else if (stream == CLOUDHV__AGENT__V1__STREAM__STREAM_STDERR)
        s = process_stderr(p);
    if (!s)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "ReadStream: the process has no such stream");
    return s;
}

void service_read_stream(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ReadStreamRequest *q = (const Cloudhv__Agent__V1__ReadStreamRequest *)request;
    AgentContext *context = userdata;
    OutputStream *s;
    Process *p;
    OpenCall *o;

    if (service_refuse(call, context))
        return;
    p = service_find_process(call, context, q->id, q->exec_id);
    if (!p)
        return;
    s = find_output(call, p, q->stream);
    if (!s)
        return;
    o = open_call_new(call);
    if (!o)
        return;
    o->output = s;
    /* First, since the call may be over before the next line returns. */
    ttrpc_call_set_cancel(call, on_cancel, o);
    if (output_stream_read(s, q->offset, q->max, on_output, o) < 0) {
        free(o);
        ttrpc_call_set_cancel(call, NULL, NULL);
        ttrpc_call_fail(call, TTRPC_OUT_OF_RANGE, "ReadStream: no data at the offset %llu",
                        (unsigned long long)q->offset);
    }
}

static void on_input(int number, void *userdata)
{
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    _cleanup_free_ OpenCall *o = userdata;

    if (number == -ECANCELED)
        ttrpc_call_fail(o->call, TTRPC_ABORTED, "WriteStream: another call writes the stream, or it is gone");
    else if (number == -EPIPE)
        ttrpc_call_fail(o->call, TTRPC_FAILED_PRECONDITION, "WriteStream: the standard input is closed");
    else if (number < 0)
        service_fail(o->call, number, NULL);
    else
        ttrpc_call_reply(o->call, &response.base);
}

static InputStream *find_input(TtrpcCall *call, const Process *p)
{
    InputStream *s = process_stdin(p);

    if (!s)
        ttrpc_call_fail(call, TTRPC_NOT_FOUND, "%s: the process has no standard input", ttrpc_call_method(call));
    return s;
}

void service_write_stream(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__WriteStreamRequest *q = (const Cloudhv__Agent__V1__WriteStreamRequest *)request;
    AgentContext *context = userdata;
    InputStream *s;
    Process *p;
    OpenCall *o;

    if (service_refuse(call, context))
        return;
    p = service_find_process(call, context, q->id, q->exec_id);
    s = p ? find_input(call, p) : NULL;
    if (!s)
        return;
    o = open_call_new(call);
    if (!o)
        return;
    o->input = s;
    ttrpc_call_set_cancel(call, on_cancel, o);
    if (input_stream_write(s, q->offset, q->data.data, q->data.len, on_input, o) < 0) {
        free(o);
        ttrpc_call_set_cancel(call, NULL, NULL);
        ttrpc_call_fail(call, TTRPC_OUT_OF_RANGE, "WriteStream: data before the offset %llu is missing",
                        (unsigned long long)q->offset);
    }
}

void service_close_stdin(TtrpcCall *call, const ProtobufCMessage *request, void *userdata)
{
    const Cloudhv__Agent__V1__ProcessRequest *q = (const Cloudhv__Agent__V1__ProcessRequest *)request;
    Cloudhv__Agent__V1__Empty response = CLOUDHV__AGENT__V1__EMPTY__INIT;
    AgentContext *context = userdata;
    InputStream *s;
    Process *p;

    if (service_refuse(call, context))
        return;
    p = service_find_process(call, context, q->id, q->exec_id);
    s = p ? find_input(call, p) : NULL;
    if (!s)
        return;
    input_stream_close(s);
    ttrpc_call_reply(call, &response.base);
}
