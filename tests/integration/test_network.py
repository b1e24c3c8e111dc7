# SPDX-License-Identifier: MIT
"""The pod has the address that CNI gave it, reaches others with it and is reached by it."""

import errno
import hashlib
import http.server
import ipaddress
import threading
import urllib.request

import pytest

from harness import wait

SERVE = ["sh", "-c", "httpd -p 80 -h /www && echo up && exec sleep 3600"]
SIZE = 8 << 20


def get(ip, path="/", timeout=10, port=80):
    host = f"[{ip}]" if ":" in ip else ip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{port}{path}", timeout=timeout) as answer:
        return answer.read()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"z" * SIZE if self.path == "/big" else f"hello {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def host_server(node):
    """An HTTP server on the bridge's addresses; yields a function that makes {4: url, 6: url}. Needs a pod, since the bridge comes with it."""
    servers, urls = [], {}

    def start(version, address):
        class Server(http.server.ThreadingHTTPServer):
            address_family = 10 if version == 6 else 2
            daemon_threads = True

        def bind():
            try:
                return Server((address, 0), Handler)
            except OSError as e:
                # An IPv6 address is not usable before the kernel has looked for a duplicate of it.
                if e.errno != errno.EADDRNOTAVAIL:
                    raise
                return None

        server = wait.until(f"the bridge's address {address}", bind, 10)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        host = f"[{address}]" if version == 6 else address
        urls[version] = f"http://{host}:{server.server_port}"

    def go(*versions):
        for version in versions:
            start(version, node.network.gateway6 if version == 6 else node.network.gateway4)
        return urls

    yield go
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.quick
def test_reachable_both_ways(node, runtime, host_server):
    with node.pod(runtime) as pod:
        server = pod.run_container(SERVE)
        server.wait_for_output(b"up\n")
        addresses = pod.ips
        assert ipaddress.ip_address(addresses[0]) in node.network.subnet4
        assert ipaddress.ip_address(addresses[1]) in node.network.subnet6
        for address in addresses:
            assert get(address) == b"hello from the pod\n"
        urls = host_server(4, 6)
        out = pod.sh(f"wget -q -O - {urls[4]}/; wget -q -O - {urls[6]}/")
        assert out.splitlines() == [f"hello {addresses[0]}", f"hello {addresses[1]}"]


def test_interface(node, runtime):
    """Address, MAC, MTU and routes in the pod are those of the CNI result."""
    with node.pod(runtime) as pod:
        out = pod.sh("cat /sys/class/net/eth0/mtu; ip -4 addr show eth0; ip -6 addr show eth0; ip route; ip -6 route")
        assert out.splitlines()[0] == "1450"
        assert f"inet {pod.ips[0]}/24" in out
        assert f"inet6 {pod.ips[1]}/64" in out
        assert f"default via {node.network.gateway4} dev eth0" in out
        assert f"default via {node.network.gateway6} dev eth0" in out
        assert "tentative" not in out


def test_pod_to_pod(node, runtime):
    with node.pod(runtime) as one, node.pod(runtime) as other:
        server = one.run_container(SERVE)
        server.wait_for_output(b"up\n")
        assert other.sh(f"wget -q -O - http://{one.ip}/") == "hello from the pod\n"


def test_bulk_both_ways(node, runtime, host_server):
    """More than any queue holds, without a damaged byte."""
    with node.pod(runtime) as pod:
        server = pod.run_container(["sh", "-c", f"head -c {SIZE} /dev/urandom > /www/big; sha256sum < /www/big; "
                                    "httpd -p 80 -h /www && echo up && exec sleep 3600"])
        server.wait_for_output(b"up\n")
        digest = server.stdout().split()[0].decode()
        assert hashlib.sha256(get(pod.ip, "/big", 60)).hexdigest() == digest
        url = host_server(4)[4]
        out = pod.sh(f"wget -q -O - {url}/big | sha256sum")
        assert out.split()[0] == hashlib.sha256(b"z" * SIZE).hexdigest()


def test_forged_source_is_dropped(node, runtime):
    """A pod that gives itself another address is not heard with it. runc without such a filter shows that the
    attempt as such works."""
    forged = str(node.network.subnet4[250])
    with node.pod(runtime) as pod:
        server = pod.run_container(["sh", "-c", f"ip addr add {forged}/32 dev eth0 && httpd -p 80 -h /www && echo up && "
                                    "exec sleep 3600"], add_caps=["NET_ADMIN"])
        server.wait_for_output(b"up\n")
        assert get(pod.ip) == b"hello from the pod\n"
        if runtime == "runc":
            assert get(forged) == b"hello from the pod\n"
        else:
            with pytest.raises(OSError):
                get(forged, timeout=2)
