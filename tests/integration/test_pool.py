# SPDX-License-Identifier: MIT
"""Templates and the pool, with the QEMU that the image carries: pods whose VMs are clones, what they leave of their
template, and a daemon that ends at each step of it."""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess

import pytest

from harness import daemon, proc, tracepoints, ttrpc, wait
from harness.cloudhv import UIDS
from test_network import get

pytestmark = pytest.mark.only("cloudhv")

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
POOL = 2
# Making a template takes a boot, emulated and beside whatever else runs here.
MADE = 180
# Steps that follow a failure, which the unit tests cause, and the first of several that are interrupted alike.
LEFT_OUT = ("daemon.clone.boots-instead", "daemon.template.manifest-removed", "daemon.template.begun")


def pytest_generate_tests(metafunc):
    if "point" in metafunc.fixturenames:
        config = metafunc.config
        metafunc.parametrize("point", [point for point in tracepoints.of_program(config.getoption("--bin-dir"), "daemon")
                                       if tracepoints.is_of_clones(point) and point not in LEFT_OUT])


@pytest.fixture(scope="module")
def qemu():
    """As the image has it; Debian 12's has no templates."""
    if platform.machine() != "x86_64":
        pytest.skip("there is no QEMU that clones VMs for this architecture")
    done = subprocess.run([os.path.join(TOP, "hacks", "build-qemu.sh")], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("there is no QEMU that clones VMs: hacks/build-qemu.sh failed")
    return os.path.join(done.stdout.strip(), "qemu-system-x86_64")


@pytest.fixture(scope="module")
def pooled(node, runtime, qemu):
    """A daemon with a pool. One vCPU, so that the pods here and the pool's VMs are of one size on any machine."""
    if node.cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    with node.cloudhv.configured(qemu_binary=qemu, max_default_vcpus=1,
                                 daemon={"templates": True, "pool_size": POOL, "max_pool_size": POOL, "pool_reserve_mb": 0}) as cloudhv:
        wait.until("the daemon to serve", cloudhv.listening, 30)
        yield cloudhv
    shutil.rmtree(os.path.join(cloudhv.root, "templates"), ignore_errors=True)


@pytest.fixture
def caller(pooled):
    caller = daemon.Caller(pooled)
    yield caller
    caller.close()


def status(cloudhv):
    with daemon.connect(cloudhv) as service:
        return service.call("Status")


def until_full(cloudhv, size=POOL):
    def full():
        s = status(cloudhv)
        return s.pool_ready == size and [t for t in s.templates if t.state == "ready"] and s
    return wait.until("the pool to be full", full, MADE)


def template_files(cloudhv):
    """Path and sha256 of each file of each template."""
    sums = {}
    for directory, _, names in os.walk(os.path.join(cloudhv.root, "templates")):
        for name in names:
            with open(os.path.join(directory, name), "rb") as f:
                sums[os.path.join(directory, name)] = hashlib.file_digest(f, "sha256").hexdigest()
    return sums


def vmms(cloudhv):
    """PIDs by uid: those that a former daemon started too."""
    found = []
    for pid in proc.pids():
        uid = next((int(line.split()[1]) for line in proc.read(f"/proc/{pid}/status").splitlines()
                    if line.startswith(b"Uid:")), 0)
        if cloudhv.uid_base <= uid < cloudhv.uid_base + UIDS and proc.comm(pid).startswith("qemu-system"):
            found.append(pid)
    return sorted(found)


def what_there_is(cloudhv):
    """How many VMMs, their states, directories and uids."""
    state = os.path.join(cloudhv.root, "daemon")
    uids = [name for name in os.listdir("/run/cloudhv/uids") if cloudhv.owns(os.path.join("/run/cloudhv/uids", name))]
    return [len(vmms(cloudhv)), len(os.listdir(os.path.join(state, "sandboxes"))),
            len(os.listdir(os.path.join(state, "vm"))), len(uids)]


def test_pods_from_the_pool(node, runtime, pooled):
    """Pods that are clones have their own names, addresses and random numbers, reach the network, and leave the
    template as it was."""
    until_full(pooled)
    before = template_files(pooled)
    assert any(os.path.basename(path) == "ram" for path in before)
    pods, seen = [], {"boot_id": set(), "random": set(), "hostname": set(), "ip": set()}
    try:
        for _ in range(POOL + 2):
            pods.append(node.pod(runtime).__enter__())
        sources = sorted(s.source for s in status(pooled).sandboxes)
        assert len(sources) == POOL + 2 and set(sources) <= {"pool", "template"} and "pool" in sources, sources
        for pod in pods:
            # The memory that a clone writes is its own.
            said = pod.sh("cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1; hostname; "
                          "head -c 8000000 /dev/zero | tr '\\0' x > /dev/shm/x && wc -c < /dev/shm/x").splitlines()
            for name, value in zip(("boot_id", "random", "hostname"), said):
                seen[name].add(value)
            seen["ip"].add(pod.ip)
            assert said[3] == "8000000"
        assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(seen, POOL + 2)
        server = pods[0].run_container(["sh", "-c", "httpd -p 80 -h /www && echo up && exec sleep 3600"])
        server.wait_for_output(b"up\n")
        assert get(pods[0].ip, "/index.html")
    finally:
        for pod in pods:
            pod.__exit__(None, None, None)
    until_full(pooled)
    assert template_files(pooled) == before


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_another_daemon(node, runtime, pooled, sig):
    """It takes over the template, the pool's VMs if the one before it was killed (one that is stopped ends them), and
    a pod that is a clone goes on."""
    until_full(pooled)
    with node.pod(runtime) as pod:
        s = until_full(pooled)
        key = [t.key for t in s.templates]
        before = vmms(pooled)
        pods = [one.vmm_pid for one in s.sandboxes]
        pooled.stop_daemon(sig)
        assert vmms(pooled) == (before if sig == signal.SIGKILL else pods)
        pooled.start_daemon()
        s = until_full(pooled)
        assert [t.key for t in s.templates] == key
        assert sig != signal.SIGKILL or vmms(pooled) == before
        assert [t.clones for t in s.templates] == [1]
        assert pod.sh("echo fine") == "fine\n"
    with node.pod(runtime) as pod:
        assert status(pooled).sandboxes[0].source == "pool"
        assert pod.sh("echo fine") == "fine\n"


def test_damage(node, runtime, pooled):
    """One bit of the template's state, and half of its memory: each is noticed before a clone sees it, and the
    template made again."""
    def damage(name):
        path = next(p for p in template_files(pooled) if os.path.basename(p) == name)
        with open(path, "r+b") as f:
            if name == "ram":
                f.truncate(os.path.getsize(path) // 2)
            else:
                f.seek(1000)
                byte = f.read(1)[0]
                f.seek(1000)
                f.write(bytes([byte ^ 1]))

    def created():
        return [t.created_usec for t in status(pooled).templates if t.state == "ready"]

    for name in ("state", "ram"):
        until_full(pooled)
        before = created()
        damage(name)
        # VMs of the pool came from the sound one; a memory that was cut off takes them with it.
        with node.pod(runtime) as pod:
            assert pod.sh("echo fine") == "fine\n"
        wait.until("the template to be made again", lambda: created() not in ([], before), MADE)
        until_full(pooled)


def test_dead_vm_of_the_pool(node, runtime, pooled):
    until_full(pooled)
    running = {s.vmm_pid for s in status(pooled).sandboxes}
    for pid in vmms(pooled):
        if pid not in running:
            os.kill(pid, signal.SIGKILL)
    with node.pod(runtime) as pod:
        assert pod.sh("echo fine") == "fine\n"
    until_full(pooled)


def test_no_pool_any_more(node, runtime, pooled):
    """A daemon that is told to have none ends what another one had."""
    until_full(pooled)
    path = os.path.join(pooled.config_dir, "daemon.json")
    text = proc.read(path)
    pooled.stop_daemon(signal.SIGKILL)
    try:
        with open(path, "w", encoding="utf-8") as f:
            json.dump({**json.loads(text), "pool_size": 0}, f)
        pooled.start_daemon()
        wait.until("the pool's VMs to end", lambda: not vmms(pooled), 20)
        assert status(pooled).pool_target == 0
    finally:
        with open(path, "wb") as f:
            f.write(text)
        pooled.restart_daemon()


def test_killed_at(node, runtime, pooled, caller, point):
    """SIGKILL at each step of making a template, filling the pool and giving a VM to a pod: the next daemon finds its
    way, and nothing is left but a full pool."""
    if not tracepoints.can_inject(pooled.daemon_binary):
        pytest.skip("programs built without fault injection")
    until_full(pooled)
    files = os.path.join(pooled.root, "templates")

    def acquire_and_release():
        with daemon.connect(pooled) as service:
            caller.acquire(service, "fault")
            service.call("ReleaseSandbox", namespace="test", sandbox_id="fault")
        return pooled.daemon.poll() is not None

    def begin():
        """As far as it comes by itself: with the template there, or, for what happens while it is made, without."""
        pooled.stop_daemon()
        if point.startswith("daemon.template."):
            for name in os.listdir(files):
                if name != "inputs.json":
                    os.unlink(os.path.join(files, name, "template.json"))
        pooled.start_daemon(check=False, environment={"CLOUDHV_FAULT_POINT": point, "CLOUDHV_FAULT_ACTION": "kill"})

    def ended():
        if pooled.daemon.poll() is not None:
            return True
        try:
            return acquire_and_release()
        except (OSError, EOFError, ttrpc.Refused, RuntimeError):
            return pooled.daemon.poll() is not None

    begin()
    wait.until(f"the daemon to end at {point}", ended, MADE)
    pooled.restart_daemon(signal.SIGKILL)
    until_full(pooled)
    acquire_and_release()
    until_full(pooled)
    wait.until("nothing to be left but the pool", lambda: what_there_is(pooled) == [POOL] * 4, 15)
    assert not [name for name in os.listdir(files) if name.startswith(".tmp-")]

