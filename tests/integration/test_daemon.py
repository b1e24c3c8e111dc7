# SPDX-License-Identifier: MIT
"""The daemon's own protocol, without containerd: idempotent calls, callers that vanish, frames that are no frames."""

import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys

import pytest

from harness import proc, ttrpc, wait

pytestmark = pytest.mark.only("cloudhv")
PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "proto")
SERVICE = "cloudhv.daemon.v1.Sandboxes"
MAC = bytes([2, 0, 0, 1, 2, 3])


@pytest.fixture
def sandboxes(cloudhv):
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    with ttrpc.Connection(cloudhv.socket) as connection:
        service = ttrpc.Service(connection, PROTO, "daemon.proto")
        service.call("Hello", protocol=1, peer="test")
        yield service


def start_time(pid):
    return int(proc.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])


class Caller:
    """A process that stands for a shim, with a bundle and a TAP."""

    def __init__(self, cloudhv):
        self.cloudhv = cloudhv
        self.process = subprocess.Popen(["sleep", "3600"], env={})
        self.bundle = os.path.join(cloudhv.root, "etc", f"bundle-{self.process.pid}")
        os.makedirs(self.bundle)

    def acquire(self, sandboxes, name):
        """TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; the interface goes with its last descriptor."""
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"chvtap%d", 0x0002 | 0x1000 | 0x4000))
            return sandboxes.call(
                "AcquireSandbox", fds=[tap], namespace="test", sandbox_id=name, bundle=self.bundle,
                shim_pid=self.process.pid, shim_start_time=start_time(self.process.pid), hostname="host",
                nics=[{"mac": MAC, "tap": "chvtap"}])
        finally:
            os.close(tap)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.bundle, ignore_errors=True)


@pytest.fixture
def caller(cloudhv):
    caller = Caller(cloudhv)
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
    import threading
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
    with ttrpc.Connection(cloudhv.socket) as connection:
        service = ttrpc.Service(connection, PROTO, "daemon.proto")
        assert proc.alive(caller.acquire(service, "twice").vmm_pid)
        service.call("ReleaseSandbox", namespace="test", sandbox_id="twice")
    assert not cloudhv.vmms()


@pytest.mark.parametrize("fields", [
    {"namespace": "../..", "sandbox_id": "x"}, {"namespace": "test", "sandbox_id": "a/b"},
    {"namespace": "test", "sandbox_id": ""}, {"namespace": "test", "sandbox_id": "n" * 1000},
    {"namespace": "test", "sandbox_id": "x", "nics": [{"mac": b"short", "tap": "t"}]},
    {"namespace": "test", "sandbox_id": "x", "nics": [{"mac": MAC, "tap": "t"}]},
])
def test_bad_arguments(node, runtime, sandboxes, fields):
    """The last has a NIC without a descriptor."""
    with pytest.raises(ttrpc.Refused) as error:
        sandboxes.call("AcquireSandbox", **fields)
    assert error.value.code == ttrpc.INVALID_ARGUMENT and error.value.text


def test_what_is_not_served(node, runtime, sandboxes):
    for service, method, name in ((SERVICE, "Levitate", "Levitate"), ("no.such.Service", "Hello", "no.such.Service")):
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
    noise = random.Random(1)
    header = ttrpc.HEADER
    cases = [
        b"", b"\0", header.pack(100, 1, 1, 0), header.pack(100, 1, 1, 0) + b"x" * 50,
        header.pack(5, 1, 1, 0) + b"\xff" * 5, header.pack(0, 1, 1, 0), header.pack(0, 2, 1, 0), header.pack(0, 1, 77, 255),
        header.pack(0, 1, 2, 0), header.pack(0, 1, 3, 0), header.pack(0xFFFFFFFF, 1, 1, 0) + b"y" * 100000,
    ] + [noise.randbytes(noise.randrange(1, 5000)) for _ in range(30)]
    pid = cloudhv.daemon_pid
    for case in cases:
        with ttrpc.Connection(cloudhv.socket, timeout=5) as connection:
            try:
                connection.send(case) if case else None
                connection.socket.shutdown(socket.SHUT_WR)
                while connection.socket.recv(65536):
                    pass
            except OSError:
                pass
    assert sandboxes.call("Status").daemon_version
    assert cloudhv.daemon_pid == pid


def test_oversized_message(node, runtime, sandboxes):
    """Drained and answered; the connection goes on."""
    with pytest.raises(ttrpc.Refused) as error:
        sandboxes.connection.raw_call(SERVICE, "Status", b"\0" * ((4 << 20) + 1))
    assert error.value.code == ttrpc.RESOURCE_EXHAUSTED
    assert sandboxes.call("Status").daemon_version


def test_surplus_descriptors(node, runtime, cloudhv, sandboxes):
    before = len(os.listdir(f"/proc/{cloudhv.daemon_pid}/fd"))
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(50):
            sandboxes.call("Status", fds=[null] * 20)
    finally:
        os.close(null)
    assert len(os.listdir(f"/proc/{cloudhv.daemon_pid}/fd")) <= before
