/* SPDX-License-Identifier: MIT */
#pragma once

/* The events of tasks, filled in from containers and processes. A lost event is logged, never an error: the answer
 * to the call that it belongs to says the same. */

#include "containerd-task.pb-c.h"

typedef struct Container Container;
typedef struct Process Process;

void task_event_create(const Container *c, const Containerd__CreateTaskRequest *request);
void task_event_start(const Process *p);
void task_event_exit(const Process *p);
void task_event_delete(const Container *c);
void task_event_oom(const Container *c);
void task_event_exec_added(const Process *p);
