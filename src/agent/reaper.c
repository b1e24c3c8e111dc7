/* SPDX-License-Identifier: MIT */

#include "agent/reaper.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

typedef struct Watch {
    pid_t pid;
    ReaperFn callback;
    void *userdata;
    struct Watch *next;
} Watch;

struct Reaper {
    Loop *loop;
    LoopSource *signal;
    LoopSource *scan; /* deferred: something may have ended before it was watched or while held */
    Watch *watches;
    unsigned holds;
};

uint64_t reaper_realtime(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

Loop *reaper_loop(Reaper *reaper)
{
    return reaper->loop;
}

static int wait_status(const siginfo_t *si)
{
    if (si->si_code == CLD_EXITED)
        return (si->si_status & 0xff) << 8;
    return (si->si_status & 0x7f) | (si->si_code == CLD_DUMPED ? 0x80 : 0);
}

/* Takes the first watch whose process has ended off the list. */
static bool take_ended(Reaper *reaper, Watch **ret, int *ret_status)
{
    for (Watch **p = &reaper->watches; *p; p = &(*p)->next) {
        siginfo_t si = {0};
        int r = waitid(P_PID, (id_t)(*p)->pid, &si, WEXITED | WNOHANG);

        if (r >= 0 && si.si_pid == 0)
            continue;
        /* Not our child (any more): how it ended cannot be known. */
        *ret_status = r < 0 ? 255 << 8 : wait_status(&si);
        *ret = *p;
        *p = (*p)->next;
        return true;
    }
    return false;
}

static void reap(Reaper *reaper)
{
    siginfo_t si;
    Watch *w;
    int status;

    while (take_ended(reaper, &w, &status)) {
        w->callback(w->pid, status, reaper_realtime(), w->userdata);
        free(w);
    }
    while (reaper->holds == 0) {
        si = (siginfo_t){0};
        if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
            break;
        /* One that is watched may have ended since. */
        for (w = reaper->watches; w; w = w->next)
            if (w->pid == si.si_pid)
                break;
        if (w) {
            reap(reaper);
            break;
        }
        (void)waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG);
    }
}

static void on_signal(LoopSource *source, void *userdata)
{
    reap(userdata);
}

static void on_scan(LoopSource *source, void *userdata)
{
    Reaper *reaper = userdata;

    reaper->scan = loop_source_free(reaper->scan);
    reap(reaper);
}

static int scan_later(Reaper *reaper)
{
    return reaper->scan ? 0 : loop_add_defer(reaper->loop, on_scan, reaper, &reaper->scan);
}

int reaper_new(Loop *loop, Reaper **ret)
{
    Reaper *reaper = calloc(1, sizeof(*reaper));
    int r;

    if (!reaper)
        return -ENOMEM;
    reaper->loop = loop;
    r = loop_add_signal(loop, SIGCHLD, on_signal, reaper, &reaper->signal);
    if (r < 0) {
        free(reaper);
        return r;
    }
    *ret = reaper;
    return 0;
}

Reaper *reaper_free(Reaper *reaper)
{
    if (!reaper)
        return NULL;
    loop_source_free(reaper->signal);
    loop_source_free(reaper->scan);
    while (reaper->watches) {
        Watch *w = reaper->watches;

        reaper->watches = w->next;
        free(w);
    }
    free(reaper);
    return NULL;
}

int reaper_watch(Reaper *reaper, pid_t pid, ReaperFn callback, void *userdata)
{
    Watch *w = malloc(sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    *w = (Watch){.pid = pid, .callback = callback, .userdata = userdata, .next = reaper->watches};
    r = scan_later(reaper);
    if (r < 0) {
        free(w);
        return r;
    }
    reaper->watches = w;
    return 0;
}

void reaper_forget(Reaper *reaper, pid_t pid)
{
    for (Watch **p = &reaper->watches; *p; p = &(*p)->next)
        if ((*p)->pid == pid) {
            Watch *w = *p;

            *p = w->next;
            free(w);
            (void)scan_later(reaper);
            return;
        }
}

void reaper_hold(Reaper *reaper)
{
    reaper->holds++;
}

void reaper_release(Reaper *reaper)
{
    if (--reaper->holds == 0)
        (void)scan_later(reaper);
}
