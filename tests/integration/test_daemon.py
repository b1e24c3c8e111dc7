# SPDX-License-Identifier: MIT
"""The daemon's own protocol, without containerd: idempotent calls, callers that vanish, frames that are no frames."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from harness import cloudhv as cloudhv_module
from harness import daemon, faults, leaks, proc, tracepoints, ttrpc, wait

pytestmark = pytest.mark.only("cloudhv")


@pytest.fixture
def sandboxes(cloudhv):
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    with daemon.connect(cloudhv) as service:
        yield service


@pytest.fixture
def caller(cloudhv):
    caller = daemon.Caller(cloudhv)
    yield caller
    caller.close()


def test_acquire_twice_and_release_twice(node, runtime, sandboxes, caller):
    first = caller.acquire(sandboxes, "one")
    assert proc.alive(first.vmm_pid) and not first.existed and first.kernel_release
    again = caller.acquire(sandboxes, "one")
    assert again.existed and again.vmm_pid == first.vmm_pid and again.task.path == first.task.path
    listed = sandboxes.call("Status")
    assert [(s.sandbox_id, s.state) for s in listed.sandboxes] == [("one", "running")] and listed.active == 1
    assert sandboxes.call("ReleaseSandbox", namespace="test", sandbox_id="one").existed
    assert not proc.alive(first.vmm_pid)
    assert not sandboxes.call("ReleaseSandbox", namespace="test", sandbox_id="one").existed
    assert not sandboxes.call("Status").sandboxes


def test_caller_dies(node, runtime, sandboxes, caller):
    """A shim that is dead is not enough: it may come back as long as its bundle is there. Without both, the VM
    goes within 10 s."""
    vmm = caller.acquire(sandboxes, "orphan").vmm_pid
    caller.kill()
    assert proc.alive(vmm)
    shutil.rmtree(caller.bundle)
    wait.until("the orphan's VMM to end", lambda: not proc.alive(vmm), 12)
    wait.until("the orphan to be forgotten", lambda: not sandboxes.call("Status").sandboxes, 5)


def test_vmm_dies(node, runtime, sandboxes, caller):
    vmm = caller.acquire(sandboxes, "short").vmm_pid
    os.kill(vmm, signal.SIGKILL)

    def ended():
        found = sandboxes.call("Status", namespace="test", sandbox_id="short").sandboxes
        return found and found[0].state == "ended" and found[0]
    assert wait.until("the end to be known", ended, 5).end_reason
    sandboxes.call("ReleaseSandbox", namespace="test", sandbox_id="short")


def test_daemon_killed_while_it_boots(node, runtime, cloudhv, sandboxes, caller):
    """The next daemon finds what the first one began, and a repeated call succeeds."""
    failed = []

    def acquire():
        try:
            caller.acquire(sandboxes, "twice")
        except (EOFError, OSError, ttrpc.Refused):
            failed.append(True)
    thread = threading.Thread(target=acquire)
    thread.start()
    wait.until("a VMM", cloudhv.vmms, 30)
    cloudhv.restart_daemon(signal.SIGKILL)
    thread.join(30)
    assert failed
    with daemon.connect(cloudhv) as service:
        assert proc.alive(caller.acquire(service, "twice").vmm_pid)
        service.call("ReleaseSandbox", namespace="test", sandbox_id="twice")
    assert not cloudhv.vmms()


@pytest.mark.parametrize("fields", [
    {"namespace": "../..", "sandbox_id": "x"}, {"namespace": "test", "sandbox_id": "a/b"},
    {"namespace": "test", "sandbox_id": ""}, {"namespace": "test", "sandbox_id": "n" * 1000},
    {"namespace": "test", "sandbox_id": "x", "nics": [{"mac": b"short", "tap": "t"}]},
    {"namespace": "test", "sandbox_id": "x", "nics": [{"mac": daemon.MAC, "tap": "t"}]},
])
def test_bad_arguments(node, runtime, sandboxes, fields):
    """The last has a NIC without a descriptor."""
    with pytest.raises(ttrpc.Refused) as error:
        sandboxes.call("AcquireSandbox", **fields)
    assert error.value.code == ttrpc.INVALID_ARGUMENT and error.value.text


def test_what_is_not_served(node, runtime, sandboxes):
    for service, method, name in ((daemon.SERVICE, "Levitate", "Levitate"), ("no.such.Service", "Hello", "no.such.Service")):
        with pytest.raises(ttrpc.Refused) as error:
            sandboxes.connection.raw_call(service, method)
        assert error.value.code == ttrpc.UNIMPLEMENTED and name in error.value.text


def test_only_root(node, runtime, cloudhv, sandboxes):
    script = ("import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); s = socket.socket(1)\n"
              "try:\n s.connect(sys.argv[1]); s.settimeout(5); s.sendall(b'\\0' * 10); print('got', s.recv(10))\n"
              "except OSError as e: print('refused', e)\n")
    out = subprocess.run([sys.executable, "-c", script, cloudhv.socket], capture_output=True, text=True, check=True).stdout
    assert out.startswith("refused") or out == "got b''\n"


def test_broken_frames(node, runtime, cloudhv, sandboxes):
    """Whatever a connection sends, the others are served, and the daemon neither grows nor ends."""
    pid = cloudhv.daemon_pid
    ttrpc.send_broken_frames(cloudhv.socket)
    assert sandboxes.call("Status").daemon_version
    assert cloudhv.daemon_pid == pid


def test_oversized_message(node, runtime, sandboxes):
    """Drained and answered; the connection goes on."""
    with pytest.raises(ttrpc.Refused) as error:
        sandboxes.connection.raw_call(daemon.SERVICE, "Status", b"\0" * ((4 << 20) + 1))
    assert error.value.code == ttrpc.RESOURCE_EXHAUSTED
    assert sandboxes.call("Status").daemon_version


def test_usage(node, runtime, cloudhv, sandboxes, caller):
    """What a VM costs, asked of its agent; a daemon that was started anew asks it too."""
    caller.acquire(sandboxes, "used")
    first = sandboxes.call("Usage", namespace="test", sandbox_id="used")
    assert 64 << 10 < first.agent_private <= first.agent_peak < 4 << 20
    assert first.vmm_private > 16 << 20 and first.memory_available < first.memory_total <= 128 << 20
    cloudhv.restart_daemon()
    with daemon.connect(cloudhv) as service:
        second = service.call("Usage", namespace="test", sandbox_id="used")
        assert second.agent_wakeups > first.agent_wakeups
        with pytest.raises(ttrpc.Refused) as error:
            service.call("Usage", namespace="test", sandbox_id="unknown")
        assert error.value.code == ttrpc.NOT_FOUND and "unknown" in error.value.text
        service.call("ReleaseSandbox", namespace="test", sandbox_id="used")


def test_surplus_descriptors(node, runtime, cloudhv, sandboxes):
    def descriptors():
        return len(os.listdir(f"/proc/{cloudhv.daemon_pid}/fd"))

    sandboxes.call("Status")
    before = descriptors()
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(50):
            sandboxes.call("Status", fds=[null] * 20)
    finally:
        os.close(null)
    wait.until("the daemon to have closed what it got", lambda: descriptors() <= before, 30)


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        config = metafunc.config
        # Those of clones are reached with a QEMU that can make them: test_pool.py.
        metafunc.parametrize("point", [point for point in tracepoints.of_program(config.getoption("--bin-dir"), "daemon")
                                       if not tracepoints.is_of_clones(point)])


def whole_life(cloudhv, caller, disk):
    """Every call of a VM's life."""
    container = {"namespace": "test", "sandbox_id": "fault", "container_id": "c"}
    with daemon.connect(cloudhv) as service:
        caller.acquire(service, "fault")
        service.call("AddContainer", disks=[{"serial": "i0", "path": disk, "read_only": True}], **container)
        service.call("RemoveContainer", **container)
        service.call("ReleaseSandbox", namespace="test", sandbox_id="fault")


