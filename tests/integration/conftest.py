# SPDX-License-Identifier: MIT
"""Options, fixtures and the summary of the integration tests; README.md says how to run them."""

import os
import re
import shutil
import time

import pytest

from harness import cloudhv as cloudhv_module
from harness import leaks, node as node_module, outcome

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def pytest_addoption(parser):
    group = parser.getgroup("cloudhv")
    group.addoption("--containerd", default="1.6", choices=("1.6", "1.7", "2.x"),
                    help="containerd's release line")
    group.addoption("--runtime", default="runc", help="runtimes, comma separated: runc,cloudhv")
    group.addoption("--mode", default="daemon", choices=("daemon", "daemonless"), help="who boots cloudhv's VMs")
    group.addoption("--bin-dir", default=os.path.join(TOP, "build"), help="our programs, or a build directory")
    group.addoption("--guest-dir", default=os.path.join(TOP, "build", "guest"), help="vmlinux and rootfs.erofs")
    group.addoption("--guest-arch", choices=("x86_64", "aarch64"), help="of the guest, emulated if not the host's; "
                    "--guest-dir is then of that architecture, and so are --guest-cc and --guest-busybox")
    group.addoption("--guest-cc", default="cc", help="compiles the programs of the images")
    group.addoption("--guest-busybox", default="/bin/busybox", help="a static one, for the images")
    group.addoption("--mkfs", help="mkfs.erofs 1.8 or later; default: beside the guest's files")
    group.addoption("--our-log-level", default="info", help="of our programs")
    group.addoption("--pods", type=int, default=20, help="how many one after another")
    group.addoption("--keep", action="store_true", help="keep the run's directory and its logs")
    group.addoption("--results", help="append `pass NAME`, `fail NAME` and `skip NAME: REASON` lines to this file")
    group.addoption("--label", default="", help="put before the names in that file")


def pytest_configure(config):
    config.addinivalue_line("markers", "only(runtime): the case makes sense for this runtime only")
    config.addinivalue_line("markers", "quick: one of the few cases that run in every combination")


def _list(config, option):
    return [v for v in config.getoption(option).split(",") if v]


def pytest_generate_tests(metafunc):
    if "node" in metafunc.fixturenames:
        metafunc.parametrize("node", [metafunc.config.getoption("--containerd")], indirect=True, scope="session")
    if "runtime" in metafunc.fixturenames:
        runtimes = _list(metafunc.config, "--runtime")
        only = metafunc.definition.get_closest_marker("only")
        if only:
            runtimes = [r for r in runtimes if r in only.args]
        metafunc.parametrize("runtime", runtimes or ["none"], scope="module")


def pytest_collection_modifyitems(config, items):
    def wanted(item):
        return not hasattr(item, "callspec") or item.callspec.params.get("runtime") != "none"

    dropped = [i for i in items if not wanted(i)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [i for i in items if wanted(i)]


@pytest.fixture(scope="session")
def node(request):
    """A node with one containerd version and all runtimes of the run."""
    config = request.config
    keep = config.getoption("--keep")
    try:
        node_module.find_containerd(request.param)
    except node_module.Unavailable as e:
        pytest.skip(f"containerd {request.param}: {e}")
    cloudhv = None
    if "cloudhv" in _list(config, "--runtime"):
        guest = os.path.abspath(config.getoption("--guest-dir"))
        mkfs = config.getoption("--mkfs") or os.path.join(guest, "mkfs.erofs")
        cloudhv = cloudhv_module.Cloudhv(config.getoption("--bin-dir"), guest, mkfs, config.getoption("--mode"),
                                         config.getoption("--our-log-level"), config.getoption("--guest-arch"))
    node = None
    try:
        if cloudhv:
            cloudhv.start_daemon()
        node = node_module.Node(request.param, cloudhv, keep, os.getpid() % 200, config.getoption("--guest-cc"),
                                config.getoption("--guest-busybox"))
        yield node
    finally:
        if node:
            node.close()
        if cloudhv:
            cloudhv.stop_daemon()
            if not keep:
                shutil.rmtree(cloudhv.root, ignore_errors=True)
        if keep and node:
            print(f"\nkept: {node.root}")


@pytest.fixture(scope="module", autouse=True)
def no_leaks(node, runtime):
    """What a module's cases leave behind for one runtime is a failure of the last of them."""
    before = leaks.snapshot(node)
    yield
    node.remove_pods()
    leaks.check(node, before)


@pytest.fixture
def cloudhv(node):
    return node.cloudhv


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With a failure comes what containerd and the daemon said last."""
    report = (yield).get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and node:
        report.sections.append(("containerd", node.log_tail()))
        if node.cloudhv:
            report.sections.append(("cloudhv-sandbox-daemon", node.cloudhv.daemon_tail()))


class Summary:
    started = time.monotonic()


def _skip_reason(report):
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return re.sub(r"^Skipped: ", "", reason)


def pytest_sessionfinish(session, exitstatus):
    """An unexpected skip turns a good run into a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter:
        return
    Summary.unexpected = outcome.unexpected(sorted({_skip_reason(r) for r in reporter.stats.get("skipped", [])}))
    if Summary.unexpected and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    counts = {name: len(stats.get(key, [])) for name, key in (
        ("passed", "passed"), ("failed", "failed"), ("errors", "error"), ("skipped", "skipped"))}
    counts["unexpected-skips"] = len(getattr(Summary, "unexpected", []))
    counts["seconds"] = round(time.monotonic() - Summary.started)
    for reason in getattr(Summary, "unexpected", []):
        terminalreporter.write_line(f"skip not in tests/expected-skips: {reason}")
    terminalreporter.write_line("RESULT integration " + " ".join(f"{k}={v}" for k, v in counts.items()))
    path = terminalreporter.config.getoption("--results")
    if path:
        with open(path, "a", encoding="utf-8") as f:
            f.writelines(result_lines(stats, terminalreporter.config.getoption("--label")))


def result_lines(stats, label):
    """What hacks/test.sh adds up."""
    for key, word in (("passed", "pass"), ("failed", "fail"), ("error", "fail"), ("skipped", "skip")):
        for report in stats.get(key, []):
            name = label + re.sub(r"\s+", " ", report.nodeid)
            if key == "error":
                name += f" ({report.when})"
            if word == "skip":
                name += f": {_skip_reason(report)}"
            elif word == "fail":
                name += f": {_failure(report)}"
            yield f"{word} {name}\n"


def _failure(report):
    """In a line: what a reader of the summary alone needs to know."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return re.sub(r"\s+", " ", crash.message if crash else str(report.longrepr))[:400]
