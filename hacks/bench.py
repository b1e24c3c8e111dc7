#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The measurements of hacks/bench.sh, against a node that it has started."""

import argparse
import collections
import json
import os
import re
import subprocess
import tempfile
import time

IMAGE = "localhost/cloudhv/busybox:demo"
RUNTIME = "io.containerd.cloudhv.v1"
PODS = 10
IDLE_SECONDS = 60


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.results = collections.OrderedDict()

    def put(self, name, value, unit, target=""):
        self.results[name] = {"value": value, "unit": unit}
        print(f"{name:34} {value!s:>12} {unit:10} {target}", flush=True)

    def ctr(self, *arguments, **options):
        return subprocess.run(["ctr", "--address", f"{self.arguments.directory}/containerd.sock", *arguments],
                              check=True, **options)

    def start(self, name, runtime=RUNTIME):
        self.ctr("run", "--detach", "--null-io", "--runtime", runtime, IMAGE, name, "sleep", "1000000")

    def stop(self, name):
        self.ctr("tasks", "kill", "--signal", "SIGKILL", name)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = subprocess.run(["ctr", "--address", f"{self.arguments.directory}/containerd.sock", "tasks", "rm", name],
                                  capture_output=True)
            if done.returncode == 0:
                break
            time.sleep(0.05)
        self.ctr("containers", "rm", name)

    def shim_of(self, name):
        for pid in pids_of("containerd-shim-cloudhv-v1"):
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if name.encode() in f.read().split(b"\0"):
                    return pid
        raise LookupError(f"no shim of {name}")

    def of_this_node(self, program):
        for pid in pids_of(program):
            with open(f"/proc/{pid}/environ", "rb") as f:
                if self.arguments.directory.encode() in f.read():
                    return pid
        raise LookupError(f"no {program} of this node")

    def daemon(self):
        return self.of_this_node("cloudhv-sandbox-daemon")

    def containerd(self):
        return self.of_this_node("containerd")


def pids_of(program):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.path.basename(os.readlink(f"/proc/{entry}/exe")) == program:
                    yield int(entry)
            except OSError:
                pass


def private_dirty_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_Dirty"))


def wakeups(pid):
    """How often a process went to sleep: each time it was woken before."""
    with open(f"/proc/{pid}/status") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))


def cpu_ms(pid):
    """Time on a CPU, which schedstat has in nanoseconds where stat has ticks of 10 ms."""
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e6


def stripped_kb(path):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["strip", "-o", out.name, path], check=True)
        return round(os.path.getsize(out.name) / 1000)


def sizes(b):
    build, guest = b.arguments.build, b.arguments.guest
    b.put("shim_file_kb", stripped_kb(f"{build}/src/shim/containerd-shim-cloudhv-v1"), "kB", "<= 400")
    b.put("daemon_file_kb", stripped_kb(f"{build}/src/daemon/cloudhv-sandbox-daemon"), "kB", "<= 400")
    b.put("agent_file_kb", stripped_kb(f"{build}/src/agent/cloudhv-agent"), "kB", "<= 1000")
    b.put("rootfs_kb", round(os.path.getsize(f"{guest}/rootfs.erofs") / 1000), "kB", "<= 1800")
    b.put("vmlinux_kb", round(os.path.getsize(f"{guest}/vmlinux") / 1000), "kB", "<= 10000")


def phases(b):
    """One start of a known image, from the trace points of daemon and shim (log level debug)."""
    b.start("phases-warm-up")
    b.stop("phases-warm-up")
    daemon, before, begun = b.daemon(), cpu_ms(b.daemon()), time.monotonic()
    b.start("phases")
    total = (time.monotonic() - begun) * 1000
    own = cpu_ms(daemon) - before + cpu_ms(b.shim_of("phases"))
    b.put("own_cpu_ms_per_pod", round(own, 1), "ms", "shim + daemon, ctr run of a known image")
    b.put("start_ms", round(total), "ms", "ctr run, known image")
    b.stop("phases")
    lines = []
    for log in ("daemon.log", "containerd.log"):
        with open(f"{b.arguments.directory}/{log}", errors="replace") as f:
            lines += re.findall(r"trace ((?:shim|daemon)\.[a-z.-]+) (\d+)", f.read())
    last = {}
    for name, usec in lines:
        last[name] = int(usec)
    steps = sorted((usec, name) for name, usec in last.items() if usec / 1e6 >= begun and ".release." not in name
                   and ".delete." not in name)
    table = {}
    for (previous, _), (usec, name) in zip(steps, steps[1:]):
        table[name] = round((usec - previous) / 1000, 1)
    for name, value in table.items():
        print(f"    {name:46} {value:8.1f} ms after the step before")
    b.put("pod_phases_ms", table or "not traced", "ms", "")


