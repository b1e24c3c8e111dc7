#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Boots a VM with the agent under emulation, plugs disks, and has the agent do all it can.

    agent-vm.py VMLINUX ROOTFS AGENT-CALL MKFS-EROFS [--cycles N] [--only NAME]

Needs qemu-system-x86_64, mke2fs and a static busybox; no privileges. Prints what each step took.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

DEADLINE = 120


def log(text):
    print(f"{time.monotonic() - START:7.2f} {text}", flush=True)


class Qmp:
    def __init__(self, path):
        while True:  # the path is there before somebody listens
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(path)
                break
            except ConnectionRefusedError:
                time.sleep(0.005)
        self.socket.settimeout(DEADLINE)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']}")

    def wait_event(self, name):
        while True:
            answer = json.loads(self.file.readline())
            if answer.get("event") == name:
                return


class Machine:
    """A VM, its QMP and a client of its agent."""

    SLOTS = 6

    def __init__(self, options, directory):
        self.directory = directory
        self.options = options
        self.free_slots = [f"rp{i}" for i in range(self.SLOTS)]
        command = [
            "qemu-system-x86_64", "-name", "agent-vm", "-nodefaults", "-no-user-config", "-no-reboot",
            "-display", "none", "-vga", "none", "-machine",
            "q35,accel=tcg,smm=off,vmport=off,hpet=off,sata=off,smbus=off,i8042=off,graphics=off",
            "-cpu", "max", "-smp", "1", "-m", "128M", "-kernel", options.vmlinux, "-append",
            "console=ttyS0 root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 panic=-1 reboot=t "
            "net.ifnames=0 tsc_early_khz=2600000" + options.append,
        ]
        for slot in range(self.SLOTS):
            command += ["-device", f"pcie-root-port,id=rp{slot},chassis={slot + 1},slot={slot + 1},"
                        f"addr={0x10 + slot:#x}"]
        for name in ("control", "task"):
            command += ["-chardev", f"socket,id={name},path={directory}/{name}.sock,server=on,wait=off"]
        command += [
            "-blockdev", json.dumps({"driver": "raw", "node-name": "root", "read-only": True, "file": {
                "driver": "file", "filename": options.rootfs, "locking": "off", "read-only": True}}),
            "-device", "virtio-blk-pci,drive=root,addr=0x2", "-device", "virtio-rng-pci,addr=0x6",
            "-device", "virtio-serial-pci,id=vs0,addr=0x7",
            "-device", "virtserialport,bus=vs0.0,chardev=control,name=cloudhv.control",
            "-device", "virtserialport,bus=vs0.0,chardev=task,name=cloudhv.task",
            "-chardev", f"file,id=con,path={directory}/console.log", "-serial", "chardev:con",
            "-qmp", f"unix:{directory}/qmp.sock,server=on,wait=off",
        ]
        self.begin = time.monotonic()
        self.stderr = open(f"{directory}/stderr", "w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.stderr, stderr=self.stderr)
        while not os.path.exists(f"{directory}/qmp.sock") or not os.path.exists(f"{directory}/task.sock"):
            if self.process.poll() is not None:
                raise RuntimeError(open(f"{directory}/stderr").read())
            time.sleep(0.005)  # sockets cannot be waited for otherwise
        self.qmp = Qmp(f"{directory}/qmp.sock")
        self.client = None
        self.connect()

    def connect(self):
        if self.client:
            self.client.kill()
            self.client.wait()
        self.client = subprocess.Popen(
            [self.options.agent_call, f"{self.directory}/control.sock", f"{self.directory}/task.sock"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, command):
        self.client.stdin.write(command + "\n")
        self.client.stdin.flush()

    def receive(self, command, expect="ok"):
        answer = self.client.stdout.readline().strip()
        if not answer.startswith(expect):
            self.fail(f"{command}: expected {expect}, got {answer!r}")
        return answer

    def call(self, command, expect="ok"):
        self.send(command)
        return self.receive(command, expect)

    def fail(self, text):
        sys.stderr.write(open(f"{self.directory}/console.log", errors="replace").read()[-4000:])
        raise AssertionError(text)

    def plug(self, path, serial, read_only):
        slot = self.free_slots.pop(0)
        self.qmp.call("blockdev-add", **{"driver": "raw", "node-name": serial, "read-only": read_only, "file": {
            "driver": "file", "filename": path, "locking": "off", "read-only": read_only}})
        self.qmp.call("device_add", driver="virtio-blk-pci", drive=serial, id=serial, bus=slot, serial=serial)
        return slot

    def unplug(self, serial, slot):
        self.qmp.call("device_del", id=serial)
        self.qmp.wait_event("DEVICE_DELETED")
        while True:  # the event of the device's path follows
            try:
                self.qmp.call("blockdev-del", **{"node-name": serial})
                break
            except RuntimeError:
                time.sleep(0.02)
        self.free_slots.append(slot)

    def close(self):
        if self.client:
            self.client.kill()
            self.client.wait()
        self.process.kill()
        self.process.wait()


def make_image(options, directory):
    tree = f"{directory}/tree"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "data/sub", "root"):
        os.makedirs(f"{tree}/{name}")
    shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/usr/bin/busybox", f"{tree}/bin/busybox")
    for applet in ("sh", "cat", "echo", "sleep", "id", "ls", "seq", "dd", "ps", "mount", "hostname", "grep", "stat",
                   "touch", "md5sum", "ulimit", "head", "tail", "kill", "mkdir", "rm", "find", "wc", "sysctl",
                   "readlink", "yes", "true", "false", "df", "ip", "nslookup"):
        os.symlink("busybox", f"{tree}/bin/{applet}")
    with open(f"{tree}/data/sub/file", "w") as f:
        f.write("from the image\n")
    os.chmod(f"{tree}/data/sub/file", 0o640)
    os.symlink("sub/file", f"{tree}/data/link")
    os.chmod(f"{tree}/tmp", 0o1777)
    subprocess.run([options.mkfs_erofs, "--quiet", "-zlz4hc", "--all-root", f"{directory}/image.erofs", tree],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1",
                    f"{directory}/scratch.img", "64M"], check=True)


