/* SPDX-License-Identifier: MIT */
#pragma once

/* A process's standard streams, pulled and pushed by the host with acknowledgement (ReadStream and WriteStream
 * in agent.proto). Nothing is read from a pipe before the host asks, so a slow host holds back that process
 * and nothing else; at most one piece (AGENT_STREAM_PIECE_MAX) is kept for each output stream, until the next
 * offset acknowledges it. No protocol in here: the service translates. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"

enum { AGENT_STREAM_PIECE_MAX = 256 * 1024 };

/* --------------------------------------------------------------------------------------------- output */

typedef struct OutputStream OutputStream;

/* The end of a read. `number` is 0 with data (which may be empty at the end of the stream), -ECANCELED when
 * another read took its place or the stream was freed, or another negative errno. `data` is valid during the
 * call. */
typedef void (*OutputFn)(int number, const void *data, size_t n, bool eof, void *userdata);

/* Takes over the reading end of a pipe, also on failure. */
int output_stream_new(Loop *loop, int fd, OutputStream **ret);
/* Ends a waiting read with -ECANCELED. */
OutputStream *output_stream_free(OutputStream *stream);

/* Reads at most `max` bytes at `offset`, which acknowledges all before it. Calls back exactly once, possibly
 * before this returns. A read that waits already ends with -ECANCELED first. -ERANGE, without a callback, for
 * an offset that was acknowledged before or has not been reached. */
int output_stream_read(OutputStream *stream, uint64_t offset, size_t max, OutputFn callback, void *userdata);

/* Gives the waiting read up, without a callback. */
void output_stream_cancel(OutputStream *stream);

/* Whoever could write is known to be gone: an empty pipe is the end from now on, even if a process elsewhere
 * still holds its other end. */
void output_stream_finish(OutputStream *stream);

/* ---------------------------------------------------------------------------------------------- input */

typedef struct InputStream InputStream;

/* The end of a write: 0, -ECANCELED as above, -EPIPE when the process has closed its standard input. */
typedef void (*InputFn)(int number, void *userdata);

/* Takes over the writing end of a pipe, also on failure. */
int input_stream_new(Loop *loop, int fd, InputStream **ret);
InputStream *input_stream_free(InputStream *stream);

/* Writes `n` bytes that begin at `offset` of the stream; what was taken before is skipped. `data` must stay
 * until the callback, which runs exactly once, possibly before this returns. A write that waits already ends
 * with -ECANCELED first. -ERANGE, without a callback, when bytes before `offset` are missing. */
int input_stream_write(InputStream *stream, uint64_t offset, const void *data, size_t n, InputFn callback,
                       void *userdata);

/* Gives the waiting write up, without a callback; what was taken of it stays taken. */
void input_stream_cancel(InputStream *stream);

/* End of file for the process, after a write that waits. */
void input_stream_close(InputStream *stream);