def syscalls(b):
    """System calls of daemon and shim for one start, counted by strace on both (which slows them down)."""
    with tempfile.NamedTemporaryFile(mode="r") as out:
        tracers = [subprocess.Popen(["strace", "-f", "-qq", "-o", out.name, "-p", str(pid)], stderr=subprocess.DEVNULL)
                   for pid in [b.containerd()]]
        daemon_out = tempfile.NamedTemporaryFile(mode="r")
        tracers.append(subprocess.Popen(["strace", "-qq", "-o", daemon_out.name, "-p", str(b.daemon())],
                                        stderr=subprocess.DEVNULL))
        time.sleep(1)
        b.start("syscalls")
        shim = b.shim_of("syscalls")
        for tracer in tracers:
            tracer.terminate()
            tracer.wait()
        shim_calls = sum(1 for line in out if line.startswith(f"{shim} ") and "resumed>" not in line)
        daemon_calls = sum(1 for line in daemon_out if "resumed>" not in line)
    b.stop("syscalls")
    b.put("own_syscalls_per_pod", shim_calls + daemon_calls, "calls", f"shim {shim_calls}, daemon {daemon_calls}")


def memory_and_wakeups(b):
    daemon = b.daemon()
    before = wakeups(daemon)
    time.sleep(IDLE_SECONDS)
    alone = wakeups(daemon) - before
    names = [f"pod{i}" for i in range(PODS)]
    for name in names:
        b.start(name)
    shims = [b.shim_of(name) for name in names]
    time.sleep(5)  # what a start leaves to be done has been done
    b.put("shim_private_dirty_kib", private_dirty_kib(shims[-1]), "KiB", "<= 600, the tenth of ten")
    b.put("daemon_private_dirty_kib", private_dirty_kib(daemon), "KiB", "<= 1000, ten pods")
    watched = shims + [daemon]
    before = sum(map(wakeups, watched))
    time.sleep(IDLE_SECONDS)
    woken = sum(map(wakeups, watched)) - before
    b.put("idle_wakeups_per_pod_minute", round((woken - alone) / PODS * 60 / IDLE_SECONDS, 2), "1/min",
          "0, shim and daemon on the host")
    for name in names:
        b.stop(name)


def stdout(b):
    megabytes = 100
    begun = time.monotonic()
    out = b.ctr("run", "--rm", "--runtime", RUNTIME, IMAGE, "nothing", "true", stdout=subprocess.PIPE).stdout
    start = time.monotonic() - begun
    begun = time.monotonic()
    with open(os.devnull, "wb") as null:
        b.ctr("run", "--rm", "--runtime", RUNTIME, IMAGE, "bytes", "dd", "if=/dev/zero", "bs=65536",
              f"count={megabytes * 16}", stdout=null, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - begun - start
    b.put("stdout_mb_per_s", round(megabytes * 1.048576 / seconds, 1), "MB/s", "100 MiB, less the start of a pod")
    begun = time.monotonic()
    out = b.ctr("run", "--rm", "--runtime", RUNTIME, IMAGE, "lines", "seq", "100000", stdout=subprocess.PIPE).stdout
    seconds = time.monotonic() - begun - start
    lines = out.count(b"\n")
    if lines != 100000:
        raise SystemExit(f"{lines} of 100000 lines arrived")
    b.put("stdout_lines_per_s", round(lines / max(seconds, 0.001)), "lines/s", "100,000 lines of seq")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--guest", required=True)
    parser.add_argument("--json")
    b = Bench(parser.parse_args())
    for step in (sizes, phases, syscalls, stdout, memory_and_wakeups):
        step(b)
    if b.arguments.json:
        with open(b.arguments.json, "w") as f:
            json.dump(b.results, f, indent=1)


if __name__ == "__main__":
    main()
