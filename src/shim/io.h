/* SPDX-License-Identifier: MIT */
#pragma once

/* Standard streams of one process, between containerd's FIFOs and the agent.
 *
 * Output is pulled: a piece is asked for, written to the FIFO, and only then the next one, so that a slow reader
 * holds back its own process and nothing else. The shim holds both ends of the FIFOs: when containerd is restarted
 * nothing breaks and what lies in a FIFO stays there. At the end a FIFO is closed (which is the end of file that
 * the reader waits for) as soon as it has been read empty, and only then counts as drained: containerd's CRI stops
 * reading when it hears of the exit.
 *
 * Input is pushed, from the start of the process on. It ends when containerd said so (CloseIO) and all who had the FIFO open closed it. */

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "ttrpc/ttrpc.h"

typedef struct Stdio Stdio;

/* Paths as containerd gives them, "" for none: a FIFO, a file, or "file:///path". */
typedef struct StdioSpec {
    const char *id;
    const char *exec_id;
    const char *stdin_path;
    const char *stdout_path;
    const char *stderr_path;
} StdioSpec;

/* Called once, from the loop, when the process has ended and all output has been pulled to its end and read. */
typedef void (*StdioDrainedFn)(void *userdata);

/* Opens the FIFOs. -EOPNOTSUPP for a kind of log URI that is not served. */
int stdio_new(Loop *loop, const StdioSpec *spec, StdioDrainedFn drained, void *userdata, Stdio **ret, Error *e);
Stdio *stdio_free(Stdio *stdio);
DEFINE_CLEANUP_FUNC(Stdio *, stdio_free)

/* Starts to move output, once the agent knows the process. */
int stdio_start(Stdio *stdio, TtrpcClient *agent);

/* Opens the FIFO of the input, once the process was started, and starts to move it. Not earlier: ctr can tell of
 * the end of its input (CloseIO) only when it has got the answer to Create, and would lose an earlier one. */
int stdio_start_input(Stdio *stdio, Error *e);

/* Tells that the process has ended: from now on a reader that takes nothing for a while, or a stream that does not
 * end, is given up, so that the exit can be reported. What lies in the FIFO then is kept until stdio_free(). */
void stdio_process_ended(Stdio *stdio);

/* Containerd's side is done with the input. */
void stdio_close_stdin(Stdio *stdio);

/* The agent is gone: ends all calls to it and counts what is there as drained. */
void stdio_abandon(Stdio *stdio);
