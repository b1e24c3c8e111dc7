# SPDX-License-Identifier: MIT
"""The units, generator and containerd's drop-in with a real systemd, as they are merged, refreshed and unmerged."""

import os
import shutil
import subprocess

import pytest

from conftest import TOP, containerd
from systemd import SYSTEMD, Machine

# Stands for containerd: the real one would want its directories. It asks the real one for dumps.
FAKE = """#!/bin/bash
case "$*" in
*config\\ d*) exec @REAL@ "$@" ;;
esac
echo "$@" > /run/fake-arguments
echo $(($(cat /run/fake-starts 2>/dev/null || echo 0) + 1)) > /run/fake-starts
if [ ! -e /run/fake-shim ]; then
    setsid sleep 1000 &
    echo $! > /run/fake-shim
fi
systemd-notify --ready
sleep 1000 &
wait
"""
CONTAINERD_UNIT = """[Unit]
DefaultDependencies=no
[Service]
Type=notify
NotifyAccess=all
KillMode=process
Environment=CONTAINERD_CONFIG=@/host.toml
ExecStart=@/bin/containerd --config ${CONTAINERD_CONFIG}
"""


def extension(daemon=None):
    units = os.path.join(TOP, "units")
    files = {}
    for directory, _, names in os.walk(units):
        for name in names:
            path = os.path.join(directory, name)
            if not name.endswith((".build", "modules-load.conf")):
                files["lib/cloudhv-test/units/" + os.path.relpath(path, units)] = path
    files["lib/cloudhv/containerd-config"] = os.path.join(TOP, "sysext/usr/lib/cloudhv/containerd-config")
    generator = "system-generators/cloudhv-containerd-generator"
    files["lib/systemd/system-generators-of-cloudhv/g"] = os.path.join(TOP, "sysext/usr/lib/systemd", generator)
    if daemon:
        files["bin/cloudhv-sandbox-daemon"] = daemon
    return files


@pytest.fixture
def machine(tmp_path, request):
    if os.geteuid() != 0 or not os.path.exists(SYSTEMD):
        pytest.skip("needs root and systemd")
    machine = Machine(str(tmp_path))
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    fake = bin_directory / "containerd"
    fake.write_text(FAKE.replace("@REAL@", containerd("1.7")))
    fake.chmod(0o755)
    (tmp_path / "host.toml").write_text("version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_selinux = true\n")
    machine.write_unit("containerd.service", CONTAINERD_UNIT.replace("@", str(tmp_path)))
    machine.write_unit("containerd.service.d/order.conf", "[Unit]\nAfter=basic.target\n")
    machine.write_unit("multi-user.target.d/containerd.conf", "[Unit]\nWants=containerd.service\nAfter=containerd.service\n")
    if "boot" in request.keywords:
        machine.merge_at_boot(extension())
    machine.start()
    yield machine
    machine.stop()


def arguments(machine):
    return machine.run("cat", "/run/fake-arguments")


def test_merge_unmerge_and_merge_again(machine, tmp_path):
    own = f"--config {tmp_path}/host.toml"
    ours = f"{own} --config /run/cloudhv/containerd/config.toml"
    assert arguments(machine) == own
    shim = machine.run("cat", "/run/fake-shim")

    # Merged while containerd runs: it is restarted, once, and what it had started goes on.
    machine.merge(extension())
    machine.wait(lambda: arguments(machine) == ours)
    machine.wait(lambda: machine.property("cloudhv-containerd.service", "ActiveState") == "active")
    machine.run("kill", "-0", shim)
    pid = machine.property("containerd.service", "MainPID")
    assert "cloudhv" in machine.run("cat", "/run/cloudhv/containerd/config.toml")

    # A reload, such as that of a refresh, restarts nothing.
    machine.systemctl("daemon-reload")
    assert machine.property("containerd.service", "MainPID") == pid

    # Unmerged: containerd goes on, and is as before when it next starts.
    machine.unmerge()
    assert machine.property("containerd.service", "MainPID") == pid
    machine.systemctl("stop", "cloudhv-containerd.service", "cloudhv-sandbox-daemon.socket")
    machine.systemctl("restart", "containerd.service")
    assert arguments(machine) == own
    assert "cloudhv" not in machine.systemctl("list-units", "--all", "--plain", "--no-legend",
                                            "--type=service,socket")
    assert "cloudhv" not in machine.systemctl("cat", "containerd.service")

    machine.merge(extension())
    machine.wait(lambda: arguments(machine) == ours)
    machine.run("kill", "-0", shim)


