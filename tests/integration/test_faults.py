# SPDX-License-Identifier: MIT
"""SIGKILL at every step that a program names: afterwards ordinary CRI calls clean up, nothing is left behind, and the
next pod works. The steps are read from the programs, so that a new one is tested without a change here."""

import os
import signal
import threading

import pytest

from harness import cloudhv as cloudhv_module
from harness import cri, faults, leaks, proc, tracepoints, wait

# How long the host may take to be clean after the last CRI call.
CLEAN_WITHIN = 15
# Between the answer of `start` and containerd's first connection: containerd then runs no `delete`, of no runtime, and
# nobody but the next shim of the same name gets to know of the socket's file.
UNMET = "shim.start.serving"
LONG = ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 3600 & wait; done"]


def pytest_generate_tests(metafunc):
    """Points of the programs at hand; the agent's faults end its VM, which has cases of its own."""
    if "point" not in metafunc.fixturenames:
        return
    points, daemonless = [], metafunc.config.getoption("--mode") == "daemonless"
    binaries = metafunc.config.getoption("--bin-dir")
    # The shim holds the daemon's code too, for booting a VM by itself.
    programs = {cloudhv_module.SHIM: "" if daemonless else "shim."}
    # What a VMM's death means at the daemon's own steps, test_daemon.py sees without containerd.
    if not daemonless and metafunc.function is test_killed_at:
        programs[cloudhv_module.DAEMON] = "daemon."
    for program, prefix in programs.items():
        try:
            path = cloudhv_module.find_program(binaries, program)
        except RuntimeError:
            continue
        points += [(program, name) for name in tracepoints.of(path) if name.startswith(prefix)]
    metafunc.parametrize("program,point", points, ids=[f"{'shim' if 'shim' in p else 'daemon'}:{n}" for p, n in points])


def remove_all(node):
    """As the kubelet: again and again until nothing is left, or the deadline."""
    errors = []

    def gone():
        errors[:] = node.remove_pods()
        return not node.pods()

    try:
        wait.until("all pods to be removable", gone, 60, interval=0.5)
    except wait.Timeout:
        raise AssertionError("pods can't be removed:\n  " + "\n  ".join(errors)) from None


def life(node):
    """A pod's whole life; which call fails, if any, depends on the fault."""
    with node.pod("cloudhv") as pod:
        ended = pod.run_container(["sh", "-c", "echo fine"])
        assert ended.wait(60) == 0
        ended.remove()
        running = pod.run_container(LONG)
        running.wait_for_output(b"up\n", 60)
        running.stop(10)


def life_with_a_dead_shim(node):
    """What makes containerd run the shim's `delete`."""
    with node.pod("cloudhv") as pod:
        running = pod.run_container(LONG)
        running.wait_for_output(b"up\n", 60)
        proc.kill(wait.until("the shim", lambda: node.shim_pid(pod.id), 5))
        wait.until("containerd to notice", lambda: not pod.ready(), 30)


def attempt(course, node):
    """Did it go through?"""
    try:
        course(node)
    except (cri.CriError, AssertionError):
        return False
    return True


@pytest.fixture
def injectable(cloudhv):
    if not tracepoints.can_inject(cloudhv.shim):
        pytest.skip("programs built without fault injection")


def with_fault(cloudhv, program, point, action):
    environment = {"CLOUDHV_FAULT_POINT": point, "CLOUDHV_FAULT_ACTION": action}
    if program == cloudhv_module.SHIM:
        cloudhv.use_shim(environment)
    else:
        # It may come to that point before it serves anybody.
        cloudhv.restart_daemon(check=False, environment=environment)


def served(cloudhv):
    """Waits until the daemon serves: False when it ends before."""
    if cloudhv.mode != "daemon":
        return True
    try:
        wait.until("the daemon to serve", cloudhv.listening, 30)
    except RuntimeError:
        return False
    return True


def without_fault(cloudhv, program):
    if program == cloudhv_module.SHIM:
        cloudhv.use_shim()
    else:
        cloudhv.restart_daemon()


@pytest.mark.only("cloudhv")
def test_killed_at(node, runtime, cloudhv, injectable, program, point):
    before = leaks.snapshot(node)
    with_fault(cloudhv, program, point, "kill")
    try:
        # A point that is not on the usual way.
        if served(cloudhv) and attempt(life, node):
            attempt(life_with_a_dead_shim, node)
    finally:
        without_fault(cloudhv, program)
    remove_all(node)
    if point == UNMET:
        leaks.remove_dead_sockets(before)
    leaks.check(node, before, CLEAN_WITHIN)
    with node.pod(runtime) as pod:
        assert pod.sh("echo next") == "next\n"


@pytest.mark.only("cloudhv")
def test_vmm_killed_at(node, runtime, cloudhv, injectable, program, point):
    """The VMM dies while the program is at that point. A point before the VMM exists, or one that a pod's life does
    not come to, has nothing to kill."""
    before = leaks.snapshot(node)
    with_fault(cloudhv, program, point, "stop")
    done = threading.Event()
    thread = threading.Thread(target=faults.kill_vmms_while_stopped, args=(node, cloudhv, program, done), daemon=True)
    thread.start()
    try:
        if served(cloudhv):
            attempt(life, node)
    finally:
        done.set()
        thread.join()
        for pid in faults.stopped_processes(node, cloudhv):
            os.kill(pid, signal.SIGCONT)
        without_fault(cloudhv, program)
    remove_all(node)
    leaks.check(node, before, CLEAN_WITHIN)
