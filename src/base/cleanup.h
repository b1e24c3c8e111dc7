/* SPDX-License-Identifier: MIT */
#pragma once

/* Scope-bound cleanup and ownership transfer. A variable marked _cleanup_free_, _cleanup_close_ … releases
 * what it holds when its scope ends; TAKE_PTR() and TAKE_FD() hand the resource to somebody else first. */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* "unused": clang warns about a variable that is only there for its cleanup. */
#define _cleanup_(f) __attribute__((cleanup(f), unused))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _const_ __attribute__((const))
#define _unused_ __attribute__((unused))

/* Defines `func##p`, for use with _cleanup_(), from a release function that accepts NULL. */
#define DEFINE_CLEANUP_FUNC(type, func)                                                                      \
    static inline void func##p(type *p)                                                                      \
    {                                                                                                        \
        if (*p)                                                                                              \
            func(*p);                                                                                        \
    }

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void fclosep(FILE **f)
{
    if (*f)
        fclose(*f);
}

static inline void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
#define _cleanup_fclose_ _cleanup_(fclosep)
#define _cleanup_closedir_ _cleanup_(closedirp)

#define TAKE_PTR(p)                                                                                          \
    ({                                                                                                       \
        __typeof__(p) *_pp = &(p);                                                                           \
        __typeof__(p) _taken = *_pp;                                                                         \
        *_pp = NULL;                                                                                         \
        _taken;                                                                                              \
    })

#define TAKE_FD(fd)                                                                                          \
    ({                                                                                                       \
        int *_fdp = &(fd);                                                                                   \
        int _taken_fd = *_fdp;                                                                               \
        *_fdp = -EBADF;                                                                                      \
        _taken_fd;                                                                                           \
    })

#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))

#define USEC_PER_SEC 1000000ULL
#define USEC_PER_MSEC 1000ULL
#define NSEC_PER_USEC 1000ULL
