/* SPDX-License-Identifier: MIT */

/* cloudhv-agent: the first process of a pod's VM. */

#include <errno.h>
#include <string.h>

#include "agent/boot.h"
#include "agent/names.h"
#include "agent/podpid.h"
#include "agent/ports.h"
#include "agent/rebirth.h"
#include "agent/service.h"
#include "base/log.h"
#include "base/trace.h"

typedef struct Agent {
    Loop *loop;
    Reaper *reaper;
    UeventMonitor *uevents;
    Disks *disks;
    Trees *trees;
    PodPid *pod_pid;
    Network *network;
    Identity *identity;
    Containers *containers;
    Quiesce *quiesce;
    TtrpcServer *control, *task;
    Ports *ports;
    AgentContext context;
    const char *handover; /* NULL: this is the first agent of the VM */
    bool restart;
} Agent;

static void on_flushed(LoopSource *source, void *userdata)
{
    const Agent *agent = userdata;

    boot_end(agent->restart);
}

static void shut_down(bool restart, void *userdata)
{
    Agent *agent = userdata;

    log_info("shutting down, as the host asked");
    agent->restart = restart;
    if (ttrpc_server_flush(agent->control, on_flushed, agent) < 0)
        boot_end(restart);
}

/* What containers are built with. */
static int agent_setup(Agent *agent, Error *e)
{
    int r;

    r = loop_new(&agent->loop);
    if (r >= 0)
        r = reaper_new(agent->loop, &agent->reaper);
    if (r >= 0)
        r = podpid_new(agent->reaper, &agent->pod_pid);
    if (r >= 0)
        r = identity_new(&agent->identity);
    if (r < 0)
        return error_set_errno(e, r, "cannot set up the event loop");
    r = uevent_monitor_new(agent->loop, &agent->uevents, e);
    if (r >= 0)
        r = trees_new(AGENT_TREES_DIR, &agent->trees, e);
    if (r < 0)
        return r;
    r = disks_new(agent->loop, agent->uevents, &agent->disks);
    if (r >= 0)
        r = network_new(agent->loop, agent->uevents, &agent->network);
    if (r >= 0)
        r = containers_new(&(const ContainersContext){.loop = agent->loop,
                                                      .reaper = agent->reaper,
                                                      .disks = agent->disks,
                                                      .trees = agent->trees,
                                                      .pod_pid = agent->pod_pid},
                           &agent->containers);
    if (r >= 0)
        r = quiesce_new(agent->containers, &agent->quiesce);
    return r < 0 ? error_set_errno(e, r, "cannot set up the agent") : 0;
}

static int agent_serve(Agent *agent, Error *e)
{
    int r;

    agent->context = (AgentContext){.loop = agent->loop,
                                    .identity = agent->identity,
                                    .reborn = agent->handover,
                                    .network = agent->network,
                                    .trees = agent->trees,
                                    .containers = agent->containers,
                                    .quiesce = agent->quiesce,
                                    .shut_down = shut_down,
                                    .userdata = agent};
    r = ttrpc_server_new(agent->loop, &agent->control);
    if (r >= 0)
        r = ttrpc_server_new(agent->loop, &agent->task);
    if (r >= 0)
        r = service_add_control(agent->control, &agent->context);
    if (r >= 0)
        r = service_add_task(agent->task, &agent->context);
    agent->context.task = agent->task;
    if (r < 0)
        return error_set_errno(e, r, "cannot set up the services");
    return ports_new(agent->loop, agent->uevents, agent->control, agent->task, &agent->ports, e);
}

/* Goes on with the call in whose middle the agent before this one was. */
static int agent_take_over(const Agent *agent, Error *e)
{
    TtrpcHandover h;
    int r;

    r = rebirth_read(agent->handover, &h, e);
    if (r < 0)
        return r;
    r = ttrpc_server_take_over(agent->control, &h);
    ttrpc_handover_clear(&h);
    return r < 0 ? error_set_errno(e, r, "cannot go on with the host's call") : 0;
}

static int agent_run(Agent *agent, Error *e)
{
    int r = 0;

    if (!agent->handover)
        r = boot_mount(e);
    if (r >= 0)
        r = boot_prepare_process(e);
    if (r < 0)
        return r;
    boot_setup_log();
    TRACE("agent.boot.mounted");
    r = agent_setup(agent, e);
    if (r >= 0)
        r = agent_serve(agent, e);
    if (r < 0)
        return r;
    TRACE("agent.boot.serving");
    if (agent->handover)
        r = agent_take_over(agent, e);
    if (r < 0)
        return r;
    r = loop_run(agent->loop);
    return r < 0 ? error_set_errno(e, r, "the event loop failed") : 0;
}

int main(int argc, char **argv)
{
    _cleanup_error_ Error e = ERROR_INIT;
    static Agent agent;

    if (argc == 2 && strcmp(argv[1], PODPID_ARGUMENT) == 0)
        podpid_main();
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        printf("cloudhv-agent %s\n", CLOUDHV_VERSION);
        return 0;
    }
    if (getpid() != 1) {
        fprintf(stderr, "cloudhv-agent is the first process of a pod's VM and does nothing elsewhere\n");
        return 1;
    }
    if (argc == 3 && strcmp(argv[1], REBIRTH_ARGUMENT) == 0)
        agent.handover = argv[2];
    /* The end of the first process is the end of the machine, which is what is left to do after a failure
     * here: the console says why. */
    if (agent_run(&agent, &e) < 0)
        log_error("%s", error_message(&e));
    return 1;
}
