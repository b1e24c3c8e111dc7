# SPDX-License-Identifier: MIT
"""What only a runtime of virtual machines has: another kernel, sizes by annotation, a VMM that can die."""

import os
import re
import signal
import time

import pytest

from harness import cri, daemon, proc, ttrpc, wait

pytestmark = pytest.mark.only("cloudhv")
LONG = ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 3600 & wait; done"]
PREFIX, KATA = "io.cloudhv.config.hypervisor.", "io.katacontainers.config.hypervisor."


@pytest.mark.quick
def test_kernel_is_the_guests(node, runtime):
    with node.pod(runtime) as pod:
        guest = pod.sh("uname -r; cat /proc/sys/kernel/random/boot_id").split()
    assert guest[0] != os.uname().release
    assert guest[1] != proc.read("/proc/sys/kernel/random/boot_id").decode().strip()


def test_size_by_annotation(node, runtime):
    with node.pod(runtime, annotations={PREFIX + "default_memory": "384", KATA + "default_memory": "256",
                                        KATA + "default_vcpus": "2", PREFIX + "kernel_params": "cloudhv.test=1"}) as pod:
        out = pod.sh("nproc; grep MemTotal /proc/meminfo; cat /proc/cmdline")
    assert out.splitlines()[0] == "2"
    total = int(re.search(r"MemTotal:\s+(\d+) kB", out).group(1)) >> 10
    assert 300 <= total <= 384
    assert "cloudhv.test=1" in out.split()


@pytest.mark.parametrize("key,value", [("default_memory", "-1"), ("default_memory", "lots"), ("default_vcpus", "0"),
                                       ("default_vcpus", "4000000000"), ("kernel_params", "init=/bin/sh")])
def test_bad_annotation_is_refused(node, runtime, key, value):
    with pytest.raises(cri.CriError) as error:
        node.pod(runtime, annotations={PREFIX + key: value})
    assert PREFIX + key in error.value.text and value.split("=")[0] in error.value.text


@pytest.mark.parametrize("option,word", [("host_network", "network"), ("host_pid", "pid"), ("host_ipc", "ipc")])
def test_namespaces_of_the_node_are_refused(node, runtime, option, word):
    """When the pod is made or, at the latest, when its first container is."""
    with pytest.raises(cri.CriError) as error:
        with node.pod(runtime, **{option: True}) as pod:
            pod.container(["true"]).create().start()
    assert word in error.value.text.lower()


def test_unsupported_mounts_are_refused(node, runtime, tmp_path):
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(b"x" * (8 << 20))
    shared = tmp_path / "shared"
    shared.mkdir()
    import socket
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "service.sock"))
        cases = {
            "more than can be copied": {"container_path": "/big", "host_path": str(big), "readonly": True},
            "seen by the host again": {"container_path": "/shared", "host_path": str(shared), "propagation":
                                       cri.pb.PROPAGATION_BIDIRECTIONAL},
            "a socket": {"container_path": "/run/service.sock", "host_path": str(tmp_path / "service.sock")},
        }
        with node.pod(runtime) as pod:
            for what, mount in cases.items():
                with pytest.raises(cri.CriError) as error:
                    pod.container(["true"], mounts=[mount]).create().start()
                    pytest.fail(f"a mount was not refused: {what}")
                assert mount["container_path"] in error.value.text, what
            # The refusals leave the pod usable.
            assert pod.sh("echo fine") == "fine\n"


def test_vmm_is_confined(node, runtime, cloudhv):
    with node.pod(runtime), node.pod(runtime):
        vmms = cloudhv.vmms()
        assert len(vmms) == 2
        uids = set()
        for pid in vmms:
            status = proc.read(f"/proc/{pid}/status").decode()
            uids.add(re.search(r"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", status, re.M).groups())
            for which in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "CapInh"):
                if which != "CapBnd":
                    assert re.search(rf"^{which}:\s+0+$", status, re.M), which
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
            assert re.search(r"^Seccomp:\s+2$", status, re.M)
        assert len(uids) == 2
        for uid in uids:
            assert len(set(uid)) == 1 and uid[0] != "0"


def test_shim_is_in_the_pods_network(node, runtime):
    """Its PID is the task's: CNI, `ctr run --cni` and port-forward reach the pod's network by it."""
    with node.pod(runtime) as pod:
        listed = node.ctr("tasks", "list").stdout.decode()
        pid = int(re.search(rf"^{pod.id}\s+(\d+)", listed, re.M).group(1))
        assert "shim" in proc.cmdline(pid)
        assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def test_vmm_dies(node, runtime, cloudhv):
    with node.pod(runtime) as pod:
        container = pod.run_container(LONG)
        container.wait_for_output(b"up\n")
        vmm, = cloudhv.vmms()
        started = time.monotonic()
        proc.kill(vmm)
        assert container.wait(10) == 137
        wait.until("the pod to be not ready", lambda: not pod.ready(), 10)
        assert time.monotonic() - started < 8 * wait.patience()
        with pytest.raises(cri.CriError):
            pod.run_container(["true"])


