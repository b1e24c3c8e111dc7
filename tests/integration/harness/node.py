# SPDX-License-Identifier: MIT
"""A containerd of the run's own, with its network, images and runtimes: what a Kubernetes node is to the tests."""

import json
import os
import shutil
import signal
import subprocess

from . import cri, images, network, proc, wait

HERE = os.path.dirname(os.path.abspath(__file__))
PAUSE = "test.invalid/pause:3.9"
ANNOTATIONS = ["io.cloudhv.*", "io.katacontainers.*"]
CGROUPS = "/sys/fs/cgroup"


class Unavailable(Exception):
    """That version of containerd can't be had on this machine; the text is the reason for the skip."""


def find_containerd(version):
    """Directory with containerd, ctr and containerd-shim-runc-v2 of one release line."""
    script = os.path.join(HERE, "..", "get-containerd.sh")
    done = subprocess.run([script, version], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout.strip().splitlines()[-1]


class Node:
    def __init__(self, version, cloudhv=None, keep=False, number=0, compiler="cc", busybox=images.BUSYBOX):
        """Starts containerd `version`. `cloudhv` (see cloudhv.py) adds our runtime; `compiler` and `busybox` are what
        images are made with."""
        self.version, self.cloudhv, self.keep = version, cloudhv, keep
        self.bin = find_containerd(version)
        self.root = cloudhv.root if cloudhv else proc.run_directory()
        self.run_id = os.path.basename(self.root)
        self.cgroup = f"/{self.run_id}"
        self.socket = os.path.join(self.root, "c.sock")
        self.log_root = os.path.join(self.root, "logs")
        self.log_path = os.path.join(self.root, "containerd.log")
        self.process = None
        self.cri = None
        os.makedirs(self.log_root)
        self.network = network.Network(self.root, number)
        archives = os.path.join(self.root, "images")
        os.makedirs(archives)
        self.images = images.assemble(archives, PAUSE, compiler, busybox)
        self._write_config()
        self.start()
        for name in self.images:
            if name not in ("one", "two"):
                self.import_image(name)

    # containerd's life

    def _write_config(self):
        major = int(self.version.split(".")[0])
        options = json.dumps(ANNOTATIONS)
        # On a machine with too much to do, containerd would give tasks up that are slow to answer.
        timeouts = "\n".join(f'"io.containerd.timeout.{name}" = "60s"'
                             for name in ("shim.cleanup", "shim.load", "shim.shutdown", "task.state"))
        cni = f'bin_dir = "{network.PLUGINS}"\nconf_dir = "{self.network.conf_dir}"'
        runtimes = []
        handlers = {"runc": "io.containerd.runc.v2"}
        if self.cloudhv:
            handlers["cloudhv"] = "io.containerd.cloudhv.v1"
        table = "io.containerd.cri.v1.runtime" if major >= 2 else "io.containerd.grpc.v1.cri"
        for handler, kind in handlers.items():
            runtimes.append(f'[plugins."{table}".containerd.runtimes.{handler}]\nruntime_type = "{kind}"\n'
                            f"pod_annotations = {options}\ncontainer_annotations = {options}\n")
        # Without CAP_SYS_RESOURCE (a container as CI machine) the usual -998 of a sandbox can't be set.
        common = "netns_mounts_under_state_dir = true\nrestrict_oom_score_adj = true"
        if major >= 2:
            cri_part = (f'version = 3\n[plugins."io.containerd.cri.v1.images"]\nsnapshotter = "overlayfs"\n'
                        f'[plugins."io.containerd.cri.v1.images".pinned_images]\nsandbox = "{PAUSE}"\n'
                        f'[plugins."{table}"]\n{common}\n'
                        f'[plugins."{table}".cni]\n{cni}\n'
                        f'[plugins."{table}".containerd]\ndefault_runtime_name = "runc"\n')
        else:
            cri_part = (f'version = 2\n[plugins."{table}"]\nsandbox_image = "{PAUSE}"\n'
                        f'{common}\n[plugins."{table}".cni]\n{cni}\n'
                        f'[plugins."{table}".containerd]\nsnapshotter = "overlayfs"\ndefault_runtime_name = "runc"\n')
        head, _, rest = cri_part.partition("\n")
        self.config_path = os.path.join(self.root, "containerd.toml")
        opt_dir = os.path.join(self.root, "opt")
        # NRI's socket has one place on a machine, which may be another containerd's.
        nri = "" if self.version == "1.6" else '[plugins."io.containerd.nri.v1.nri"]\ndisable = true\n'
        with open(self.config_path, "w", encoding="utf-8") as f:
            f.write(f'{head}\nroot = "{self.root}/root"\nstate = "{self.root}/state"\n'
                    f'[grpc]\naddress = "{self.socket}"\n[timeouts]\n{timeouts}\n'
                    f'[plugins."io.containerd.internal.v1.opt"]\npath = "{opt_dir}"\n{nri}{rest}' + "".join(runtimes))

    def environment(self):
        env = {"PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", proc.MARK: self.run_id,
               # A file that ctr and the plugins may look for in the user's environment is not ours to read.
               "XDG_RUNTIME_DIR": self.root, "NO_PROXY": "*"}
        if self.cloudhv:
            env["PATH"] = f"{self.cloudhv.shim_dir}:{env['PATH']}"
            env.update(self.cloudhv.environment())
        return env

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "containerd"), "--config", self.config_path], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.environment(), start_new_session=True)
        self.cri = cri.Client(self.socket)

        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"containerd ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                status = self.cri.call("Status", cri.pb.StatusRequest(), timeout=5).status
            except cri.CriError:
                return False
            return all(c.status for c in status.conditions if c.type in ("RuntimeReady", "NetworkReady"))

        wait.until("containerd to be ready", ready, 60)

    def stop(self, sig=signal.SIGTERM):
        """Ends containerd alone; what it runs goes on."""
        if self.cri:
            self.cri.close()
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def restart(self, sig=signal.SIGTERM):
        self.stop(sig)
        self.start()

    def log_tail(self, lines=40):
        return "\n".join(proc.read(self.log_path).decode(errors="replace").splitlines()[-lines:])

    # images

    def image_ref(self, name):
        return self.images[name][0] if name in self.images else name

    def ctr(self, *args, namespace="k8s.io", check=True, **options):
        command = [os.path.join(self.bin, "ctr"), "--address", self.socket, "--namespace", namespace, *args]
        done = subprocess.run(command, capture_output=True, env=self.environment(), check=False,
                              timeout=options.pop("timeout", 120), **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(args)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done

    def import_image(self, name, namespace="k8s.io"):
        """Imports an archive under its reference, replacing what had that reference."""
        reference, path = self.images[name]
        self.ctr("images", "import", path, namespace=namespace)
        if namespace == "k8s.io":
            wait.until(f"containerd to know the image {reference}", lambda: self.image_id(reference), 30)

    def image_id(self, reference):
        answer = self.cri.call("ImageStatus", cri.pb.ImageStatusRequest(image=cri.pb.ImageSpec(image=reference)))
        return answer.image.id

    def remove_image(self, reference):
        self.cri.call("RemoveImage", cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=reference)))

    # pods

    def pod(self, runtime, **options):
        return cri.Pod(self, runtime, **options)

    def pods(self):
        return self.cri.call("ListPodSandbox", cri.pb.ListPodSandboxRequest()).items

    def remove_pods(self):
        """Stops and removes every pod, as the kubelet goes on trying; returns what could not be removed."""
        errors = []
        for pod in self.pods():
            for method, request in (("StopPodSandbox", cri.pb.StopPodSandboxRequest),
                                    ("RemovePodSandbox", cri.pb.RemovePodSandboxRequest)):
                try:
                    self.cri.call(method, request(pod_sandbox_id=pod.id))
                except cri.CriError as e:
                    errors.append(str(e))
        # The kubelet's part of the cgroups; what a runtime left below keeps them.
        for hierarchy in ["."] + os.listdir(CGROUPS):
            top = os.path.join(CGROUPS, hierarchy) + self.cgroup
            for name in os.listdir(top) if os.path.isdir(top) else ():
                try:
                    os.rmdir(os.path.join(top, name))
                except OSError:
                    pass
        return errors

    def remove_cgroup(self, path):
        """Removes a pod's cgroup in every hierarchy, as the kubelet does; one that is not empty stays."""
        for hierarchy in ["."] + os.listdir(CGROUPS):
            top = os.path.join(CGROUPS, hierarchy) + path
            for directory, _, _ in sorted(os.walk(top), reverse=True):
                try:
                    os.rmdir(directory)
                except OSError:
                    pass

    def processes(self):
        return proc.of_run(self.root, self.run_id)

    def shim_pid(self, pod_id):
        """The runtime's server process of a pod."""
        for pid in self.processes():
            arguments = proc.read(f"/proc/{pid}/cmdline").split(b"\0")
            if pod_id.encode() in arguments and b"shim" in arguments[0]:
                return pid
        return None

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.remove_pods()
        finally:
            self.stop()
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            mounts = [line.split()[4] for line in open("/proc/self/mountinfo", encoding="utf-8")]
            for mount in reversed([m for m in mounts if m.startswith(self.root + "/")]):
                subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)
            self.network.close()
            self.remove_cgroup(self.cgroup)
            if not self.keep and not self.cloudhv:
                shutil.rmtree(self.root, ignore_errors=True)
