/* SPDX-License-Identifier: MIT */
#pragma once

/* The insides of the service: service.c keeps the sandboxes and their callers, calls.c answers each method.
 */

#include <syslog.h>

#include "daemon.pb-c.h"
#include "sandbox/owner.h"
#include "sandbox/sandbox.h"
#include "sandbox/vm.h"

/* A call that is answered when something has happened. */
typedef struct Waiter Waiter;
struct Waiter {
    TtrpcCall *call;
    Waiter *next;
};

typedef struct Entry Entry;
struct Entry {
    SandboxService *service;
    Sandbox *sandbox;
    Owner *owner;
    Waiter *acquiring, *releasing;
    Entry *next;
};

struct SandboxService {
    Loop *loop;
    const SandboxSettings *settings;
    Entry *entries;
    void *clones; /* of settings->clones */
    Waiter *watching; /* open Watch streams */
    SandboxLogFn log;
    void *log_userdata;
    bool warned; /* of the VMM */
};

Entry *service_find(SandboxService *service, const char *namespace, const char *sandbox_id);

/* Begins a new sandbox; its end is told to the calls in `acquiring`. */
int service_start(SandboxService *service, const Cloudhv__Daemon__V1__AcquireSandboxRequest *request,
                  const int *tap_fds, size_t n_tap_fds, Entry **ret, Error *e);

/* Puts a call into a list. */
int service_wait(Waiter **list, TtrpcCall *call);

/* Answers an acquire of a sandbox that runs. */
void service_answer_acquire(Entry *entry, TtrpcCall *call, bool existed);

/* Tells the Watch streams that a sandbox has changed. */
void service_notify(Entry *entry);
