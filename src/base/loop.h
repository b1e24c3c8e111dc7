/* SPDX-License-Identifier: MIT */
#pragma once

/* The small event loop interface that all asynchronous code is written against. Two implementations:
 * loop-sd.c over sd-event, for host programs, and loop-epoll.c, for the agent, which is static and must not
 * need libsystemd. A program links exactly one.
 *
 * Callbacks run one at a time, on the loop's thread. A source may be freed at any time, also in its own
 * callback. Sources must be freed before the loop. */

#include <stdint.h>
#include <sys/epoll.h>

#include "base/cleanup.h"

typedef struct Loop Loop;
typedef struct LoopSource LoopSource;

typedef void (*LoopIoFn)(LoopSource *source, int fd, uint32_t revents, void *userdata);
typedef void (*LoopFn)(LoopSource *source, void *userdata);

int loop_new(Loop **ret);
Loop *loop_free(Loop *loop);
DEFINE_CLEANUP_FUNC(Loop *, loop_free)
#define _cleanup_loop_ _cleanup_(loop_freep)

/* Watches a descriptor (which stays the caller's) for EPOLLIN, EPOLLOUT …; level-triggered unless EPOLLET is
 * given. A pidfd is watched in the same way: EPOLLIN when the process has ended. */
int loop_add_io(Loop *loop, int fd, uint32_t events, LoopIoFn callback, void *userdata, LoopSource **ret);
int loop_source_set_io_events(LoopSource *source, uint32_t events);

/* Calls back once, `usec` microseconds from now (CLOCK_MONOTONIC). The source stays and can be armed again by
 * loop_source_set_timer(), also from its own callback; UINT64_MAX disarms it. */
int loop_add_timer(Loop *loop, uint64_t usec, LoopFn callback, void *userdata, LoopSource **ret);
int loop_source_set_timer(LoopSource *source, uint64_t usec);

/* Calls back once, from the loop, as soon as nothing else of this iteration is left to do. */
int loop_add_defer(Loop *loop, LoopFn callback, void *userdata, LoopSource **ret);

/* Calls back on each arrival of a signal, which the function blocks for the calling thread. */
int loop_add_signal(Loop *loop, int signal, LoopFn callback, void *userdata, LoopSource **ret);

/* Removes and frees a source; NULL is fine. Always returns NULL. */
LoopSource *loop_source_free(LoopSource *source);
DEFINE_CLEANUP_FUNC(LoopSource *, loop_source_free)
#define _cleanup_loop_source_ _cleanup_(loop_source_freep)

/* Runs until loop_exit(). Returns the code given there, or a negative errno. */
int loop_run(Loop *loop);
void loop_exit(Loop *loop, int code);

/* Waits for at most `usec` (UINT64_MAX: for ever) and dispatches what is ready. 1 when something was
 * dispatched, 0 when not, or a negative errno. */
int loop_run_once(Loop *loop, uint64_t usec);

/* Microseconds of CLOCK_MONOTONIC. */
uint64_t loop_now(void);