def spec(arguments, mounts=(), user=(0, 0), memory=None, namespaces=("pid", "mount", "cgroup"), terminal=False,
         readonly=False):
    resources = {"devices": [{"allow": False, "access": "rwm"}]}
    if memory:
        resources["memory"] = {"limit": memory}
    return {
        "ociVersion": "1.1.0",
        "process": {
            "terminal": terminal, "user": {"uid": user[0], "gid": user[1]}, "args": arguments,
            "env": ["PATH=/bin", "HOME=/root"], "cwd": "/", "noNewPrivileges": True,
            "capabilities": {key: ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]
                             for key in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "replaced", "readonly": readonly},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ] + list(mounts),
        "linux": {"namespaces": [{"type": name} for name in namespaces], "resources": resources,
                  "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]},
    }


class Suite:
    def __init__(self, machine, options):
        self.m = machine
        self.directory = machine.directory
        self.options = options
        self.n = 0

    def write_spec(self, *arguments, **keywords):
        path = f"{self.directory}/spec.json"
        with open(path, "w") as f:
            json.dump(spec(*arguments, **keywords), f)
        return path

    def shell(self, script, create="", scratch="-", check=0, started=None, **keywords):
        """Runs a script in a container of its own; returns what it wrote."""
        self.n += 1
        name = f"c{self.n}"
        path = self.write_spec(["/bin/sh", "-c", script], **keywords)
        self.m.call(f"create {name} {path} img {scratch} {create}")
        self.m.call(f"start {name}")
        if started:
            started(name)
        out = f"{self.directory}/out"
        self.m.call(f"read {name} stdout {out}")
        answer = self.m.call(f"wait {name}")
        status = int(re.search(r"status=(\d+)", answer).group(1))
        if check is not None and status != check:
            self.m.call(f"read {name} stderr {out}.err")
            self.m.fail(f"{script!r}: status {status}: {open(out).read()} {open(out + '.err').read()}")
        self.last = answer
        self.m.call(f"delete {name}")
        return open(out, errors="replace").read()

    def test_refused_before_identity(self):
        self.m.call("list", expect="error 9")
        self.m.call("clock", expect="error 9")

    def test_identity(self):
        answer = self.m.call("identity pod1")
        again = self.m.call("identity pod1")
        assert re.search(r"boot_id=(\S+)", answer).group(1) == re.search(r"boot_id=(\S+)", again).group(1)
        self.m.call("identity other", expect="error 9")
        log("  " + answer)

    def test_missing_disk(self):
        path = self.write_spec(["/bin/true"])
        begin = time.monotonic()
        answer = self.m.call(f"create nodisk {path} nosuchdisk -", expect="error 4")
        assert "nosuchdisk" in answer and time.monotonic() - begin < 20
        self.m.call("delete nodisk", expect="error 5")

    def test_disk_plugged_later(self):
        path = self.write_spec(["/bin/true"])
        begin = time.monotonic()
        self.m.send(f"create late {path} img scratch")
        self.m.plug(f"{self.directory}/image.erofs", "img", True)
        self.scratch_slot = self.m.plug(f"{self.directory}/scratch.img", "scratch", False)
        self.m.receive("create late")
        log(f"  plugged and created in {time.monotonic() - begin:.3f} s")
        self.m.call("start late")
        self.m.call("wait late")
        self.m.call("delete late")
        self.m.call("delete late", expect="error 5")

    def test_hello_world(self):
        begin = time.monotonic()
        assert self.shell("echo hello; hostname; cat /proc/self/oom_score_adj") == "hello\npod1\n0\n"
        log(f"  create to delete in {time.monotonic() - begin:.3f} s")

    def test_network(self):
        """The device is plugged after its configuration has arrived."""
        configuration = "network 02:00:00:00:00:07 eth0 02:00:00:00:00:99 10.0.2.15 24 10.0.2.2"
        begin = time.monotonic()
        self.m.send(configuration)
        self.m.qmp.call("netdev_add", type="user", id="net0", restrict=True)
        self.m.qmp.call("device_add", driver="virtio-net-pci", netdev="net0", id="nic0",
                        bus=self.m.free_slots.pop(), mac="02:00:00:00:00:07")
        self.m.receive(configuration)
        log(f"  plugged and configured in {time.monotonic() - begin:.3f} s")
        for _ in range(2):
            out = self.shell("ip addr show eth0; ip route; ip link show lo; cat /proc/sys/net/ipv4/"
                             "ip_unprivileged_port_start")
            for text in ("02:00:00:00:00:99", "10.0.2.15/24", "mtu 1400", "default via 10.0.2.2", "LOOPBACK,UP"):
                assert text in out, out
            assert out.endswith("80\n"), out
            self.m.call(configuration)
        self.m.call("network 02:00:00:00:00:07 eth0 02:00:00:00:00:99 10.0.2.15 33 10.0.2.2", expect="error 3")

    def test_scratch(self):
        assert "ok" in self.shell("echo x > /written && dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; "
                                  "df / | tail -1 >&2; echo ok", scratch="scratch")
        assert self.shell("ls /written 2>&1; stat -c %a-%u /", check=None).endswith("755-0\n")

    def test_exit_codes(self):
        for code in (0, 1, 137):
            self.shell(f"exit {code}", check=code)
        self.shell("kill -9 $$", namespaces=("mount",), check=137)

    def test_command_not_found(self):
        path = self.write_spec(["/no/such/program"])
        self.m.send(f"create bad {path} img -")
        answer = self.m.client.stdout.readline()
        if answer.startswith("ok"):
            answer = self.m.call("start bad", expect="error")
            self.m.call("delete bad")
        assert "/no/such/program" in answer and "No such file" in answer, answer
        log("  " + answer.strip())
        assert self.m.call("list").split()[2:] == []

    def test_terminal_refused(self):
        path = self.write_spec(["/bin/true"])
        answer = self.m.call(f"create tty {path} img - terminal", expect="error 12")
        assert "terminal" in answer

    def test_bad_spec(self):
        path = f"{self.directory}/broken.json"
        with open(path, "w") as f:
            f.write('{"process": [')
        self.m.call(f"create broken {path} img -", expect="error 3")
        self.m.call("create ../x {path} img -", expect="error")

    def test_streams(self):
        out = self.shell("seq 1 100000; echo err >&2")
        assert hashlib.md5(out.encode()).hexdigest() == hashlib.md5(
            "".join(f"{i}\n" for i in range(1, 100001)).encode()).hexdigest()
        begin = time.monotonic()
        out = self.shell("dd if=/dev/zero bs=64k count=160 2>/dev/null")
        assert len(out) == 160 * 65536
        log(f"  10 MiB in {time.monotonic() - begin:.2f} s")

    def test_unacknowledged_data_stays(self):
        path = self.write_spec(["/bin/sh", "-c", "echo 0123456789"])
        self.m.call(f"create ack {path} img -")
        self.m.call("start ack")
        assert "bytes=4 eof=0" in self.m.call("slow-read ack stdout 4")
        self.m.connect()  # a client that was killed and one that begins anew
        self.m.call("hello task")
        self.m.call(f"read ack stdout {self.directory}/out")
        assert open(f"{self.directory}/out").read() == "0123456789\n"
        self.m.call("wait ack")
        self.m.call("delete ack")

    def test_stdin(self):
        path = self.write_spec(["/bin/cat"])
        self.m.call(f"create cat {path} img - stdin")
        self.m.call("start cat")
        self.m.call("write cat one\\ntwo\\n")
        self.m.call("close-stdin cat")
        self.m.call(f"read cat stdout {self.directory}/out")
        assert open(f"{self.directory}/out").read() == "one\ntwo\n"
        assert "status=0" in self.m.call("wait cat")
        self.m.call("delete cat")

    def test_kill(self):
        path = self.write_spec(["/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 1; done"])
        self.m.call(f"create k {path} img -")
        self.m.call("kill k 70", expect="error 3")
        self.m.call("start k")
        self.m.call("start k")
        self.m.call("delete k", expect="error 9")
        assert "up" in open(self.read_piece("k")).read()
        assert len(self.m.call("pids k").split()) >= 3
        assert self.m.call("list").split()[2] == "k:running"
        self.m.call("kill k 15")
        assert "status=7" in self.m.call("wait k")
        self.m.call("kill k 15", expect="error 5")
        assert self.m.call("list").split()[2] == "k:stopped"
        self.m.call("delete k")
        self.m.call(f"create k {path} img -")
        self.m.call("kill k 9 all")
        assert "status=137" in self.m.call("wait k")
        self.m.call("start k", expect="error 9")
        self.m.call("delete k")
        self.m.call(f"create k {path} img -")
        assert "status=137" in self.m.call("delete k")

    def read_piece(self, name):
        self.m.call(f"slow-read {name} stdout 100")
        out = f"{self.directory}/piece"
        with open(out, "w") as f:
            f.write("up")
        return out

    def write_process(self, arguments, **changes):
        path = f"{self.directory}/process.json"
        with open(path, "w") as f:
            json.dump({**spec(arguments)["process"], **changes}, f)
        return path

    def test_exec(self):
        path = self.write_spec(["/bin/sleep", "300"])
        out = f"{self.directory}/out"
        self.m.call(f"create e {path} img -")
        process = self.write_process(["/bin/sh", "-c", "cat; ps -o pid,args; exit 5"])
        self.m.call(f"exec e/one {process} stdin", expect="error 9")
        self.m.call("start e")
        self.m.call(f"exec e/one {process} stdin")
        self.m.call(f"exec e/one {process} stdin", expect="error 6")
        self.m.call("kill e/one 9", expect="error 5")
        self.m.call("start e/one")
        self.m.call("start e/one")
        self.m.call("delete-process e/one", expect="error 9")
        self.m.call("write e/one input\\n")
        self.m.call("close-stdin e/one")
        self.m.call(f"read e/one stdout {out}")
        assert open(out).read().startswith("input\n") and "sleep 300" in open(out).read()
        assert "status=5" in self.m.call("wait e/one")
        assert "status=5" in self.m.call("delete-process e/one")
        self.m.call("wait e/one", expect="error 5")
        # One that cannot be started.
        self.m.call(f"exec e/two {self.write_process(['/no/program'])}")
        answer = self.m.call("start e/two", expect="error")
        assert "/no/program" in answer, answer
        self.m.call(f"read e/two stdout {out}")
        self.m.call("delete-process e/two")
        self.m.call(f"exec e/tty {self.write_process(['/bin/sh'], terminal=True)}", expect="error 12")
        # Signals, and the end of the container under one.
        sleeper = self.write_process(["/bin/sleep", "400"])
        for name in ("three", "four"):
            self.m.call(f"exec e/{name} {sleeper}")
            self.m.call(f"start e/{name}")
        self.m.call("kill e/three 15")
        assert "status=143" in self.m.call("wait e/three")
        self.m.call("kill e 9")
        assert "status=137" in self.m.call("wait e/four")
        assert "status=137" in self.m.call("wait e")
        self.m.call("delete e")

    def test_pause(self):
        path = self.write_spec(["/bin/sh", "-c", "while :; do echo; sleep 0.01; done"])
        self.m.call(f"create p {path} img -")
        self.m.call("pause p", expect="error 9")
        self.m.call("start p")
        self.m.call("pause p")
        self.m.call("pause p")
        assert "p:paused" in self.m.call("list")
        self.m.call(f"exec p/x {self.write_process(['/bin/true'])}", expect="error 9")
        self.m.call("resume p")
        assert "p:running" in self.m.call("list")
        self.m.call("pause p")
        self.m.call("kill p 9")
        assert "status=137" in self.m.call("wait p")
        self.m.call("delete p")

    def test_stats(self):
        path = self.write_spec(["/bin/sleep", "300"], memory=32 << 20)
        self.m.call(f"create s {path} img scratch")
        self.m.call("start s")
        for name in ("s", ""):
            numbers = dict(re.findall(r"(\w+)=(\d+)", self.m.call(f"stats {name}")))
            assert numbers["pids"] == "1" and int(numbers["cpu"]) > 0, numbers
            assert numbers["limit"] == (str(32 << 20) if name else str(2**64 - 1)), numbers
            assert 0 < int(numbers["anon"]) < int(numbers["memory"]), numbers
        self.m.call("kill s 9")
        self.m.call("wait s")
        self.m.call("stats s")
        self.m.call("delete s")
        self.m.call("stats s", expect="error 5")

    def test_pod_pid(self):
        def second(name):
            out = self.shell("sleep 100 & ps -o pid,args", create="pod-pid",
                             namespaces=("mount", "pid", "cgroup"))
            assert "pod" in out and out.count("sleep 3") >= 1, out
            self.m.call(f"kill {name} 9")

        self.shell("sleep 300", create="pod-pid", started=second, check=137)
        out = self.shell("ps -o pid,args", create="pod-pid")
        assert "sleep" not in out, out
        assert "--pod-init" in out, out

    def test_trees(self):
        self.m.call("file hosts t1 - 127.0.0.1")
        self.m.call("file conf t1 sub/key value")
        self.m.call("file conf t1 ../escape value", expect="error 3")
        mounts = [{"destination": "/etc/hosts", "type": "bind", "source": "/run/cloudhv/trees/hosts",
                   "options": ["rbind", "rw"]},
                  {"destination": "/etc/conf", "type": "bind", "source": "/run/cloudhv/trees/conf",
                   "options": ["rbind", "ro"]}]
        path = self.write_spec(["/bin/sh", "-c", "cat /etc/hosts /etc/conf/sub/key; echo bye > /etc/hosts; "
                                "echo x > /etc/conf/y || echo readonly"], mounts=mounts)
        self.m.call(f"create t1 {path} img -")
        self.m.call("start t1")
        self.m.call(f"read t1 stdout {self.directory}/out")
        self.m.call("wait t1")
        assert open(f"{self.directory}/out").read() == "127.0.0.1valuereadonly\n"
        assert "bye" in self.m.call("cat hosts -")
        self.m.call("delete t1")
        self.m.call("cat hosts -", expect="error 5")

    def test_volumes(self):
        def mount(name, place):
            return {"destination": place, "type": "bind", "source": f"/run/cloudhv/volumes/{name}",
                    "options": ["rbind", "rw"]}

        for scratch in ("-", "scratch"):
            out = self.shell("cat /data/link; stat -c %a /data/sub/file; echo new > /data/new; ls /data; "
                             "df /mem | tail -1; echo s > /shared/s",
                             create="volume=v1:/data memory-volume=v2:1048576 pod-volume=shared",
                             mounts=[mount("v1", "/data"), mount("v2", "/mem"), mount("shared", "/shared")],
                             scratch=scratch)
            assert out.startswith("from the image\n640\nlink\nnew\nsub\n"), out
            assert "1024" in out, out
        assert self.shell("cat /shared/s", create="pod-volume=shared", mounts=[mount("shared", "/shared")]) == "s\n"

    def test_memory_limit(self):
        self.shell("head -c 40000000 /dev/zero | tail -c 39000000 >/dev/null; exit $?", memory=16 << 20, check=None)
        assert "oom=1" in self.last, self.last
        self.shell("cat /sys/fs/cgroup/memory.max", memory=16 << 20)

    def test_limits_and_user(self):
        out = self.shell("id -u; id -g; ulimit -n; cat /sys/fs/cgroup/memory.max; echo x > /dev/stdout; "
                         "touch /x 2>&1", memory=32 << 20, user=(1000, 1001), check=None)
        assert out.startswith(f"1000\n1001\n1024\n{32 << 20}\nx\n"), out
        assert "ermission" in out

    def test_agent_is_private(self):
        out = self.shell("ls -l /proc/1/exe; grep -c . /proc/1/maps; ps | wc -l")
        assert "init" not in out, out

    def test_cycles(self):
        """What the guest has of everything must not grow."""
        def inventory():
            return self.shell(
                "cat /all/proc/sys/fs/file-nr | while read a b; do echo files $a; done; "
                "echo mounts $(cat /all/proc/1/mountinfo | wc -l); echo fds $(ls /all/proc/1/fd | wc -l); "
                "echo cgroups $(find /all/cg -type d | wc -l); echo run $(find /all/run | wc -l); "
                "grep -l . /all/proc/[0-9]*/cmdline > /tmp/procs; echo procs $(wc -l < /tmp/procs); "
                "grep -E 'Private|Rss|Pss:' /all/proc/1/smaps_rollup; grep VmRSS /all/proc/1/status",
                capabilities=True, mounts=[
                    {"destination": "/all/proc", "type": "bind", "source": "/proc", "options": ["rbind", "ro"]},
                    {"destination": "/all/run", "type": "bind", "source": "/run", "options": ["bind", "ro"]},
                    {"destination": "/all/cg", "type": "bind", "source": "/sys/fs/cgroup",
                     "options": ["bind", "ro"]}])

        first = inventory()
        log("  before: " + " ".join(first.split()))
        begin = time.monotonic()
        for _ in range(self.options.cycles):
            self.shell("true")
        log(f"  {self.options.cycles} containers in {time.monotonic() - begin:.1f} s")
        last = inventory()
        log("  after:  " + " ".join(last.split()))
        for key in ("mounts", "fds", "cgroups", "run", "procs"):
            counts = [int(re.search(rf"^{key} (\d+)$", text, re.M).group(1)) for text in (first, last)]
            assert counts[0] == counts[1], (key, counts)
        private = sum(int(x) for x in re.findall(r"Private_\w+: +(\d+) kB", last))
        assert 0 < private <= 1000, private

    def test_unplug(self):
        self.m.unplug("scratch", self.scratch_slot)

    def test_shutdown(self):
        self.m.call("list")
        self.m.call("shutdown")
        self.m.process.wait(DEADLINE)