@pytest.mark.boot
def test_merge_at_boot(machine, tmp_path):
    """containerd starts after the merge, so nobody restarts it; the socket is there though nothing wants it at first."""
    assert arguments(machine) == f"--config {tmp_path}/host.toml --config /run/cloudhv/containerd/config.toml"
    machine.wait(lambda: machine.property("cloudhv-containerd.service", "ActiveState") == "active")
    assert machine.property("containerd.service", "NRestarts") == "0"
    assert machine.run("cat", "/run/fake-starts") == "1"
    machine.wait(lambda: machine.property("cloudhv-sandbox-daemon.socket", "ActiveState") == "active")
    assert machine.property("cloudhv-sandbox-daemon.service", "ActiveState") == "inactive"
    assert machine.run("stat", "-c", "%a", "/run/cloudhv", "/run/cloudhv/containerd") == "711\n700"


def test_a_configuration_that_cannot_be_made(machine, tmp_path):
    """containerd is not restarted for nothing, starts with its own when it starts, and the reason is kept."""
    own = f"--config {tmp_path}/host.toml"
    pid = machine.property("containerd.service", "MainPID")
    (tmp_path / "host.toml").write_text("version = 2\n[plugins\n")
    machine.merge(extension())
    machine.wait(lambda: machine.property("cloudhv-containerd.service", "ActiveState") == "active")
    assert machine.property("containerd.service", "MainPID") == pid
    for _ in range(2):
        assert "cannot read its configuration" in machine.run("cat", "/run/cloudhv/containerd/reason")
        machine.run("rm", "/run/cloudhv/containerd/reason")
        machine.systemctl("restart", "containerd.service")
        assert arguments(machine) == own
    (tmp_path / "host.toml").write_text("version = 2\n")
    machine.systemctl("restart", "containerd.service")
    assert arguments(machine) == own + " --config /run/cloudhv/containerd/config.toml"


def test_a_containerd_that_would_end_its_pods(machine, tmp_path):
    pid = machine.property("containerd.service", "MainPID")
    machine.write_unit("containerd.service.d/kill.conf", "[Service]\nKillMode=control-group\n")
    machine.merge(extension())
    machine.wait(lambda: machine.property("cloudhv-containerd.service", "ActiveState") == "active")
    assert machine.property("containerd.service", "MainPID") == pid
    assert arguments(machine) == f"--config {tmp_path}/host.toml"


def test_what_a_drop_in_of_the_user_says(machine, tmp_path):
    """Its command line is kept, its variables are filled in, and ours comes after it."""
    (tmp_path / "other.toml").write_text("version = 2\noom_score = -7\n")
    machine.write_unit("containerd.service.d/zzz-mine.conf",
                       f"[Service]\nEnvironment=OTHER={tmp_path}/other.toml\nExecStart=\n"
                       f"ExecStart={tmp_path}/bin/containerd --log-level \\\n   debug -c $OTHER\n")
    machine.merge(extension())
    machine.wait(lambda: arguments(machine) == f"--log-level debug -c {tmp_path}/other.toml "
                                               "-c /run/cloudhv/containerd/config.toml")
    assert "oom_score = -7" in machine.run("cat", "/run/cloudhv/containerd/config.toml")
