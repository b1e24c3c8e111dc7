# SPDX-License-Identifier: MIT
"""systemd as process 1 of namespaces of its own, which reads units from a directory of the test and nothing else, so
that the host's services stay out of it. `merge()` lays files over /usr as systemd-sysext does."""

import os
import re
import shutil
import subprocess
import time

SYSTEMD = "/lib/systemd/systemd"
# Copies of what mounts, /run and /sys/fs/cgroup must not share with the host.
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
for directory in /var/lib/cloudhv /var/lib/systemd /etc/containerd; do
    if [ -d "$directory" ]; then mount -t tmpfs tmpfs "$directory"; fi
done
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
        self.extension = os.path.join(directory, "extension")
        self.log_path = os.path.join(directory, "console")
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
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc", "--cgroup", "--net",
                 "--kill-child", "bash", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait(lambda: self.pid and self.systemctl("is-active", "multi-user.target", check=False) == "active")

    @property
    def pid(self):
        """PID of systemd, as the host sees it."""
        got = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return int(got.stdout.split()[0]) if got.stdout else None

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def run(self, *arguments, check=True):
        done = subprocess.run(["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--cgroup", "--uts",
                               "--ipc", *arguments],
                              capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout.strip()

    def systemctl(self, *arguments, check=True):
        return self.run("systemctl", "--no-pager", *arguments, check=check)

    def property(self, unit, name):
        return self.systemctl("show", "--value", "-p", name, unit)

    def merge(self, files):
        """{path below /usr: text, or a file to copy}, then daemon-reload."""
        usr = os.path.join(self.extension, "usr")
        shutil.rmtree(self.extension, ignore_errors=True)
        for name, source in files.items():
            path = os.path.join(usr, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isfile(source):
                shutil.copy(source, path)
            else:
                with open(path, "w", encoding="utf-8") as f:
                    f.write(source)
        self.run("mount", "-t", "overlay", "-o", f"ro,lowerdir={usr}:/usr", "overlay", "/usr")
        self.systemctl("daemon-reload")

    def unmerge(self):
        self.run("umount", "--lazy", "/usr")
        self.systemctl("daemon-reload")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", f.read())

    def wait(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log()
            time.sleep(0.05)
