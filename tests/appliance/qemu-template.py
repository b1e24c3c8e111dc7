#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the driver needs of a QEMU beyond a boot: a template saved to a file, clones that map its memory privately, and
disks that are plugged and unplugged in a clone. Emulated, with the guest as it is.

    qemu-template.py QEMU GUEST-DIRECTORY
"""

import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
DEADLINE = 120
CLONES = 3
SHARED = [{"capability": "x-ignore-shared", "state": True}]


class Machine:
    """A QEMU with the driver's arguments (src/vmm/qemu-args.c), but for descriptors that only the driver has."""

    def __init__(self, program, guest, directory, memory, *more):
        directory.mkdir()
        root = {"driver": "raw", "node-name": "root", "read-only": True,
                "file": {"driver": "file", "filename": f"{guest}/rootfs.erofs", "locking": "off", "read-only": True}}
        devices = [
            {"driver": "vmgenid", "guid": "auto"},
            {"driver": "virtio-blk-pci", "id": "rootdev", "drive": "root", "bus": "pcie.0", "addr": "2"},
            {"driver": "virtio-rng-pci", "rng": "rng0", "bus": "pcie.0", "addr": "6"},
            {"driver": "virtio-serial-pci", "id": "vs0", "bus": "pcie.0", "addr": "7", "max_ports": 4},
            {"driver": "virtserialport", "id": "port", "bus": "vs0.0", "nr": 1, "chardev": "control",
             "name": "cloudhv.control"},
            {"driver": "pcie-root-port", "id": "rp0", "bus": "pcie.0", "addr": "10.0", "chassis": 1, "slot": 1,
             "io-reserve": 0, "multifunction": True},
            {"driver": "pcie-pci-bridge", "id": "hp0", "bus": "rp0"},
        ]
        arguments = [
            program, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none",
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine", "q35,memory-backend=mem0,smm=off,vmport=off,hpet=off,sata=off,smbus=off,i8042=off,graphics=off,"
            "dump-guest-core=off,mem-merge=off", "-accel", "tcg,tb-size=128", "-cpu", "max", "-smp", "1,maxcpus=1",
            "-m", "128M", "-object", json.dumps({"id": "mem0", "size": 128 * MIB, **memory}),
            "-kernel", f"{guest}/vmlinux", "-append", "console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init "
            "quiet loglevel=4 panic=-1 reboot=t net.ifnames=0 tsc_early_khz=2600000",
            "-blockdev", json.dumps(root), "-object", json.dumps({"qom-type": "rng-builtin", "id": "rng0"}),
            "-chardev", f"socket,id=control,path={directory}/control,server=on,wait=off",
            "-chardev", f"file,id=console,path={directory}/console", "-serial", "chardev:console",
            "-chardev", f"socket,id=qmp,path={directory}/qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        ]
        for device in devices:
            arguments += ["-device", json.dumps(device)]
        self.process = subprocess.Popen([*arguments, *more])
        self.events = []
        self.connect(directory / "qmp")

    def connect(self, path):
        deadline = time.monotonic() + DEADLINE
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.settimeout(DEADLINE)
        self.file = connection.makefile("rw")
        self.read()
        self.call("qmp_capabilities")

    def read(self):
        return json.loads(self.file.readline())

    def call(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = self.read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']['desc']}")
            self.events.append(answer)

    def wait_event(self, name, **data):
        while True:
            event = self.events.pop(0) if self.events else self.read()
            if event.get("event") == name and data.items() <= event["data"].items():
                return

    def wait_migration(self):
        while (status := self.call("query-migrate").get("status")) not in ("completed", "failed"):
            time.sleep(0.01)
        if status != "completed":
            raise RuntimeError(f"migration: {status}")

    def private_kib(self):
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))

    def quit(self):
        self.call("quit")
        self.process.wait(DEADLINE)


def plug_and_unplug(machine, image):
    machine.call("blockdev-add", **{"driver": "raw", "node-name": "disk0", "read-only": True, "file": {
        "driver": "file", "filename": str(image), "locking": "off", "read-only": True}})
    machine.call("device_add", **{"driver": "virtio-blk-pci", "id": "d0.image", "drive": "disk0", "serial": "image",
                                  "bus": "hp0", "addr": "1", "disable-legacy": "on"})
    # The guest lets go of a device only once it has seen it.
    for _ in range(DEADLINE):
        time.sleep(0.5)
        try:
            machine.call("device_del", id="d0.image")
        except RuntimeError as error:
            if "not found" in str(error):
                break
            continue
        if not any(d["name"] == "d0.image" for d in machine.call("qom-list", path="/machine/peripheral")):
            break
    machine.wait_event("DEVICE_DELETED", device="d0.image")
    machine.call("blockdev-del", **{"node-name": "disk0"})


def main():
    program, guest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ram = work / "ram"
        with open(ram, "wb") as file:
            file.truncate(128 * MIB)
        file_memory = {"qom-type": "memory-backend-file", "mem-path": str(ram)}
        template = Machine(program, guest, work / "template", {**file_memory, "share": True})
        template.wait_event("VSERPORT_CHANGE", id="port", open=True)
        template.call("stop")
        template.call("migrate-set-capabilities", capabilities=SHARED)
        template.call("migrate", uri=f"file:{work}/state")
        template.wait_migration()
        template.quit()
        before = hashlib.sha256(ram.read_bytes()).digest()

        clones = []
        for number in range(CLONES):
            started = time.monotonic()
            clone = Machine(program, guest, work / f"clone{number}",
                            {**file_memory, "share": False, "readonly": True, "rom": "off"}, "-incoming", "defer")
            clone.call("migrate-set-capabilities", capabilities=SHARED)
            clone.call("migrate-incoming", uri=f"file:{work}/state")
            clone.wait_migration()
            clone.call("cont")
            print(f"clone {number} runs after {time.monotonic() - started:.3f} s")
            clones.append(clone)
        with open(work / "image", "wb") as file:
            file.truncate(MIB)
        plug_and_unplug(clones[0], work / "image")
        for clone in clones:
            print(f"private memory: {clone.private_kib()} KiB")
            clone.quit()
        assert hashlib.sha256(ram.read_bytes()).digest() == before, "a clone wrote into its template"


if __name__ == "__main__":
    main()