@pytest.fixture
def disk(cloudhv):
    path = os.path.join(cloudhv.root, "etc", "disk")
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    yield path
    os.unlink(path)


def test_whole_life(node, runtime, cloudhv, sandboxes, caller, disk):
    whole_life(cloudhv, caller, disk)
    assert not cloudhv.vmms()


def test_killed_at(node, runtime, cloudhv, caller, disk, point):
    """SIGKILL at each step that the daemon names: the next daemon finds its way, and nothing is left."""
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    if not tracepoints.can_inject(cloudhv.daemon_binary):
        pytest.skip("programs built without fault injection")
    cloudhv.restart_daemon()
    before = leaks.snapshot(node)
    environment = {"CLOUDHV_FAULT_POINT": point, "CLOUDHV_FAULT_ACTION": "kill"}

    def until_it_ends(what):
        """Did the daemon end in the course of `what`?"""
        try:
            what()
            return cloudhv.daemon.poll() is not None
        except (OSError, EOFError, ttrpc.Refused, RuntimeError):
            wait.until("the daemon to end", lambda: cloudhv.daemon.poll() is not None, 10)
            return True

    def recovery():
        with daemon.connect(cloudhv) as service:
            caller.acquire(service, "fault")
        cloudhv.restart_daemon(signal.SIGKILL, environment=environment)

    if not until_it_ends(lambda: cloudhv.restart_daemon(environment=environment)) and \
            not until_it_ends(lambda: whole_life(cloudhv, caller, disk)):
        # A point of recovery needs something to recover.
        until_it_ends(recovery)
    cloudhv.restart_daemon()
    whole_life(cloudhv, caller, disk)
    leaks.check(node, before, 15)


def test_vmm_killed_at(node, runtime, cloudhv, caller, disk, point):
    """The VMM dies while the daemon is at that step: the call fails or not, the release cleans up."""
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    if not tracepoints.can_inject(cloudhv.daemon_binary):
        pytest.skip("programs built without fault injection")
    cloudhv.restart_daemon()
    before = leaks.snapshot(node)
    # A program that stops at its start answers nobody.
    cloudhv.restart_daemon(check=False, environment={"CLOUDHV_FAULT_POINT": point, "CLOUDHV_FAULT_ACTION": "stop"})
    done = threading.Event()
    thread = threading.Thread(target=faults.kill_vmms_while_stopped, args=(node, cloudhv, cloudhv_module.DAEMON, done),
                              daemon=True)
    thread.start()
    try:
        wait.until("the daemon to serve", cloudhv.listening, 20)
        whole_life(cloudhv, caller, disk)
    except ttrpc.Refused:
        with daemon.connect(cloudhv) as service:
            service.call("ReleaseSandbox", namespace="test", sandbox_id="fault")
    finally:
        done.set()
        thread.join()
    leaks.check(node, before, 15)
    cloudhv.restart_daemon()
    whole_life(cloudhv, caller, disk)
