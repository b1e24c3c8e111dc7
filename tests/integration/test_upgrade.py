# SPDX-License-Identifier: MIT
"""Programs of two releases on one node: an update and the way back under running pods, where shim, agent and VM stay what
they were and the daemon, `delete` and cloudhvctl are the other release's; and a state that only a later release reads."""

import json
import os
import signal
import subprocess

import pytest

from harness import cri, daemon, proc, wait

pytestmark = pytest.mark.only("cloudhv")

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SLEEP = ["sleep", "100000"]


class Releases:
    def __init__(self, cloudhv, last):
        self.cloudhv = cloudhv
        self.directories = {"today": (cloudhv.bin_dir, cloudhv.guest_dir), "last": (last, os.path.join(last, "guest"))}

    def use(self, name):
        """The files on disk, and with them the daemon. What runs goes on with what it has."""
        self.cloudhv.bin_dir, self.cloudhv.guest_dir = self.directories[name]
        # What the last release does not know, it refuses by name.
        self.cloudhv.write_config(daemon={"templates": None, "templates_dir": None} if name == "last" else None)
        self.cloudhv.use_shim()
        self.cloudhv.restart_daemon()

    def ctl(self, *arguments):
        """Today's cloudhvctl, whoever's daemon answers it."""
        program = os.path.join(self.directories["today"][0], "src/ctl/cloudhvctl")
        return subprocess.run([program, *arguments], capture_output=True, text=True,
                              env={**os.environ, **self.cloudhv.environment()})


@pytest.fixture(scope="module")
def last_release():
    done = subprocess.run([os.path.join(TOP, "hacks/build-last-release.sh")], capture_output=True, text=True)
    if "is not in this clone" in done.stderr:
        pytest.skip("the last release is not in this clone")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def releases(cloudhv, last_release):
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    releases = Releases(cloudhv, last_release)
    try:
        yield releases
    finally:
        releases.use("today")


def sandboxes(cloudhv):
    with daemon.connect(cloudhv) as service:
        return {s.sandbox_id: s for s in service.call("Status").sandboxes}


@pytest.mark.parametrize("before,after", [("last", "today"), ("today", "last")])
def test_other_release_under_running_pods(node, runtime, cloudhv, releases, before, after):
    releases.use(before)
    pod, orphan = node.pod(runtime), node.pod(runtime)
    container = pod.run_container(["sh", "-c", "echo up; exec sleep 100000"])
    container.wait_for_output(b"up\n")
    vmms = {name: s.vmm_pid for name, s in sandboxes(cloudhv).items()}

    releases.use(after)
    # The state files were understood: the same VMs, and all that is known of them.
    found = sandboxes(cloudhv)
    assert {name: s.vmm_pid for name, s in found.items()} == vmms
    assert all(s.state == "running" and s.memory_mb and s.vcpus for s in found.values()), found
    assert list(found[pod.id].containers) == [container.id]
    shown = releases.ctl("status")
    assert shown.returncode == 0 and all(str(pid) in shown.stdout for pid in vmms.values()), shown

    assert container.exec(["echo", "in the pod"]).stdout == b"in the pod\n"
    assert pod.sh("echo another") == "another\n"
    # The release that is installed now starts pods of its own beside it.
    with node.pod(runtime) as new:
        assert new.sh("echo new") == "new\n"

    # Its shim is gone, so containerd executes the other release's `delete`.
    os.kill(node.shim_pid(orphan.id), signal.SIGKILL)
    wait.until("the orphan's VMM to end", lambda: not proc.alive(vmms[orphan.id]), 30)
    container.stop()
    container.remove()
    for each in (pod, orphan):
        each.close()
    assert not sandboxes(cloudhv) and not [pid for pid in vmms.values() if proc.alive(pid)]


def state_file(cloudhv, pod):
    directory = os.path.join(cloudhv.root, "daemon/sandboxes")
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with open(path, encoding="utf-8") as f:
            if json.load(f)["sandbox"] == pod.id:
                return path
    raise AssertionError(f"there is no state of {pod.id}")


def test_state_of_a_later_release(node, runtime, cloudhv):
    """Refused by name, and left alone with the pod it belongs to, which the later release finds again."""
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    with node.pod(runtime) as pod:
        container = pod.run_container(SLEEP)
        vmm = sandboxes(cloudhv)[pod.id].vmm_pid
        uid = os.stat(f"/proc/{vmm}").st_uid
        cloudhv.stop_daemon()
        path = state_file(cloudhv, pod)
        with open(path, encoding="utf-8") as f:
            state = f.read()
        later = json.loads(state)
        later["version"] += 1
        with open(path, "w", encoding="utf-8") as f:
            json.dump(later, f)
        cloudhv.start_daemon()
        assert not sandboxes(cloudhv)
        assert f"{path}: has version {later['version']}, but this program reads version" in cloudhv.daemon_tail()
        assert proc.alive(vmm) and os.path.exists(path)
        assert os.path.exists(f"/run/cloudhv/uids/{uid}")
        assert container.exec(["echo", "still"]).stdout == b"still\n"

        cloudhv.stop_daemon()
        with open(path, "w", encoding="utf-8") as f:
            f.write(state)
        cloudhv.start_daemon()
        assert sandboxes(cloudhv)[pod.id].vmm_pid == vmm
        assert container.status().state == cri.RUNNING
    assert not proc.alive(vmm)
