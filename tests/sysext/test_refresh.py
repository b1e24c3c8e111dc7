# SPDX-License-Identifier: MIT
"""Pods start and end while systemd-sysext replaces the extension again and again: what fails in the moment without
files can be tried again, and nothing is left behind. tests/appliance does the same with a signed image, a few times."""

import concurrent.futures
import json
import os
import re
import subprocess
import time

import pytest

from conftest import TOP, containerd
from systemd import SYSTEMD, Machine
from test_units import extension

NAME = "containerd-cloudhypervisor"
# A VM keeps a processor busy while it boots, where it is emulated.
AT_A_TIME = 2
TRIES = 5
RUNTIME = "io.containerd.cloudhv.v1"
# The host's own, which is there when the extension is not.
CONFIGURATION = "/run/host-configuration"
CONTAINERD_UNIT = """[Unit]
DefaultDependencies=no
[Service]
Type=notify
KillMode=process
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin CLOUDHV_CONFIG_DIR={configuration}
ExecStart=@/containerd
"""
# systemd 254 and later reload themselves after a refresh, as the extension asks for; earlier ones are told to. Between
# two refreshes is time for a few steps of a pod, so that they are hit in all of them.
REFRESHER = """
while [ ! -e /run/stop-refreshing ]; do
    systemd-sysext refresh >/run/refresh-log 2>&1 && systemctl daemon-reload || cat /run/refresh-log >>/run/refresh-errors
    echo refreshed >>/run/refreshes
    sleep 0.1
done
"""
# What a pod may say that met the moment without the extension: a file of it that is not there.
MISSING = re.compile(r"no such file|not found|not installed|not executable|does not exist|cannot (open|find)", re.I)


@pytest.fixture
def machine(tmp_path, build_dir, guest_dir):
    if os.geteuid() != 0 or not os.path.exists(SYSTEMD):
        pytest.skip("needs root and systemd")
    machine = Machine(str(tmp_path))
    machine.containerd = os.path.dirname(containerd("1.7"))
    unit = CONTAINERD_UNIT.replace("@", machine.containerd).replace("{configuration}", CONFIGURATION)
    machine.write_unit("containerd.service", unit)
    machine.write_unit("multi-user.target.d/containerd.conf", "[Unit]\nWants=containerd.service\n")
    log = tmp_path / "daemon.log"
    machine.write_unit("cloudhv-sandbox-daemon.service.d/log.conf",
                       f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n"
                       f"Environment=CLOUDHV_CONFIG_DIR={CONFIGURATION}\n")
    machine.start()
    write_configuration(machine)
    machine.run("mkdir", "-p", "/run/extensions")
    machine.run("cp", "-r", os.path.dirname(write_extension(machine, build_dir, guest_dir)), f"/run/extensions/{NAME}")
    yield machine
    machine.stop()


def write_extension(machine, build_dir, guest_dir):
    """The extension as a directory: with programs and guest as they are in the image."""
    files = extension(os.path.join(build_dir, "src/daemon/cloudhv-sandbox-daemon"))
    files["bin/containerd-shim-cloudhv-v1"] = os.path.join(build_dir, "src/shim/containerd-shim-cloudhv-v1")
    tools = subprocess.run([os.path.join(TOP, "hacks/build-tools.sh")], capture_output=True, text=True, check=True)
    files["lib/cloudhv/mkfs.erofs"] = os.path.join(tools.stdout.strip(), "mkfs.erofs")
    release = f"lib/extension-release.d/extension-release.{NAME}"
    files[release] = os.path.join(TOP, "sysext/usr", release)
    for name in ("vmlinux", "rootfs.erofs"):
        files["share/cloudhv/guest/" + name] = os.path.join(guest_dir, name)
    return machine.write_extension(files)


def write_configuration(machine):
    machine.run("mkdir", CONFIGURATION)
    for name in ("config.json", "daemon.json"):
        with open(os.path.join(TOP, "sysext/usr/share/cloudhv", name), encoding="utf-8") as f:
            config = json.load(f)
        config |= {"allow_emulation": True, "boot_timeout_secs": 120, "operation_timeout_secs": 60}
        machine.run("sh", "-c", 'printf %s "$1" >"$2"', "sh", json.dumps(config), f"{CONFIGURATION}/{name}")


