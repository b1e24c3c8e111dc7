/* SPDX-License-Identifier: MIT */

#include "shim/task-events.h"

#include "base/log.h"
#include "containerd-events.pb-c.h"
#include "shim/container.h"
#include "shim/shim.h"

#define NSEC_PER_SEC 1000000000ULL

static void publish(const Container *c, const char *topic, const char *type, const ProtobufCMessage *message)
{
    int r = events_publish(c->shim->events, topic, type, message);

    if (r < 0)
        log_error_errno(r, "container %s: the event %s is lost", c->id, topic);
}

static Containerd__Timestamp timestamp(uint64_t nsec)
{
    Containerd__Timestamp t = CONTAINERD__TIMESTAMP__INIT;

    t.seconds = (int64_t)(nsec / NSEC_PER_SEC);
    t.nanos = (int32_t)(nsec % NSEC_PER_SEC);
    return t;
}

void task_event_create(const Container *c, const Containerd__CreateTaskRequest *request)
{
    Containerd__TaskCreate event = CONTAINERD__TASK_CREATE__INIT;
    Containerd__TaskIO io = CONTAINERD__TASK_IO__INIT;

    io.stdin = request->stdin;
    io.stdout = request->stdout;
    io.stderr = request->stderr;
    io.terminal = request->terminal;
    event.container_id = c->id;
    event.bundle = c->bundle;
    event.n_rootfs = request->n_rootfs;
    event.rootfs = request->rootfs;
    event.io = &io;
    event.pid = (uint32_t)getpid();
    publish(c, "/tasks/create", "TaskCreate", &event.base);
}

void task_event_start(const Process *p)
{
    if (*p->exec_id) {
        Containerd__TaskExecStarted event = CONTAINERD__TASK_EXEC_STARTED__INIT;

        event.container_id = p->container->id;
        event.exec_id = p->exec_id;
        event.pid = (uint32_t)getpid();
        publish(p->container, "/tasks/exec-started", "TaskExecStarted", &event.base);
    } else {
        Containerd__TaskStart event = CONTAINERD__TASK_START__INIT;

        event.container_id = p->container->id;
        event.pid = (uint32_t)getpid();
        publish(p->container, "/tasks/start", "TaskStart", &event.base);
    }
}

void task_event_exit(const Process *p)
{
    Containerd__TaskExit event = CONTAINERD__TASK_EXIT__INIT;
    Containerd__Timestamp exited_at = timestamp(p->exited_at_nsec);

    event.container_id = p->container->id;
    event.id = *p->exec_id ? p->exec_id : p->container->id;
    event.pid = (uint32_t)getpid();
    event.exit_status = p->exit_status;
    event.exited_at = &exited_at;
    publish(p->container, "/tasks/exit", "TaskExit", &event.base);
}

void task_event_delete(const Container *c)
{
    Containerd__TaskDelete event = CONTAINERD__TASK_DELETE__INIT;
    Containerd__Timestamp exited_at = timestamp(c->init.exited_at_nsec);

    event.container_id = c->id;
    event.pid = (uint32_t)getpid();
    event.exit_status = c->init.exit_status;
    event.exited_at = &exited_at;
    publish(c, "/tasks/delete", "TaskDelete", &event.base);
}

void task_event_oom(const Container *c)
{
    Containerd__TaskOOM event = CONTAINERD__TASK_OOM__INIT;

    event.container_id = c->id;
    publish(c, "/tasks/oom", "TaskOOM", &event.base);
}

void task_event_exec_added(const Process *p)
{
    Containerd__TaskExecAdded event = CONTAINERD__TASK_EXEC_ADDED__INIT;

    event.container_id = p->container->id;
    event.exec_id = p->exec_id;
    publish(p->container, "/tasks/exec-added", "TaskExecAdded", &event.base);
}
