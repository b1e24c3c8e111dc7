/* SPDX-License-Identifier: MIT */
#pragma once

/* Trace points: named steps of a program. Each records when it was reached, for the phase times of a pod's
 * start, and, in builds with fault injection, is a place where a test can kill or stop the program.
 *
 * The names are kept in the ELF section "cloudhv_trace", NUL-separated, so that tests enumerate the steps
 * from the program itself. A name reads "program.operation.step", in the past tense: "shim.create.tap-made".
 */

#include <stdint.h>

/* Called by TRACE(); logs "trace NAME USEC" at debug level, USEC being CLOCK_MONOTONIC microseconds. With
 * fault injection, when the environment's CLOUDHV_FAULT_POINT equals the name: CLOUDHV_FAULT_ACTION "kill"
 * sends the process SIGKILL, "stop" SIGSTOP. */
void trace_reached(const char *name);

#define TRACE(name)                                                                                          \
    do {                                                                                                     \
        static const char _trace_name[] __attribute__((section("cloudhv_trace"), used, aligned(1))) = name;  \
        trace_reached(_trace_name);                                                                          \
    } while (0)