_spec = spec


def spec(*arguments, capabilities=False, **keywords):  # noqa: F811 (the plain one, with more rights)
    result = _spec(*arguments, **keywords)
    if capabilities:
        for kind in result["process"]["capabilities"]:
            result["process"]["capabilities"][kind] = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]
    return result


def main():
    parser = argparse.ArgumentParser()
    for name in ("vmlinux", "rootfs", "agent_call", "mkfs_erofs"):
        parser.add_argument(name)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--append", default="")
    options = parser.parse_args()
    if options.append:
        options.append = " " + options.append
    directory = tempfile.mkdtemp(prefix="agent-vm.")
    machine = None
    try:
        make_image(options, directory)
        machine = Machine(options, directory)
        answer = machine.call("hello control")
        log(f"boot to Hello: {time.monotonic() - machine.begin:.2f} s: {answer}")
        machine.call("hello task")
        suite = Suite(machine, options)
        always = ("test_identity", "test_disk_plugged_later")
        for name in [n for n in vars(Suite) if n.startswith("test_")]:
            if options.only and options.only not in name and name not in always:
                continue
            begin = time.monotonic()
            getattr(suite, name)()
            log(f"{name}: {time.monotonic() - begin:.2f} s")
    finally:
        if machine:
            machine.close()
            console = open(f"{directory}/console.log", errors="replace").read()
            if console.strip():
                print("console:", console[-3000:])
        shutil.rmtree(directory)


START = time.monotonic()
main()
