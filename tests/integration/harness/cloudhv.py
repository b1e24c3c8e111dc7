# SPDX-License-Identifier: MIT
"""Our own programs under test: their private configuration, the daemon's life, what the tests look up in them."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess

from . import proc, wait

SHIM = "containerd-shim-cloudhv-v1"
DAEMON = "cloudhv-sandbox-daemon"
UIDS = 100  # of VMMs, for each run
# By architecture of the guest: the program and the guest's serial console.
QEMU = {"x86_64": ("qemu-system-x86_64", "ttyS0"), "aarch64": ("qemu-system-aarch64", "ttyAMA0")}
KERNEL_ARGS = ("console={} root=/dev/vda ro rootfstype=erofs init=/sbin/init quiet loglevel=4 panic=-1 reboot=t "
               "net.ifnames=0")


def _replace(path, text, mode):
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        os.fchmod(f.fileno(), mode)
        f.write(text)
    os.rename(f"{path}.new", path)


class Cloudhv:
    def __init__(self, bin_dir, guest_dir, mkfs, mode, log_level="info", guest_arch=None):
        """`mode` is "daemon" or "daemonless": who boots the VMs. `guest_arch` of another architecture is emulated."""
        self.guest_arch = guest_arch or os.uname().machine
        self.mkfs, self.log_level = mkfs, log_level
        self.bin_dir, self.guest_dir, self.mode = os.path.abspath(bin_dir), os.path.abspath(guest_dir), mode
        self.root = proc.run_directory()
        # Each VMM has a uid of its own and must reach its files below.
        os.chmod(self.root, 0o711)
        self.run_id = os.path.basename(self.root)
        # Apart from those of other runs and of a cloudhv that is in use on this machine.
        self.uid_base = 1900000000 + os.getpid() % 100000 * UIDS
        self.config_dir = os.path.join(self.root, "etc")
        self.shim_dir = os.path.join(self.root, "bin")
        self.shim_environment = os.path.join(self.config_dir, "shim-environment")
        self.cache_dir = os.path.join(self.root, "cache")
        self.socket = os.path.join(self.root, "daemon.sock")
        self.daemon_log = os.path.join(self.root, "daemon.log")
        self.daemon = None
        self.sanitizer_dir = os.path.join(self.root, "sanitizer")
        for directory in (self.config_dir, self.shim_dir, self.sanitizer_dir):
            os.makedirs(directory)
        os.chmod(self.sanitizer_dir, 0o1777)
        self.use_shim()
        self.write_config()

    @property
    def shim(self):
        return find_program(self.bin_dir, SHIM)

    @property
    def daemon_binary(self):
        return find_program(self.bin_dir, DAEMON)

    @property
    def kernel(self):
        return os.path.join(self.guest_dir, "vmlinux")

    def environment(self):
        # A sanitizer's report ends the program; it is kept in a file, since a shim has no stderr to speak of.
        common = f"log_path={self.sanitizer_dir}/report:exitcode=99"
        return {"CLOUDHV_CONFIG_DIR": self.config_dir, "ASAN_OPTIONS": f"{common}:detect_leaks=1",
                "UBSAN_OPTIONS": f"{common}:halt_on_error=1:print_stacktrace=1"}

    def sanitizer_reports(self):
        """The text of each report, most telling lines only."""
        reports = set()
        for name in os.listdir(self.sanitizer_dir):
            text = proc.read(os.path.join(self.sanitizer_dir, name)).decode(errors="replace")
            lines = [line.strip() for line in text.splitlines()
                     if "ERROR" in line or "runtime error" in line or line.strip().startswith("#")]
            reports.add(f"{name}: " + " | ".join(lines[:8]))
        return reports

    # configuration

    def write_config(self, shim=None, daemon=None, **both):
        """Writes config.json and daemon.json: the run's own, changed by `both`, `shim` and `daemon`. A value of
        None leaves the key out."""
        qemu, console = QEMU[self.guest_arch]
        common = {"kernel_path": self.kernel, "rootfs_path": os.path.join(self.guest_dir, "rootfs.erofs"),
                  "vmm": "qemu", "qemu_binary": f"/usr/bin/{qemu}", "allow_emulation": True,
                  # Under emulation, on few and busy cores, several at once.
                  "boot_timeout_secs": 180, "operation_timeout_secs": 120, "max_containers_per_vm": 16,
                  # The default's console is that of the host's architecture.
                  "kernel_args": KERNEL_ARGS.format(console) if self.guest_arch != os.uname().machine else None,
                  "vmm_uid_base": self.uid_base, "vmm_uid_count": UIDS, "log_level": self.log_level}
        files = {"config.json": {**common, "daemon_socket": self.socket if self.mode == "daemon" else "",
                                 "state_dir": os.path.join(self.root, "shim"), "erofs_cache_dir": self.cache_dir,
                                 "mkfs_erofs_binary": self.mkfs, "erofs_cache_max_mb": 512, "scratch_size_mb": 256},
                 "daemon.json": {**common, "socket_path": self.socket, "state_dir": os.path.join(self.root, "daemon"),
                                 "pool_size": 0, "templates": False, "templates_dir": os.path.join(self.root, "templates")}}
        for name, extra in (("config.json", shim), ("daemon.json", daemon)):
            values = {**files[name], **both, **(extra or {})}
            self._write(name, json.dumps({k: v for k, v in values.items() if v is not None}, indent=2))

    def _write(self, name, text):
        with open(os.path.join(self.config_dir, name), "w", encoding="utf-8") as f:
            f.write(text)

    @contextlib.contextmanager
    def configured(self, text=None, **changes):
        """The configuration changed for a while, the daemon restarted with it; `text` replaces config.json whole."""
        self.write_config(**changes)
        if text is not None:
            self._write("config.json", text)
        elif self.daemon:
            self.restart_daemon(check=False)
        try:
            yield self
        finally:
            self.write_config()
            if self.daemon:
                self.restart_daemon()

    def owns(self, path):
        """Not another run's: of the one registry of uids on the machine only those of this run."""
        directory, name = os.path.split(path)
        return os.path.basename(directory) != "uids" or self.uid_base <= int(name) < self.uid_base + UIDS

    # programs

    def use_shim(self, environment=None):
        """Puts the shim on containerd's PATH; from the first call with variables on, by way of a script that sets
        what the last call gave. The script stays, since a shell opens its script by name after the kernel has
        begun to execute it: exchanged in between, it would read a program as a script."""
        path = os.path.join(self.shim_dir, SHIM)
        if os.path.islink(path) and os.readlink(path) != self.shim:
            os.unlink(path)
        if not os.path.lexists(path):
            os.symlink(self.shim, path)
        if os.path.islink(path) and environment:
            variables = shlex.quote(self.shim_environment)
            _replace(path, f"#!/bin/sh\nset -a\n. {variables}\nexec {shlex.quote(self.shim)} \"$@\"\n", 0o755)
        _replace(self.shim_environment, "".join(f"{k}={shlex.quote(v)}\n" for k, v in (environment or {}).items()), 0o600)

    @property
    def daemon_pid(self):
        return self.daemon.pid if self.daemon and self.daemon.poll() is None else None

    def start_daemon(self, check=True, environment=None):
        if self.mode != "daemon":
            return
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", proc.MARK: self.run_id,
               **self.environment(), **(environment or {})}
        with open(self.daemon_log, "ab") as log:
            self.daemon = subprocess.Popen([self.daemon_binary], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           env=env, start_new_session=True)
        if check:
            wait.until(f"the daemon to listen on {self.socket}", self.listening, 30)

    def listening(self):
        if self.daemon.poll() is not None:
            raise RuntimeError(f"{DAEMON} ended with {self.daemon.returncode}:\n{self.daemon_tail()}")
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.socket) == 0

    def stop_daemon(self, sig=signal.SIGTERM):
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(sig)
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait(10)
                raise AssertionError(f"{DAEMON} did not end within 20 s of signal {int(sig)}") from None

    def restart_daemon(self, sig=signal.SIGTERM, check=True, environment=None):
        self.stop_daemon(sig)
        self.start_daemon(check, environment)

    def daemon_tail(self, lines=40):
        return "\n".join(proc.read(self.daemon_log).decode(errors="replace").splitlines()[-lines:])

    def vmms(self):
        """PIDs of the run's VMMs."""
        return [pid for pid in proc.of_run(self.root, self.run_id)
                if os.path.basename(proc.exe(pid)).startswith(("qemu-system", "cloud-hypervisor"))
                or proc.comm(pid).startswith(("qemu-system", "cloud-hyperviso"))]


def find_program(directory, name):
    """A program in a directory of programs or in a build directory."""
    for path in (os.path.join(directory, name), *(os.path.join(directory, "src", d, name) for d in ("shim", "daemon"))):
        if os.path.isfile(path):
            return path
    raise RuntimeError(f"there is no {name} in {directory}")
