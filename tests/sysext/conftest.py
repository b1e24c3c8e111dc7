# SPDX-License-Identifier: MIT
"""Tests of what the image brings beside programs: units, generator, containerd's configuration, Butane files."""

import os
import re
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GET_CONTAINERD = os.path.join(TOP, "tests/integration/get-containerd.sh")


def pytest_addoption(parser):
    parser.addoption("--results", help="append `pass NAME`, `fail NAME` and `skip NAME: REASON` lines to this file")
    parser.addoption("--build-dir", help="of the programs; without it no VM is started")
    parser.addoption("--guest-dir", help="with the guest's vmlinux and rootfs.erofs")
    parser.addoption("--pods", type=int, default=30, help="how many start and end while the extension is refreshed")


def pytest_configure(config):
    config.addinivalue_line("markers", "boot: the extension is merged while the machine boots")


def pytest_collection_modifyitems(config, items):
    if not (config.getoption("--build-dir") and config.getoption("--guest-dir")):
        config.hook.pytest_deselected(items=[i for i in items if "build_dir" in i.fixturenames])
        items[:] = [i for i in items if "build_dir" not in i.fixturenames]


@pytest.fixture(scope="session")
def build_dir(request):
    return os.path.abspath(request.config.getoption("--build-dir"))


@pytest.fixture(scope="session")
def guest_dir(request):
    return os.path.abspath(request.config.getoption("--guest-dir"))


_directories = {}


def containerd(version):
    """The program of a release line; skips where it cannot be had. CONTAINERD_2X names a directory with another 2.x."""
    if version == "2.x" and "CONTAINERD_2X" in os.environ:
        return os.path.join(os.environ["CONTAINERD_2X"], "containerd")
    if version not in _directories:
        got = subprocess.run([GET_CONTAINERD, version], capture_output=True, text=True)
        _directories[version] = (got.stdout.strip(), "" if got.returncode == 0 else got.stderr.strip().splitlines()[-1])
    directory, reason = _directories[version]
    if reason:
        pytest.skip(f"containerd {version}: {reason}")
    return os.path.join(directory, "containerd")


def _reason(report):
    return re.sub(r"^Skipped: ", "", str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "")


def pytest_terminal_summary(terminalreporter):
    path = terminalreporter.config.getoption("--results")
    if not path:
        return
    with open(path, "a", encoding="utf-8") as f:
        for key, word in (("passed", "pass"), ("failed", "fail"), ("error", "fail"), ("skipped", "skip")):
            for report in terminalreporter.stats.get(key, []):
                name = "sysext " + re.sub(r"\s+", " ", report.nodeid)
                f.write(f"{word} {name}: {_reason(report)}\n" if word == "skip" else f"{word} {name}\n")
