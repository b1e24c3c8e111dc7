# SPDX-License-Identifier: MIT
"""Pods and containers from start to removal, in every order that the kubelet uses."""

import time

import pytest

from harness import cri, proc, wait

# Ends at once on SIGTERM, as a well-made program does; the shell alone, being PID 1, would ignore it.
PATIENT = ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 3600 & wait; done"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 3600 & wait; done"]


@pytest.mark.quick
def test_two_containers_in_a_pod(node, runtime):
    with node.pod(runtime) as pod:
        assert pod.ready()
        first = pod.run_container(PATIENT, name="first")
        second = pod.run_container(["sh", "-c", "echo second; exit 3"], name="second")
        assert second.wait() == 3
        assert second.stdout() == b"second\n"
        assert first.status().state == cri.RUNNING
        assert pod.ready()
        first.wait_for_output(b"up\n")
        first.stop(20)
        status = first.status()
        assert (status.state, status.exit_code) == (cri.EXITED, 7)
        assert status.started_at <= status.finished_at


def test_exit_codes_and_signals(node, runtime):
    """128 + n for a signal, as every runtime reports it."""
    with node.pod(runtime) as pod:
        cases = {"zero": (["true"], 0), "one": (["false"], 1), "high": (["sh", "-c", "exit 255"], 255),
                 "segv": (["probe", "segv"], 128 + 11), "ill": (["probe", "ill"], 128 + 4)}
        running = {name: pod.run_container(command, name=name) for name, (command, _) in cases.items()}
        for name, container in running.items():
            code = container.wait()
            assert code == cases[name][1], f"{name} ended with {code}"
            assert container.status().reason == ("Completed" if code == 0 else "Error")


def test_missing_program(node, runtime):
    """The failure of a start names the program and leaves the pod usable."""
    with node.pod(runtime) as pod:
        missing = pod.container(["/no/such/program"]).create()
        with pytest.raises(cri.CriError) as error:
            missing.start()
        assert "/no/such/program" in error.value.text
        wait.until("the container to count as exited", lambda: missing.status().state == cri.EXITED, 10)
        assert missing.status().exit_code != 0
        missing.remove()
        assert pod.sh("echo fine") == "fine\n"


def test_stop_with_grace_period(node, runtime):
    with node.pod(runtime) as pod:
        patient, stubborn = pod.run_container(PATIENT), pod.run_container(STUBBORN)
        for container in (patient, stubborn):
            container.wait_for_output(b"up\n")
        started = time.monotonic()
        patient.stop(60)
        assert time.monotonic() - started < 20 * wait.patience(), "a program that obeys SIGTERM was waited for"
        assert patient.status().exit_code == 7
        started = time.monotonic()
        stubborn.stop(2)
        elapsed = time.monotonic() - started
        assert 2 <= elapsed < 20 * wait.patience(), f"a grace period of 2 s took {elapsed:.1f} s"
        assert stubborn.status().exit_code == 128 + 9


def test_kill_at_once(node, runtime):
    with node.pod(runtime) as pod:
        container = pod.run_container(PATIENT)
        container.stop(0)
        assert container.status().exit_code == 128 + 9


def test_restart_of_a_container(node, runtime):
    """As the kubelet does it: a new container of the same name with the next attempt, in the same pod."""
    with node.pod(runtime) as pod:
        ip = pod.ip
        for attempt in range(3):
            container = pod.run_container(["sh", "-c", "test ! -e /tmp/mark || exit 9; touch /tmp/mark; echo run; exit 1"],
                                          name="app", attempt=attempt)
            assert container.wait() == 1, "the last attempt's files are still there"
            assert container.stdout() == b"run\n"
            container.remove()
        assert pod.ip == ip


def test_removal_in_every_state(node, runtime):
    pod = node.pod(runtime)
    created = pod.container(["true"]).create()
    created.remove()
    exited = pod.run_container(["true"])
    exited.wait()
    exited.remove()
    running = pod.run_container(PATIENT)
    running.remove()
    # Removing what is gone is not an error.
    running.remove()
    pod.container(["true"]).create()
    pod.run_container(PATIENT)
    # The kubelet stops and removes the pod with whatever is in it, more than once when answers get lost.
    pod.stop()
    pod.stop()
    assert not pod.ready()
    pod.remove()


def test_pod_without_containers(node, runtime):
    pod = node.pod(runtime)
    # RemovePodSandbox alone must be enough.
    pod.remove()


def test_stopped_container_fails_not_its_pod(node, runtime):
    with node.pod(runtime) as pod:
        ended = pod.run_container(["true"])
        ended.wait()
        ended.stop(1)
        with pytest.raises(cri.CriError):
            ended.start()
        assert pod.ready()


@pytest.mark.only("cloudhv")
def test_shim_dies(node, runtime):
    """The pod is not ready any more, its containers count as exited, all can be removed, nothing goes on running
    (runc's containers do: with version 2 of the protocol containerd cleans up after the sandbox only)."""
    with node.pod(runtime) as pod:
        container = pod.run_container(PATIENT)
        container.wait_for_output(b"up\n")
        pid = wait.until("the shim", lambda: node.shim_pid(pod.id), 5)
        proc.kill(pid)
        wait.until("the container to count as exited",
                   lambda: container.status().state in (cri.EXITED, cri.UNKNOWN), 30)
        wait.until("the pod to be not ready", lambda: not pod.ready(), 30)


def test_containerd_restarts_under_a_running_pod(node, runtime):
    with node.pod(runtime) as pod:
        container = pod.run_container(
            ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do test -e /tmp/go && break; sleep 0.1; done; "
                         "seq 1 2000; exit 5"])
        container.wait_for_output(b"up\n")
        quiet = pod.run_container(["sh", "-c", "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.1; done"])
        quiet.wait_for_output(b"line 2\n")
        node.restart()
        pod.client = node.cri
        for c in pod.containers:
            c.client = node.cri
        assert pod.ready()
        assert container.status().state == cri.RUNNING
        assert quiet.wait() == 0
        # What was written while nobody read must not be lost.
        assert quiet.stdout() == b"".join(b"line %d\n" % i for i in range(30))
        assert pod.sh("echo new") == "new\n"
        container.stop(10)
        assert container.status().exit_code == 7


@pytest.mark.only("cloudhv")
def test_container_ends_while_containerd_is_down(node, runtime):
    """Not for runc: it loses the output and, with containerd 2, the exit code, and leaves the cgroup."""
    with node.pod(runtime) as pod:
        container = pod.run_container(["sh", "-c", "echo up; sleep 3; echo end; exit 4"])
        container.wait_for_output(b"up\n")
        node.stop()
        time.sleep(5)
        node.start()
        pod.client = container.client = node.cri
        assert container.wait() == 4
        assert container.stdout() == b"up\nend\n"
