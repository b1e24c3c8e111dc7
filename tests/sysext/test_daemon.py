# SPDX-License-Identifier: MIT
"""The daemon in its unit, with all that confines it, under a real systemd: a VM boots, gets a disk, and outlives a restart
of the daemon."""

import json
import os
import subprocess

import pytest

from conftest import TOP
from systemd import SYSTEMD, Machine
from test_units import extension

# Stands for a shim, in the machine's namespaces.
CALLER = """
import os, subprocess, sys
sys.path.insert(0, "{top}/tests/integration")
from harness import daemon


class Daemon:
    socket = "/run/cloudhv/daemon.sock"
    root = "/run/caller"


def pid():
    return subprocess.run(["systemctl", "show", "--value", "-p", "MainPID", "cloudhv-sandbox-daemon.service"],
                          capture_output=True, text=True, check=True).stdout.strip()


def status(process):
    with open(f"/proc/{{process}}/status") as f:
        return dict(line.rstrip("\\n").split(":\\t", 1) for line in f if ":\\t" in line)


os.makedirs("/run/caller/etc")
with open("/run/caller/disk", "wb") as f:
    f.truncate(1 << 20)
caller = daemon.Caller(Daemon)
try:
    with daemon.connect(Daemon) as service:
        assert not service.call("Status").sandboxes
        vmm = caller.acquire(service, "one").vmm_pid
        service.call("AddContainer", namespace="test", sandbox_id="one", container_id="c",
                     disks=[dict(serial="a", path="/run/caller/disk")])
    before = pid()
    of_daemon, of_vmm = status(before), status(vmm)
    assert of_daemon["NoNewPrivs"] == "1" and of_daemon["Seccomp"] == "2"
    assert int(of_vmm["CapEff"], 16) == 0 and int(of_vmm["Uid"].split()[0]) >= 1879048192
    subprocess.run(["systemctl", "restart", "cloudhv-sandbox-daemon.service"], check=True)
    assert pid() != before
    with daemon.connect(Daemon) as service:
        [found] = service.call("Status").sandboxes
        assert (found.state, found.vmm_pid, list(found.containers)) == ("running", vmm, ["c"]), found
        shown = subprocess.run(["cloudhvctl", "status"], capture_output=True, text=True)
        assert shown.returncode == 0 and f" {{vmm}} " in shown.stdout, shown
        service.call("ReleaseSandbox", namespace="test", sandbox_id="one")
        assert not service.call("Status").sandboxes
    subprocess.run(["systemctl", "stop", "cloudhv-sandbox-daemon.service"], check=True)
    print(sorted(os.listdir("/run/cloudhv")), os.listdir("/run/cloudhv/uids"), os.listdir("/run/cloudhv/daemon/sandboxes"))
finally:
    caller.close()
"""


@pytest.fixture
def machine(tmp_path):
    if os.geteuid() != 0 or not os.path.exists(SYSTEMD):
        pytest.skip("needs root and systemd")
    machine = Machine(str(tmp_path))
    yield machine
    machine.stop()


def test_refresh_and_removal(machine, build_dir, tmp_path):
    """As docs/install.md has it: a refresh keeps socket and daemon, which sees the new files; nothing is left in the end."""
    files = extension(os.path.join(build_dir, "src/daemon/cloudhv-sandbox-daemon"))
    files["bin/cloudhvctl"] = os.path.join(build_dir, "src/ctl/cloudhvctl")
    files["share/cloudhv/release"] = "one"
    machine.start()
    mounts = machine.run("findmnt", "-rno", "TARGET")
    machine.merge(files)
    machine.wait(lambda: machine.property("cloudhv-sandbox-daemon.socket", "ActiveState") == "active")
    machine.run("cloudhvctl", "status")
    pid = machine.property("cloudhv-sandbox-daemon.service", "MainPID")
    assert machine.run("cat", f"/proc/{pid}/root/usr/share/cloudhv/release") == "one"
    for release in "two", "three":
        files["share/cloudhv/release"] = release
        machine.refresh(files)
        assert machine.property("cloudhv-sandbox-daemon.service", "MainPID") == pid
        assert machine.run("cat", f"/proc/{pid}/root/usr/share/cloudhv/release") == release
        machine.run("cloudhvctl", "status")
    machine.unmerge()
    machine.systemctl("stop", "cloudhv-containerd.service", "cloudhv-sandbox-daemon.socket",
                      "cloudhv-sandbox-daemon.service")
    assert machine.systemctl("list-units", "--all", "--plain", "--no-legend", "cloudhv*") == ""
    assert "cloudhv" not in machine.run("ps", "ax", "-o", "comm")
    assert machine.run("findmnt", "-rno", "TARGET") == mounts
    # Merged again after that, it works again.
    machine.merge(files)
    machine.wait(lambda: machine.property("cloudhv-sandbox-daemon.socket", "ActiveState") == "active")
    machine.run("cloudhvctl", "status")


def test_a_vm_in_the_unit(machine, build_dir, guest_dir, tmp_path):
    files = extension(os.path.join(build_dir, "src/daemon/cloudhv-sandbox-daemon"))
    files["bin/cloudhvctl"] = os.path.join(build_dir, "src/ctl/cloudhvctl")
    with open(os.path.join(TOP, "sysext/usr/share/cloudhv/daemon.json"), encoding="utf-8") as f:
        config = json.load(f)
    config |= {"allow_emulation": True, "boot_timeout_secs": 120, "operation_timeout_secs": 60}
    files["share/cloudhv/daemon.json"] = json.dumps(config)
    for name in ("vmlinux", "rootfs.erofs"):
        files["share/cloudhv/guest/" + name] = os.path.join(guest_dir, name)
    log = tmp_path / "daemon.log"
    machine.write_unit("cloudhv-sandbox-daemon.service.d/log.conf",
                       f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n")
    machine.start()
    machine.merge(files)
    machine.wait(lambda: machine.property("cloudhv-sandbox-daemon.socket", "ActiveState") == "active")
    assert machine.property("cloudhv-sandbox-daemon.service", "ActiveState") == "inactive"
    shown = machine.run("/usr/bin/python3", "-c", CALLER.format(top=TOP), check=False, seconds=180)
    assert shown == "['daemon', 'daemon.sock', 'uids'] [] []", f"{shown}\n{log.read_text()}"
