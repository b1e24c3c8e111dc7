# SPDX-License-Identifier: MIT
"""Plain containers by `ctr run`: pods of one, without CRI's annotations; and the events that any client sees."""

import json
import os
import re
import subprocess
import threading
import time

import pytest

from harness import proc, wait
from test_network import get

TYPES = {"runc": "io.containerd.runc.v2", "cloudhv": "io.containerd.cloudhv.v1"}


@pytest.fixture(scope="module")
def plain(node, runtime, no_leaks):
    """A containerd namespace of its own name with the busybox image; empty again at the end."""
    namespace = node.run_id
    node.import_image("busybox", namespace=namespace)
    yield namespace
    for kind in ("tasks", "containers"):
        assert node.ctr(kind, "list", "-q", namespace=namespace).stdout.split() == []
    assert b" Active" not in node.ctr("snapshots", "list", namespace=namespace).stdout


def arguments(node, runtime, name, *command, options=()):
    return ["run", "--rm", "--runtime", TYPES[runtime], *options, node.image_ref("busybox"), name, *command]


def test_run(node, runtime, plain):
    done = node.ctr(*arguments(node, runtime, "plain", "sh", "-c", "echo out; echo err >&2; hostname; exit 3"),
                    namespace=plain, check=False, stdin=subprocess.DEVNULL)
    # containerd may add warnings of its own.
    assert done.returncode == 3 and b"err" in done.stderr.splitlines()
    assert done.stdout.splitlines()[0] == b"out"


def test_options(node, runtime, plain):
    # containerd 1.6's ctr has no --user.
    user = () if node.version == "1.6" else ("--user", "1000:1000")
    done = node.ctr(*arguments(node, runtime, "options", "sh", "-c", "echo $A; pwd; id -u; cat /etc/extra; touch /x",
                               options=("--env", "A=b", "--cwd", "/var", *user, "--read-only", "--mount",
                                        "type=bind,src=/etc/debian_version,dst=/etc/extra,options=rbind:ro")),
                    namespace=plain, check=False, stdin=subprocess.DEVNULL)
    version = proc.read("/etc/debian_version").decode().strip()
    assert done.stdout.decode().split() == ["b", "/var", "1000" if user else "0", version], done.stderr.decode()
    assert b"Read-only file system" in done.stderr


@pytest.mark.only("cloudhv")
def test_output_that_nobody_takes_yet(node, runtime, plain):
    """More than the FIFO and all readers hold, from a process that has ended: its exit waits for the rest. (With runc
    some of it is lost now and then.)"""
    size = 200000
    command = [os.path.join(node.bin, "ctr"), "--address", node.socket, "--namespace", plain,
               *arguments(node, runtime, "slow", "sh", "-c", f"head -c {size} /dev/zero")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=node.environment()) as ctr:
        assert ctr.stdout.read(1) == b"\0"
        time.sleep(3)
        listed = node.ctr("tasks", "list", namespace=plain).stdout.decode()
        assert re.search(r"^slow\s+\d+\s+RUNNING", listed, re.M), listed
        assert len(ctr.stdout.read()) == size - 1
        assert ctr.wait(30) == 0


def test_failed_start(node, runtime, plain):
    done = node.ctr(*arguments(node, runtime, "missing", "/no/such/program"), namespace=plain, check=False,
                    stdin=subprocess.DEVNULL)
    assert done.returncode != 0 and b"/no/such/program" in done.stderr
    # ctr leaves the container that it could not start.
    node.ctr("tasks", "delete", "--force", "missing", namespace=plain, check=False)
    node.ctr("containers", "delete", "missing", namespace=plain, check=False)