def test_broken_frames_at_the_shim(node, runtime):
    """Whatever a connection sends, the pod goes on and containerd is served."""
    with node.pod(runtime) as pod:
        container = pod.run_container(LONG)
        container.wait_for_output(b"up\n")
        shim = node.shim_pid(pod.id)
        path, = [s for s in proc.listening_sockets(shim) if s.startswith("/run/containerd/s/")]
        before = len(os.listdir(f"/proc/{shim}/fd"))
        ttrpc.send_broken_frames(path)
        with ttrpc.Connection(path) as connection:
            with pytest.raises(ttrpc.Refused) as error:
                connection.raw_call("containerd.task.v2.Task", "State", b"\0" * ((4 << 20) + 1))
            assert error.value.code == ttrpc.RESOURCE_EXHAUSTED
        assert pod.sh("echo fine") == "fine\n"
        assert node.shim_pid(pod.id) == shim
        wait.until("connections to be closed", lambda: len(os.listdir(f"/proc/{shim}/fd")) <= before + 4, 10)
        container.stop(20)
        assert container.status().exit_code == 7


def test_daemon_restarts_under_a_running_pod(node, runtime, cloudhv):
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    for sig in (signal.SIGTERM, signal.SIGKILL):
        with node.pod(runtime) as pod:
            container = pod.run_container(LONG)
            container.wait_for_output(b"up\n")
            cloudhv.restart_daemon(sig)
            assert container.status().state == cri.RUNNING
            assert pod.sh("echo new") == "new\n"
            container.stop(20)
            assert container.status().exit_code == 7


def test_daemon_away(node, runtime, cloudhv):
    """No daemon: the error names its socket. It is back: pods start again, and one that ended meanwhile is cleaned up."""
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    pod = node.pod(runtime)
    cloudhv.stop_daemon()
    try:
        with pytest.raises(cri.CriError) as error:
            node.pod(runtime)
        assert cloudhv.socket in error.value.text
        try:
            pod.close()
        except cri.CriError:
            pass
    finally:
        cloudhv.start_daemon()
    pod.close()
    with node.pod(runtime) as other:
        assert other.sh("echo fine") == "fine\n"


def test_too_many_containers(node, runtime, cloudhv):
    with cloudhv.configured(max_containers_per_vm=2):
        with node.pod(runtime) as pod:
            for _ in range(2):
                pod.run_container(LONG)
            with pytest.raises(cri.CriError) as error:
                pod.run_container(LONG)
            assert "max_containers_per_vm" in error.value.text


def test_creates_that_fail_leave_room(node, runtime, cloudhv):
    """Each takes disks of the VM and files in the guest, before crun finds that there is no such program; were they not
    given back, the VM would soon have no place left."""
    with node.pod(runtime) as pod:
        for _ in range(20):
            failed = pod.container(["/no/such/program"]).create()
            with pytest.raises(cri.CriError) as error:
                failed.start()
            assert "/no/such/program" in error.value.text
            failed.remove()
        assert pod.sh("echo fine") == "fine\n"
        if cloudhv.mode == "daemon":
            with daemon.connect(cloudhv) as service:
                sandbox, = service.call("Status", namespace="k8s.io", sandbox_id=pod.id).sandboxes
                assert len(sandbox.containers) <= 1, "failed containers still have disks"


def test_daemonless_when_configured_so(node, runtime, cloudhv):
    """Both ways of booting a VM work side by side."""
    if cloudhv.mode != "daemon":
        pytest.skip("no daemon in this mode")
    cloudhv.write_config(shim={"daemon_socket": ""})
    try:
        with node.pod(runtime) as pod:
            cloudhv.write_config()
            assert pod.sh("echo alone") == "alone\n"
            with node.pod(runtime) as other:
                assert other.sh("echo by the daemon") == "by the daemon\n"
    finally:
        cloudhv.write_config()


def test_pids_limit(node, runtime):
    with node.pod(runtime) as pod:
        container = pod.container(["probe", "forks", "100"])
        container.config.linux.resources.unified["pids.max"] = "20"
        container.create().start()
        assert container.wait() == 0
        made, reason = container.stdout().split()[1:]
        assert int(made) < 20 and reason == b"EAGAIN"
