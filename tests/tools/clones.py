#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a template with the driver and the agent, starts clones of it at once, and compares what must not be equal.

    clones.py TOOLS QEMU GUEST MKFS-EROFS [--clones N]

TOOLS has vm-call and agent-call, GUEST vmlinux and rootfs.erofs; QEMU is one that has templates (10.0). Emulated. Needs
root and a static busybox; runs itself in a network namespace of its own. Prints what each step took.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KERNEL_ARGS = ("console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 panic=-1 reboot=t "
               "net.ifnames=0")
FIRST_UID, GID = 1879049000, 1879048999
MEMORY_MIB = 128
VMM_TEMPLATE = 1 << 5
MAC = "02:00:00:00:00:07"
START = time.monotonic()


def log(text):
    print(f"{time.monotonic() - START:7.2f} {text}", flush=True)


class Peer:
    """A program that takes a command a line."""

    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} has ended")
        return line.rstrip("\n")

    def close(self):
        self.process.stdin.close()
        return self.process.wait(60)


class Vms(Peer):
    """vm-call; its answers come in any order."""

    def __init__(self, options, directory):
        self.directory = directory
        super().__init__(f"{options.tools}/vm-call", directory, options.qemu, f"{options.guest}/vmlinux",
                         f"{options.guest}/rootfs.erofs", KERNEL_ARGS, str(MEMORY_MIB), str(FIRST_UID), str(GID))

    def await_all(self, *pairs):
        """Answers of commands, each as its words after "ok"."""
        missing, answers = set(pairs), {}
        while missing:
            command, name, status, rest = (self.receive().split(" ", 3) + [""])[:4]
            if status != "ok" or (command, name) not in missing:
                raise RuntimeError(f"{command} {name}: {status} {rest}")
            missing.remove((command, name))
            answers[name] = rest.split()
        return answers

    def call(self, command, name, *words):
        self.send(" ".join((command, name) + words))
        return self.await_all((command, name))[name]

    def refuse(self, command, name, *words):
        self.send(" ".join((command, name) + words))
        answer = self.receive()
        assert answer.startswith(f"{command} {name} error "), answer
        return answer

    def kill(self, name):
        self.send(f"kill {name}")
        self.await_all(("exit", name))


class Guest(Peer):
    """agent-call, for one VM."""

    def __init__(self, options, directory, name):
        self.name = name
        super().__init__(f"{options.tools}/agent-call", f"{directory}/{name}/control.sock", f"{directory}/{name}/task.sock")

    def call(self, command, expect="ok "):
        self.send(command)
        answer = self.receive()
        if not answer.startswith(expect):
            raise RuntimeError(f"{self.name}: {command}: {answer}")
        return answer


def make_image(options, directory):
    tree = f"{directory}/tree"
    for name in ("bin", "proc", "dev", "sys"):
        os.makedirs(f"{tree}/{name}")
    source = Path(__file__).with_name("clone-probe.c")
    subprocess.run(["cc", "-O", "-static", "-o", f"{tree}/bin/probe", source], check=True)
    Path(f"{tree}/machine-id").touch()
    subprocess.run([options.mkfs_erofs, "--quiet", "--all-root", f"{directory}/image.erofs", tree], check=True,
                   stdout=subprocess.DEVNULL)
    os.chmod(f"{directory}/image.erofs", 0o644)


def write_spec(path):
    capabilities = {key: ["CAP_NET_RAW"] for key in ("bounding", "effective", "permitted")}
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"},
              {"destination": "/machine-id", "type": "bind", "source": "/run/machine-id", "options": ["bind", "ro"]}]
    with open(path, "w") as f:
        json.dump({"ociVersion": "1.1.0", "root": {"path": "replaced"}, "mounts": mounts,
                   "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/probe"], "cwd": "/",
                               "capabilities": capabilities},
                   "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "cgroup")]}}, f)


def digests(directory):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(directory).iterdir())}


def make_template(options, vms, directory):
    os.mkdir(directory)
    os.chmod(directory, 0o755)  # so that the files' own modes are what counts
    took = int(vms.call("template", "template", directory)[0])
    guest = Guest(options, vms.directory, "template")
    guest.call("hello control")
    log(f"a guest is booted; QEMU said so after {took / 1000:.0f} ms")
    guest.call("list", "error ")
    vms.call("disk", "template", "warm", f"{options.guest}/rootfs.erofs")
    guest.call("quiesce warm")
    log("it has run a container")
    vms.call("pause", "template")
    log(vms.refuse("save", "template", directory))
    vms.call("resume", "template")
    vms.call("remove-disk", "template", "warm")
    vms.call("pause", "template")
    took = int(vms.call("save", "template", directory)[0])
    guest.process.kill()
    guest.process.wait()
    vms.kill("template")
    blocks = os.stat(f"{directory}/ram").st_blocks * 512
    log(f"the template is saved in {took / 1000:.0f} ms; {blocks >> 20} MiB of memory, "
        f"{os.stat(f'{directory}/state').st_size >> 10} KiB of state")


def start_clones(options, vms, names, template):
    for name in names:
        vms.send(f"clone {name} {template}")
    started = vms.await_all(*(("clone", name) for name in names))
    for name in names:
        log(f"{name} runs after {int(started[name][0]) / 1000:.0f} ms")
    guests = {}
    for number, name in enumerate(names):
        guests[name] = guest = Guest(options, vms.directory, name)
        guest.call("list", "error ")  # nothing before it knows who it is
        guest.call(f"identity pod{number} {number:032x}")
        guest.call(f"identity pod{number} {number:032x}")
        guest.call("identity another", "error ")
        guest.call("list", "error ")  # the session with the agent that was frozen has ended
        guest.process.kill()
        guest.process.wait()
        guests[name] = Guest(options, vms.directory, name)
    log("all have their identity")
    return guests, {name: int(started[name][1]) for name in names}