def test_kill(node, runtime, plain):
    node.ctr(*arguments(node, runtime, "long", "sleep", "3600", options=("--detach",))[:1],
             *[a for a in arguments(node, runtime, "long", "sleep", "3600", options=("--detach",))[1:] if a != "--rm"],
             namespace=plain, stdin=subprocess.DEVNULL)
    listed = node.ctr("tasks", "list", namespace=plain).stdout.decode()
    assert re.search(r"^long\s+\d+\s+RUNNING", listed, re.M)
    node.ctr("tasks", "kill", "--signal", "SIGKILL", "long", namespace=plain)
    wait.until("the task to stop", lambda: "STOPPED" in node.ctr("tasks", "list", namespace=plain).stdout.decode(), 15)
    done = node.ctr("tasks", "delete", "long", namespace=plain, check=False)
    assert done.returncode in (0, 137)
    node.ctr("containers", "delete", "long", namespace=plain)


def test_run_with_cni(node, runtime, plain, tmp_path):
    """ctr sets the network up between Create and Start, in the namespace of the task's PID. It looks for CNI in
    fixed places, which a mount namespace of its own gives it."""
    etc = tmp_path / "etc"
    (etc / "cni").mkdir(parents=True)
    (etc / "cni" / "net.d").symlink_to(node.network.conf_dir)
    setup = (f"mount -t overlay overlay -o lowerdir={etc}:/etc /etc && mount -t tmpfs tmpfs /opt && "
             "mkdir /opt/cni && ln -s /usr/lib/cni /opt/cni/bin && exec \"$@\"")
    script = ("mkdir /www/cgi-bin; printf '#!/bin/sh\\ntouch /tmp/done; echo; echo bye' > /www/cgi-bin/done; "
              "chmod 755 /www/cgi-bin/done; ip -4 addr show eth0; httpd -p 80 -h /www; echo up; "
              "while ! test -e /tmp/done; do sleep 0.1; done; exit 4")
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", setup, "sh", os.path.join(node.bin, "ctr"),
         "--address", node.socket, "--namespace", plain,
         *arguments(node, runtime, "cni", "sh", "-c", script, options=("--cni",))],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=node.environment())
    lines = []

    def read():
        for line in iter(process.stdout.readline, b""):
            lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        wait.until("the container to serve", lambda: b"up\n" in lines or process.poll() is not None, 60)
        assert process.poll() is None, process.stderr.read().decode()
        address = re.search(r"inet ([0-9.]+)/24", b"".join(lines).decode()).group(1)
        assert get(address) == b"hello from the pod\n"
        assert get(address, "/cgi-bin/done") == b"bye\n"
        assert process.wait(30) == 4
    finally:
        process.kill()


def test_events_in_order(node, runtime):
    """create, start, exit, delete of every task, in that order and once."""
    events = subprocess.Popen([os.path.join(node.bin, "ctr"), "--address", node.socket, "--namespace", "k8s.io", "events"],
                              stdout=subprocess.PIPE, env=node.environment())
    lines = []

    def read():
        for line in iter(events.stdout.readline, b""):
            lines.append(line.decode())

    threading.Thread(target=read, daemon=True).start()

    def topics(task):
        found = []
        for line in lines:
            match = re.search(r" (/tasks/\S+) (\{.*\})", line)
            if match and task in (json.loads(match.group(2)).get("container_id"), json.loads(match.group(2)).get("id")):
                found.append(match.group(1).removeprefix("/tasks/"))
        return found

    try:
        # The subscription is there when an event arrives.
        def subscribed():
            node.ctr("namespaces", "label", "k8s.io", "probe=1")
            return lines
        wait.until("the first event", subscribed, 10)
        with node.pod(runtime) as pod:
            pod_id = pod.id
            container = pod.run_container(["sh", "-c", "exit 5"])
            container.wait()
            container.remove()
        expected = ["create", "start", "exit", "delete"]
        # runc's shim may be gone before the pod's own delete event is out.
        last = expected[:3] if runtime == "runc" else expected
        wait.until("the pod's last event", lambda: last[-1] in topics(pod_id), 15)
        assert topics(container.id) == expected
        assert topics(pod_id)[:len(last)] == last and len(topics(pod_id)) <= 4
        exits = [json.loads(re.search(r"\{.*\}", line).group(0)) for line in lines if "/tasks/exit" in line]
        assert [e["exit_status"] for e in exits if e["container_id"] == container.id] == [5]
    finally:
        events.terminate()
        events.wait(10)