class Node:
    """containerd in the machine, asked by ctr."""

    def __init__(self, machine):
        self.machine = machine
        archive = subprocess.run([os.path.join(TOP, "hacks/make-image.sh"), "busybox"], capture_output=True, text=True,
                                 check=True).stdout.strip()
        self.ctr("images", "import", archive)
        self.image = self.ctr("images", "ls", "-q").split()[0]
        self.retried = []

    def ctr(self, *arguments, **options):
        return self.machine.run(f"{self.machine.containerd}/ctr", "--namespace", "k8s.io", *arguments, seconds=300,
                                **options)

    def start(self, name):
        for _ in range(TRIES):
            failure = self.ctr("run", "--detach", "--null-io", "--runtime", RUNTIME, self.image, name, "sleep", "100000",
                               check=False)
            if not failure:
                return
            assert MISSING.search(failure), failure
            self.retried.append(failure.splitlines()[-1])
            self.forget(name)
        raise AssertionError(f"{name} did not start: {failure}")

    def state(self, name):
        for line in self.ctr("tasks", "ls").splitlines():
            if line.split()[0] == name:
                return line.split()[2]
        return None

    def forget(self, name):
        self.ctr("tasks", "rm", "--force", name, check=False)
        self.machine.wait(lambda: self.state(name) is None)
        self.ctr("containers", "rm", name)

    def shim_pid(self, name):
        return self.machine.run("pgrep", "-f", f"containerd-shim-cloudhv-v1.* -id {name} ")

    def cycle(self, number):
        """Every third loses its shim, so that containerd has to execute the shim's `delete`."""
        name = f"pod{number}"
        self.start(name)
        if number % 3 == 0:
            self.machine.run("kill", "-KILL", self.shim_pid(name))
        else:
            self.ctr("tasks", "kill", "--signal", "SIGKILL", name)
            self.machine.wait(lambda: self.state(name) == "STOPPED")
        self.forget(name)


def left(machine):
    """All that pods could leave: processes, mounts, files, snapshots."""
    found = machine.run("pgrep", "-fa", "qemu-system|containerd-shim-cloudhv", check=False).splitlines()
    found += machine.run("findmnt", "-no", "TARGET", "--raw").splitlines()
    return set(found + machine.run("find", "/run/cloudhv", "/var/lib/cloudhv", "/run/containerd/s",
                                   "/run/containerd/io.containerd.runtime.v2.task", "-mindepth", "1").splitlines())


def test_pods_while_the_extension_is_refreshed(machine, request):
    pods = request.config.getoption("--pods")
    machine.run("systemd-sysext", "refresh")
    machine.systemctl("daemon-reload")
    machine.wait(lambda: machine.property("cloudhv-containerd.service", "ActiveState") == "active")
    node = Node(machine)
    node.cycle(1)  # the image is converted, the daemon runs
    before, snapshots = left(machine), node.ctr("snapshots", "ls")

    started = time.monotonic()
    refresher = subprocess.Popen(["nsenter", "--target", str(machine.pid), "--mount", "--pid", "bash", "-c", REFRESHER])
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(node.cycle, range(pods)))
    finally:
        machine.run("touch", "/run/stop-refreshing")
        refresher.wait(60)
    refreshes = len(machine.run("cat", "/run/refreshes").splitlines())
    print(f"{pods} pods, {refreshes} refreshes, {time.monotonic() - started:.0f} s, tried again: {node.retried}")
    assert refreshes > pods
    assert machine.run("cat", "/run/refresh-errors", check=False).endswith("No such file or directory")
    deadline = time.monotonic() + 60
    while left(machine) - before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left(machine) - before
    assert node.ctr("snapshots", "ls") == snapshots
    assert node.ctr("containers", "ls", "-q") == "" and node.ctr("tasks", "ls", "-q") == ""
