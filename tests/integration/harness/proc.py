# SPDX-License-Identifier: MIT
"""Processes of one test run, as /proc shows them."""

import os
import signal
import uuid

from . import wait

# Set in the environment of everything that a run starts, so that its processes are told from those of
# other runs on the same machine. A program that clears its environment is found by path and arguments.
MARK = "CLOUDHV_TEST_RUN"


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def cmdline(pid):
    return read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def comm(pid):
    return read(f"/proc/{pid}/comm").decode(errors="replace").strip()


def ppid(pid):
    stat = read(f"/proc/{pid}/stat")
    return int(stat.rpartition(b")")[2].split()[1]) if stat else 0


def pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


def exe(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def alive(pid):
    stat = read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def of_run(root, run_id):
    """PIDs of the run: marked environment, or its directory in the arguments, or in its cgroup, or a descendant of
    one; this process excepted."""
    me = os.getpid()
    mark = f"{MARK}={run_id}".encode()
    parents = {pid: ppid(pid) for pid in pids()}
    found = set()
    for pid in parents:
        if pid == me:
            continue
        if (mark in read(f"/proc/{pid}/environ").split(b"\0") or root in cmdline(pid)
                or f"/{run_id}/".encode() in read(f"/proc/{pid}/cgroup")):
            found.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found and pid != me}
        found |= more
        grown = bool(more)
    return found


def describe(pid):
    state = "" if alive(pid) else " (zombie)"
    return f"{comm(pid)}{state}: {cmdline(pid)[:160]}"


def kill(pid, sig=signal.SIGKILL, timeout=15):
    """Signals one process of ours and waits for its end."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return
    wait.until(f"process {pid} to end after signal {int(sig)}", lambda: not alive(pid), timeout)


def listening_sockets(pid):
    """Paths of the Unix sockets that a process listens on."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    # A socket belongs to the network namespace that it was made in, which here is ours.
    lines = [line.split() for line in read("/proc/net/unix").decode().splitlines()[1:]]
    return [f[7] for f in lines if len(f) > 7 and int(f[3], 16) & 0x10000 and f"socket:[{f[6]}]" in inodes]


def run_directory():
    """A new directory for a run, whose name is also good for a namespace of containerd."""
    path = f"/var/tmp/chvt-{uuid.uuid4().hex[:8]}"
    os.mkdir(path, 0o700)
    return path