def run_probe(vms, guest, number, directory):
    vms.call("disk", guest.name, "image", f"{directory}/image.erofs")
    vms.call("nic", guest.name, f"clone{number}", MAC)
    guest.call(f"network {MAC} eth0 {MAC} 10.0.0.2 24 10.0.0.1")
    guest.call(f"create probe {directory}/spec.json image -")
    guest.call("start probe")
    guest.call("wait probe", "ok ")
    output = f"{directory}/{guest.name}.out"
    guest.call(f"read probe stdout {output}")
    errors = f"{directory}/{guest.name}.err"
    guest.call(f"read probe stderr {errors}")
    values = dict(line.split(" ", 1) for line in Path(output).read_text().splitlines())
    if "isn" not in values:
        raise RuntimeError(f"{guest.name}: the probe failed: {Path(errors).read_text()}")
    values["late"] = time.time() - int(values.pop("clock")) / 1e9
    guest.call("delete probe")
    vms.call("remove-disk", guest.name, "image")
    return values


def compare(values):
    for key in ("random", "at_random", "uuid", "boot_id", "machine_id", "hostname", "stack"):
        seen = [v[key] for v in values.values()]
        assert len(set(seen)) == len(seen), f"{key} is the same in several clones: {seen}"
    # With one secret in all clones they differ by the jitter of reading the clock only. Any two may be near each other
    # by chance, once in a thousand.
    numbers = [int(v["isn"]) for v in values.values()]
    pairs = [(a - b) % 2**32 for i, a in enumerate(numbers) for b in numbers[:i]]
    near = sum(min(d, 2**32 - d) < 2**21 for d in pairs)
    assert near <= len(pairs) // 4, f"initial sequence numbers come from one secret: {numbers}"
    late = max(v["late"] for v in values.values())
    assert -1 < min(v["late"] for v in values.values()) and late < 30, "clocks were not set"
    log(f"pairwise different; the latest clock is {late:.3f} s old when it is read")


def memory(pid):
    kib = {"Private": 0, "Pss": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        for key in kib:
            if line.startswith((f"{key}_Clean", f"{key}_Dirty")) or line.startswith(f"{key}:"):
                if key == "Private" or line.startswith("Pss:"):
                    kib[key] += int(line.split()[1])
    return kib


def check_protection(pids, template):
    """Neither the clone's user, nor anybody in what the clone sees, can write its memory's file."""
    for uid, pid in enumerate(pids.values(), FIRST_UID + 1):
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status, status
        try:
            os.close(os.open(f"/proc/{pid}/root/ram", os.O_RDWR))
            raise AssertionError("the template's memory can be written in a clone's jail")
        except OSError as e:
            assert e.strerror == "Read-only file system", e
    for name in ("ram", "state"):
        path, identity = f"{template}/{name}", {"user": FIRST_UID + 1, "group": GID, "extra_groups": []}
        subprocess.run(["/bin/sh", "-c", f"exec 3<{path}"], check=True, **identity)
        result = subprocess.run(["/bin/sh", "-c", f"exec 3>>{path}"], stderr=subprocess.PIPE, text=True, **identity)
        assert "Permission denied" in result.stderr, result.stderr


def check_network(directory):
    subprocess.run(["ip", "addr", "add", "10.0.0.1/24", "dev", "clone0"], check=True)
    subprocess.run(["ip", "link", "set", "clone0", "up"], check=True)
    subprocess.run(["busybox", "ping", "-c", "1", "-w", "60", "10.0.0.2"], check=True, stdout=subprocess.DEVNULL)


def make_taps(count):
    for number in range(count):
        subprocess.run(["ip", "tuntap", "add", f"clone{number}", "mode", "tap", "vnet_hdr"], check=True)


def run(options, directory):
    os.chmod(directory, 0o755)
    make_image(options, directory)
    write_spec(f"{directory}/spec.json")
    make_taps(options.clones)
    vms, template = Vms(options, directory), f"{directory}/saved"
    features = int(vms.call("probe", "-")[0])
    assert features & VMM_TEMPLATE, f"{options.qemu} has no templates: features {features}"
    make_template(options, vms, template)
    before = digests(template)
    names = [f"clone{i}" for i in range(options.clones)]
    guests, pids = start_clones(options, vms, names, template)
    values = {}
    for number, guest in enumerate(guests.values()):
        values[guest.name] = run_probe(vms, guest, number, directory)
        log(f"{guest.name}: {memory(pids[guest.name])} KiB, " + json.dumps(values[guest.name]))
    compare(values)
    check_network(directory)
    check_protection(pids, template)
    assert digests(template) == before, "a clone wrote into its template"
    for name in names:
        vms.kill(name)
    assert digests(template) == before, "a clone wrote into its template"
    for guest in guests.values():
        guest.process.kill()
        guest.process.wait()
    if vms.close() != 0:
        raise RuntimeError("vm-call failed")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tools")
    parser.add_argument("qemu")
    parser.add_argument("guest")
    parser.add_argument("mkfs_erofs")
    parser.add_argument("--clones", type=int, default=8)
    options = parser.parse_args()
    if os.environ.get("CLONES_NAMESPACE") != "1":
        os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, "CLONES_NAMESPACE": "1"})
    directory = tempfile.mkdtemp(prefix="cloudhv-clones.", dir="/var/tmp")
    try:
        run(options, directory)
    finally:
        shutil.rmtree(directory)
    log("all is well")


if __name__ == "__main__":
    main()
