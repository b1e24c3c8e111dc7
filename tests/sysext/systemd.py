# SPDX-License-Identifier: MIT
"""systemd as process 1 of namespaces of its own, which reads units from a directory of the test and nothing else, so
that the host's services stay out of it. `merge()` lays files over /usr as systemd-sysext does."""

import os
import shutil
import subprocess
import time

SYSTEMD = "/lib/systemd/systemd"
# Nothing of it reaches the host; within, mounts propagate to services as they do there.
BOOT = """
set -e
mount --make-rprivate /
mount --make-rshared /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mount -t tmpfs tmpfs /var/lib
if [ -d /etc/containerd ]; then mount -t tmpfs tmpfs /etc/containerd; fi
export container=test SYSTEMD_UNIT_PATH={units} SYSTEMD_GENERATOR_PATH={generators}
export SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent
exec /lib/systemd/systemd --system --log-target=console --show-status=no --unit=multi-user.target
"""
TARGETS = ("shutdown", "umount", "sysinit", "basic", "sockets", "multi-user", "exit", "reboot", "poweroff", "halt",
           "emergency", "rescue", "initrd", "paths", "slices", "timers")


class Machine:
    def __init__(self, directory):
        self.directory = directory
        self.units = os.path.join(directory, "units")
        self.merges = 0
        os.makedirs(self.units)
        self.process = None
        for name in TARGETS:
            self.write_unit(f"{name}.target", "[Unit]\nDefaultDependencies=no\n")
        self.write_unit("multi-user.target", "[Unit]\nDefaultDependencies=no\nRequires=basic.target\n"
                        "After=basic.target\nAllowIsolate=yes\n")
        self.write_unit("basic.target", "[Unit]\nDefaultDependencies=no\nWants=sockets.target\nAfter=sockets.target\n")

    def write_unit(self, name, text):
        path = os.path.join(self.units, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def start(self):
        """The extension's units are searched after the test's own, and are there only while it is merged."""
        units = f"{self.units}:/run/systemd/generator:/usr/lib/cloudhv-test/units"
        script = BOOT.replace("{units}", units).replace("{generators}", "/usr/lib/systemd/system-generators-of-cloudhv")
        self.process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup", "--net",
             "--kill-child", "bash", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait(lambda: self.pid and self.systemctl("is-active", "multi-user.target", check=False) == "active")

    @property
    def pid(self):
        """PID of systemd, as the host sees it."""
        got = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return int(got.stdout.split()[0]) if got.stdout else None

    def stop(self):
        if self.process:
            # Or its private directories stay in /tmp.
            self.systemctl("stop", "cloudhv-sandbox-daemon.socket", "cloudhv-sandbox-daemon.service", check=False)
            self.process.kill()
            self.process.wait()

    def run(self, *arguments, check=True, seconds=60):
        done = subprocess.run(["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--cgroup", "--uts",
                               "--ipc", *arguments],
                              capture_output=True, text=True, timeout=seconds)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()

    def systemctl(self, *arguments, check=True):
        return self.run("systemctl", "--no-pager", *arguments, check=check)

    def property(self, unit, name):
        return self.systemctl("show", "--value", "-p", name, unit)

    def write_extension(self, files):
        """{path below /usr: text, or a file to copy}; gives the directory that stands for /usr."""
        self.merges += 1
        usr = os.path.join(self.directory, f"extension-{self.merges}", "usr")
        for name, source in files.items():
            path = os.path.join(usr, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isfile(source):
                shutil.copy(source, path)
            else:
                with open(path, "w", encoding="utf-8") as f:
                    f.write(source)
        return usr

    def lay_out(self, files):
        """As above; gives the command that merges them."""
        return ["mount", "-t", "overlay", "-o", f"ro,lowerdir={self.write_extension(files)}:/usr", "overlay", "/usr"]

    def merge(self, files):
        self.run(*self.lay_out(files))
        self.systemctl("daemon-reload")

    def merge_at_boot(self, files):
        """As systemd-sysext.service does: early, and with a daemon-reload in the middle of the boot. Before start()."""
        self.write_unit("merge.service", "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\n"
                        "Type=oneshot\nRemainAfterExit=yes\nExecStart=" + " ".join(self.lay_out(files)) +
                        "\nExecStart=systemctl daemon-reload\n")
        self.write_unit("sysinit.target.d/merge.conf", "[Unit]\nWants=merge.service\nAfter=merge.service\n")
        self.write_unit("basic.target.d/sysinit.conf", "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n")
        self.write_unit("sockets.target.d/sysinit.conf", "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n")

    def unmerge(self):
        self.run("umount", "--lazy", "/usr")
        self.systemctl("daemon-reload")

    def refresh(self, files):
        """Other files in the place of those that are merged, and one daemon-reload."""
        self.run("umount", "--lazy", "/usr")
        self.merge(files)

    def wait(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)
