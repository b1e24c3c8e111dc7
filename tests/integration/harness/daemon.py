# SPDX-License-Identifier: MIT
"""A caller of the daemon that stands for a shim."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess

from . import proc, ttrpc

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "src", "proto")
SERVICE = "cloudhv.daemon.v1.Sandboxes"
MAC = bytes([2, 0, 0, 1, 2, 3])


@contextlib.contextmanager
def connect(cloudhv):
    with ttrpc.Connection(cloudhv.socket) as connection:
        service = ttrpc.Service(connection, PROTO, "daemon.proto")
        service.call("Hello", protocol=1, peer="test")
        yield service


def start_time(pid):
    return int(proc.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])


class Caller:
    """A process that stands for a shim, with a bundle and a TAP."""

    def __init__(self, cloudhv):
        self.cloudhv = cloudhv
        self.process = subprocess.Popen(["sleep", "3600"], env={})
        self.bundle = os.path.join(cloudhv.root, "etc", f"bundle-{self.process.pid}")
        os.makedirs(self.bundle)

    def acquire(self, service, name):
        """TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR; the interface goes with its last descriptor."""
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"chvtap%d", 0x0002 | 0x1000 | 0x4000))
            return service.call(
                "AcquireSandbox", fds=[tap], namespace="test", sandbox_id=name, bundle=self.bundle,
                shim_pid=self.process.pid, shim_start_time=start_time(self.process.pid), hostname="host",
                nics=[{"mac": MAC, "tap": "chvtap"}])
        finally:
            os.close(tap)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.bundle, ignore_errors=True)
