# SPDX-License-Identifier: MIT
"""Several pods at once and many after another."""

import concurrent.futures


def one_pod(node, runtime, number):
    with node.pod(runtime) as pod:
        out = pod.sh(f"hostname; echo {number}; ip -4 addr show eth0")
        assert out.splitlines()[:2] == [pod.config.hostname, str(number)]
        assert f"inet {pod.ip}/" in out
        return pod.ip


def test_five_pods_at_once(node, runtime):
    with concurrent.futures.ThreadPoolExecutor(5) as executor:
        futures = [executor.submit(one_pod, node, runtime, n) for n in range(5)]
        addresses = [f.result() for f in futures]
    assert len(set(addresses)) == 5


def test_pods_one_after_another(node, runtime, request):
    for number in range(request.config.getoption("--pods")):
        one_pod(node, runtime, number)


def test_five_containers_in_a_pod_at_once(node, runtime):
    with node.pod(runtime) as pod:
        def one(n):
            container = pod.run_container(["sh", "-c", f"echo {n}; exit {n}"], name=f"n{n}")
            return container.wait(), container.stdout()
        with concurrent.futures.ThreadPoolExecutor(5) as executor:
            results = list(executor.map(one, range(5)))
        assert results == [(n, b"%d\n" % n) for n in range(5)]
