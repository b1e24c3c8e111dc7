# SPDX-License-Identifier: MIT
"""The pods' network: a bridge of the run's own with IPv4 and IPv6, by Debian's CNI plugins, without NAT."""

import ipaddress
import json
import os
import subprocess

PLUGINS = "/usr/lib/cni"
FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


class Network:
    def __init__(self, root, number):
        """`number` (0 to 199) keeps the bridges and subnets of runs side by side apart."""
        self.bridge = f"chvt{number}"
        self.conf_dir = os.path.join(root, "cni")
        self.ipam_dir = os.path.join(root, "ipam")
        self.subnet4 = ipaddress.ip_network(f"10.213.{number}.0/24")
        self.subnet6 = ipaddress.ip_network(f"fd00:c10d:{number:x}::/64")
        self.gateway4, self.gateway6 = str(self.subnet4[1]), str(self.subnet6[1])
        os.makedirs(self.conf_dir)
        # The bridge plugin turns forwarding on and leaves it on: put back at the end.
        self.forwarding = {path: open(path, encoding="ascii").read() for path in FORWARDING}
        conflist = {"cniVersion": "0.4.0", "name": self.bridge, "plugins": [{
            "type": "bridge", "bridge": self.bridge, "isGateway": True, "isDefaultGateway": True, "ipMasq": False,
            "mtu": 1450,
            "ipam": {"type": "host-local", "dataDir": self.ipam_dir,
                     "ranges": [[{"subnet": str(self.subnet4)}], [{"subnet": str(self.subnet6)}]]}}]}
        with open(os.path.join(self.conf_dir, "10-test.conflist"), "w", encoding="ascii") as f:
            json.dump(conflist, f)

    def leases(self):
        """Addresses handed out and not given back."""
        path = os.path.join(self.ipam_dir, self.bridge)
        if not os.path.isdir(path):
            return []
        return sorted(n for n in os.listdir(path) if n[0] in "0123456789abcdef" and ("." in n or ":" in n))

    def close(self):
        subprocess.run(["ip", "link", "delete", self.bridge], stderr=subprocess.DEVNULL, check=False)
        for path, value in self.forwarding.items():
            with open(path, "w", encoding="ascii") as f:
                f.write(value)
