#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The measurements of hacks/bench.sh, against a node that it has started."""

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, f"{TOP}/tests/integration")
from harness import ttrpc  # noqa: E402 (the tests' client of the daemon)

IMAGE = "localhost/cloudhv/busybox:demo"
RUNTIME = "io.containerd.cloudhv.v1"
RUNC = "io.containerd.runc.v2"
PODS = 10
STARTS = 5
IDLE_SECONDS = 60
SETTLE_SECONDS = 100


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

    def start(self, name, runtime=RUNTIME, *options):
        self.ctr("run", "--detach", "--null-io", "--runtime", runtime, *options, IMAGE, name, "sleep", "1000000")

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

    def usage(self, name):
        """What the daemon and the agent say that a pod costs apart from its workload."""
        with ttrpc.Connection(f"{self.arguments.directory}/daemon.sock") as connection:
            service = ttrpc.Service(connection, f"{TOP}/src/proto", "daemon.proto")
            service.call("Hello", protocol=1, peer="bench")
            return service.call("Usage", namespace="default", sandbox_id=name)

    def status(self):
        with ttrpc.Connection(f"{self.arguments.directory}/daemon.sock") as connection:
            service = ttrpc.Service(connection, f"{TOP}/src/proto", "daemon.proto")
            service.call("Hello", protocol=1, peer="bench")
            return service.call("Status")

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
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as f:
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


def starts(b):
    """Starts of a known image until the task runs, with runc and as a cold boot, in turn."""
    seconds = {RUNC: [], RUNTIME: []}
    for i in range(STARTS + 1):
        for runtime, measured in seconds.items():
            begun = time.monotonic()
            b.start(f"start-{i}", runtime)
            measured.append(time.monotonic() - begun)
            b.stop(f"start-{i}")
    # The first of each fills caches.
    runc, cold = (statistics.median(measured[1:]) * 1000 for measured in (seconds[RUNC], seconds[RUNTIME]))
    b.put("runc_start_ms", round(runc), "ms", f"ctr run, median of {STARTS}")
    b.put("cold_start_ms", round(cold), "ms", f"the same, cold boot{'' if os.path.exists('/dev/kvm') else ', emulated'}")
    b.put("cold_to_runc", round(cold / runc, 1), "ratio", "side by side")


def wait_until_ready(b):
    """Nothing goes on in the background: the pool is full, and every template made."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        status = b.status()
        if status.templates_reason:
            raise SystemExit(f"no templates: {status.templates_reason}")
        if status.templates and status.pool_ready == status.pool_target and all(
                t.state == "ready" for t in status.templates):
            return
        time.sleep(0.2)
    raise SystemExit(f"the pool is not filled: {b.status()}")


def clones(b):
    """The same start by runc, from the pool, as a clone of a template and as a cold boot, in turn."""
    annotation = "io.cloudhv.config.hypervisor."
    ways = {"runc": (RUNC,), "pool": (RUNTIME,),
            # Of another size than the pool's, for which there is a template; and what no template can give.
            "template": (RUNTIME, "--annotation", f"{annotation}default_memory=192"),
            "cold": (RUNTIME, "--annotation", f"{annotation}kernel_params=cloudhv.bench")}
    b.start("first", *ways["template"])
    b.stop("first")
    seconds = {way: [] for way in ways}
    for i in range(STARTS + 1):
        for way, options in ways.items():
            wait_until_ready(b)
            begun = time.monotonic()
            b.start(f"{way}-{i}", *options)
            seconds[way].append(time.monotonic() - begun)
            sources = [s.source for s in b.status().sandboxes]
            if sources != ([] if way == "runc" else [way]):
                raise SystemExit(f"{way}: the VM's source is {sources}")
            b.stop(f"{way}-{i}")
    median = {way: statistics.median(measured[1:]) * 1000 for way, measured in seconds.items()}
    emulated = "" if b.status().kvm else ", emulated"
    for way, value in median.items():
        b.put(f"clones_{way}_start_ms", round(value), "ms", f"ctr run, median of {STARTS}{'' if way == 'runc' else emulated}")
    b.put("cold_to_restore", round(median["cold"] / median["template"], 1), "ratio", "whole ctr run, side by side")
    b.put("cold_to_pool", round(median["cold"] / median["pool"], 1), "ratio", "the same")
    b.put("pool_to_runc", round(median["pool"] / median["runc"], 2), "ratio", "the same")


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
    # The deadlines of a start's calls pass, some of them after the call has ended.
    time.sleep(SETTLE_SECONDS)
    b.put("shim_private_dirty_kib", private_dirty_kib(shims[-1]), "KiB", "<= 600, the tenth of ten")
    b.put("daemon_private_dirty_kib", private_dirty_kib(daemon), "KiB", "<= 1000, ten pods")
    usage = b.usage(names[-1])
    b.put("agent_private_kib", round(usage.agent_private / 1024), "KiB", "<= 1000, in the guest, one container")
    b.put("vmm_private_kib", round(usage.vmm_private / 1024), "KiB", "QEMU with all that its guest has touched")
    # What asking costs the agent is taken off again.
    first = b.usage(names[-1]).agent_wakeups
    time.sleep(2)
    second = b.usage(names[-1]).agent_wakeups
    watched = shims + [daemon]
    before = sum(map(wakeups, watched))
    time.sleep(IDLE_SECONDS)
    woken = sum(map(wakeups, watched)) - before - alone
    in_guest = b.usage(names[-1]).agent_wakeups - second - (second - first)
    b.put("idle_wakeups_per_pod_minute", round(woken / PODS * 60 / IDLE_SECONDS + in_guest, 2), "1/min",
          f"0; shim and daemon {woken} for {PODS} pods, agent {in_guest}")
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


def buffers(b):
    """What is held of a container's output when nobody takes it."""
    name = "held"
    b.start("idle")
    idle = private_dirty_kib(b.shim_of("idle")) + b.usage("idle").agent_private / 1024
    b.stop("idle")
    process = subprocess.Popen(["ctr", "--address", f"{b.arguments.directory}/containerd.sock", "run", "--rm", "--runtime",
                                RUNTIME, IMAGE, name, "dd", "if=/dev/zero", "bs=65536", "count=1600"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.read(1)
    time.sleep(5)  # until every buffer between the container and us is full
    held = private_dirty_kib(b.shim_of(name)) + b.usage(name).agent_private / 1024
    size = 1 + len(process.stdout.read())
    if process.wait() != 0 or size != 1600 * 65536:
        raise SystemExit(f"{size} bytes of {1600 * 65536} arrived")
    b.put("buffers_kib", round(held - idle), "KiB", "<= 4096, shim and agent, output that nobody takes")


PARTS = {"pods": (sizes, starts, phases, syscalls, stdout, buffers, memory_and_wakeups), "clones": (clones,)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True)
    parser.add_argument("--build", required=True)
    parser.add_argument("--guest", required=True)
    parser.add_argument("--json", help="a file, which the second part adds to")
    parser.add_argument("part", choices=PARTS)
    b = Bench(parser.parse_args())
    for step in PARTS[b.arguments.part]:
        step(b)
    if b.arguments.json:
        results = {}
        if b.arguments.part != "pods" and os.path.exists(b.arguments.json):
            with open(b.arguments.json) as f:
                results = json.load(f)
        with open(b.arguments.json, "w") as f:
            json.dump({**results, **b.results}, f, indent=1)


if __name__ == "__main__":
    main()
