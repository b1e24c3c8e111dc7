# SPDX-License-Identifier: MIT
"""The leak audit: everything on the host that a pod's life may leave behind, listed before and after.

Only what belongs to the run is looked at (by its directory, its cgroup's name, its bridge, its processes), so that
runs and other work on the same machine do not disturb each other; the two shared places, /run/containerd/s and the
default directories of cloudhv, are listed with care for that.
"""

import os
import re
import stat

from . import proc, wait

# Grows by design and has a test of its own: containerd's content and metadata, images and layers, logs.
NOT_STATE = ("sanitizer", "root", "logs", "images", "cni", "containerd.log", "daemon.log", "cache")
DEFAULT_DIRECTORIES = ("/run/cloudhv", "/var/lib/cloudhv")
SHIM_SOCKETS = "/run/containerd/s"


def _tree(top, skip=()):
    found = set()
    for directory, names, files in os.walk(top):
        if directory == top:
            names[:] = [n for n in names if n not in skip]
            files = [n for n in files if n not in skip]
        for name in names + files:
            found.add(os.path.join(directory, name))
        # What is mounted below is the mounts' business, and may be a container's whole file system.
        names[:] = [n for n in names if not os.path.ismount(os.path.join(directory, n))]
    return found


def _listening():
    """Paths of Unix sockets that some process still listens on."""
    return {line.split()[-1] for line in open("/proc/net/unix", encoding="utf-8") if "/" in line}


def _dead_sockets(top):
    try:
        names = os.listdir(top)
    except FileNotFoundError:
        return set()
    alive = _listening()
    return {p for p in (os.path.join(top, n) for n in names) if p not in alive}


def remove_dead_sockets(before):
    """Of shims that have ended since that snapshot."""
    for path in _dead_sockets(SHIM_SOCKETS) - before["shim sockets"]:
        os.unlink(path)


def _mounts(root):
    found = set()
    for line in open("/proc/self/mountinfo", encoding="utf-8"):
        fields = line.split()
        if fields[4].startswith(root + "/"):
            found.add(f"{fields[4]} ({fields[fields.index('-') + 1]})")
    return found


def _links(bridge):
    """Interfaces in the host's own network namespace: ports of the run's bridge, and every TUN or TAP."""
    found = set()
    for name in os.listdir("/sys/class/net"):
        top = f"/sys/class/net/{name}"
        master = os.path.basename(os.path.realpath(f"{top}/master")) if os.path.exists(f"{top}/master") else ""
        if master == bridge or os.path.exists(f"{top}/tun_flags"):
            found.add(name)
    return found


def _cgroups(run_id):
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            path = os.path.join(directory, name)
            # The run's own top directory comes with the first pod and goes with the last.
            if run_id in path and os.path.basename(path) != run_id:
                found.add(path)
    return found


def _namespaces(pids):
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            pass
    return found


def _descriptors(pid, everything):
    """Open files of one process, counted by what they are; ids that change from pod to pod are left out."""
    count = {}
    for fd in os.listdir(f"/proc/{pid}/fd") if pid and os.path.isdir(f"/proc/{pid}/fd") else ():
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target == "anon_inode:[timerfd]":
            # sd-event makes one for each clock when it is first needed.
            continue
        kind = re.sub(r"\[?[0-9a-f]{5,}\]?", "*", target)
        if everything or "/fifo" in target or "(deleted)" in target or "/ns/" in target or "pidfd" in target:
            count[kind] = count.get(kind, 0) + 1
    return {f"{proc.comm(pid)}: {kind} x{n}" for kind, n in count.items()}


def snapshot(node):
    """{category: set of strings}."""
    pids = node.processes()
    daemon = node.cloudhv.daemon_pid if node.cloudhv else None
    own = {node.process.pid, daemon}
    state = {
        "processes": {f"{pid} {proc.describe(pid)}" for pid in pids - own},
        "mounts": _mounts(node.root),
        "links": _links(node.network.bridge),
        "network namespaces": _namespaces(pids),
        "cgroups": _cgroups(node.run_id),
        "files": _tree(node.root, NOT_STATE),
        "leases": set(node.network.leases()),
        "shim sockets": _dead_sockets(SHIM_SOCKETS),
        "containers": set(node.ctr("containers", "list", "-q").stdout.decode().split()),
        "tasks": set(node.ctr("tasks", "list", "-q").stdout.decode().split()),
        "snapshots": {line.split()[0] for line in node.ctr("snapshots", "list").stdout.decode().splitlines()
                      if line.endswith("Active") or " Active" in line},
        "containerd's descriptors": _descriptors(node.process.pid, everything=False),
        "daemon's descriptors": _descriptors(daemon, everything=True),
    }
    if node.cloudhv:
        state["sanitizer reports"] = node.cloudhv.sanitizer_reports()
        state["daemon"] = {"running"} if daemon or node.cloudhv.mode != "daemon" else {"ended"}
    for top in DEFAULT_DIRECTORIES:
        # Its directories are made once; nothing of a run with a configuration of its own belongs
        # there, but what a shim remembers of containerd's binary.
        state[top] = {p for p in _tree(top) if not os.path.isdir(p) and "/containerd-version/" not in p
                      and (not node.cloudhv or node.cloudhv.owns(p))}
    # A FIFO or socket that vanished between two looks is not a file any more; a regular log may stay.
    state["files"] = {p for p in state["files"] if not _is_lasting(node, p)}
    return state


def _is_lasting(node, path):
    """Made once and kept, whichever runtime runs."""
    relative = os.path.relpath(path, node.root)
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return True
    if relative.split("/")[0] == "ipam":
        return True
    if not stat.S_ISDIR(kind):
        return False
    if relative.startswith("state/"):
        return relative.count("/") <= 2
    # What a program makes for all pods to come, and is empty between them.
    return relative.count("/") <= 1 and not any(files for _, _, files in os.walk(path))


def difference(before, after):
    lines = []
    for category, was in before.items():
        now = after[category]
        lines += [f"left behind, {category}: {item}" for item in sorted(now - was)]
        lines += [f"missing, {category}: {item}" for item in sorted(was - now)]
    return lines


def check(node, before, timeout=15):
    """Waits until the machine is as it was, or fails with the difference."""
    last = []

    def clean():
        last[:] = difference(before, snapshot(node))
        return not last

    try:
        wait.until("the machine to be as before", clean, timeout, interval=0.2)
    except wait.Timeout:
        raise AssertionError("not as before:\n  " + "\n  ".join(last)) from None
