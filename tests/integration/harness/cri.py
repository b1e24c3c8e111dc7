# SPDX-License-Identifier: MIT
"""A client of containerd's CRI service: what the kubelet does with pods and containers, and nothing else."""

import os
import re
import uuid

import grpc

from . import protobuf, wait


pb, _methods = protobuf.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."), "cri.proto")

CREATED, RUNNING, EXITED, UNKNOWN = 0, 1, 2, 3
READY = 0

# Longest a single call may take. Under emulation on a busy machine a VM's start can take half a minute.
CALL_TIMEOUT = 120


class CriError(Exception):
    """A call that containerd refused; `text` is what a user of kubectl would read."""

    def __init__(self, method, error):
        self.code = error.code()
        self.text = error.details()
        super().__init__(f"{method}: {self.code.name}: {self.text}")


class Client:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel(
            f"unix://{socket}",
            options=[("grpc.max_receive_message_length", 32 << 20), ("grpc.enable_http_proxy", 0)])
        self.stubs = {
            name: self.channel.unary_unary(path, request.SerializeToString, answer.FromString)
            for name, (path, request, answer) in _methods.items()}

    def close(self):
        self.channel.close()

    def call(self, method, request, timeout=CALL_TIMEOUT):
        try:
            return self.stubs[method](request, timeout=timeout * wait.patience(), wait_for_ready=True)
        except grpc.RpcError as e:
            raise CriError(method, e) from None


class Pod:
    """One sandbox. Use as a context manager: leaving it stops and removes it, as the kubelet would."""

    def __init__(self, node, runtime, *, name=None, namespace="default", hostname="", dns=None, annotations=None,
                 labels=None, sysctls=None, host_network=False, host_pid=False, host_ipc=False, privileged=False,
                 cpu_quota=0, memory=0, run=True):
        self.node, self.runtime = node, runtime
        self.client = node.cri
        uid = str(uuid.uuid4())
        name = name or f"pod-{uid[:8]}"
        self.cgroup_parent = f"{node.cgroup}/pod{uid}"
        self.log_dir = os.path.join(node.log_root, f"{namespace}_{name[:64]}_{uid}".replace("/", "_"))
        os.makedirs(self.log_dir)
        self.config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=uid, namespace=namespace),
            hostname=hostname or (name if re.fullmatch(r"[a-z0-9-]{1,63}", name) else "host"),
            log_directory=self.log_dir, labels=labels or {}, annotations=annotations or {})
        if dns:
            self.config.dns_config.CopyFrom(pb.DNSConfig(**dns))
        linux = self.config.linux
        linux.cgroup_parent = self.cgroup_parent
        linux.sysctls.update(sysctls or {})
        security = linux.security_context
        security.privileged = privileged
        options = security.namespace_options
        options.network = pb.NODE if host_network else pb.POD
        options.pid = pb.NODE if host_pid else pb.CONTAINER
        options.ipc = pb.NODE if host_ipc else pb.POD
        if cpu_quota:
            linux.resources.cpu_period, linux.resources.cpu_quota = 100000, cpu_quota
        if memory:
            linux.resources.memory_limit_in_bytes = memory
        self.id = None
        self.containers = []
        if run:
            self.run()

    def run(self):
        """Starts the sandbox; on failure leaves nothing of the kubelet's part behind."""
        try:
            answer = self.client.call(
                "RunPodSandbox", pb.RunPodSandboxRequest(config=self.config, runtime_handler=self.runtime))
        except CriError:
            self.node.remove_cgroup(self.cgroup_parent)
            raise
        self.id = answer.pod_sandbox_id
        return self

    def status(self, verbose=False):
        return self.client.call(
            "PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=verbose))

    @property
    def ip(self):
        return self.status().status.network.ip

    @property
    def ips(self):
        network = self.status().status.network
        return [network.ip] + [a.ip for a in network.additional_ips]

    def ready(self):
        return self.status().status.state == READY

    def container(self, command, **options):
        container = Container(self, command, **options)
        self.containers.append(container)
        return container

    def run_container(self, command, **options):
        """Creates and starts one container."""
        return self.container(command, **options).create().start()

    def sh(self, script, **options):
        """Runs a shell script to its end, expects status 0 and returns its standard output as text."""
        container = self.run_container(["sh", "-c", script], **options)
        code = container.wait()
        if self.runtime == "runc":
            # Its exit is published before its output has been copied; ours is to come after that.
            wait.for_a_while(container.stdout, 2)
        assert code == 0, f"script ended with {code}: {container.stderr().decode(errors='replace')}"
        return container.stdout().decode(errors="replace")

    def stop(self):
        self.client.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self):
        self.client.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=self.id))
        self.id = None
        self.node.remove_cgroup(self.cgroup_parent)

    def close(self):
        if self.id is not None:
            self.stop()
            self.remove()

    def __enter__(self):
        return self

    def __exit__(self, kind, _value, _trace):
        try:
            self.close()
        except Exception:
            if kind is None:
                raise


class Container:
    """One container of a pod; `command` replaces the image's entry point unless it is None."""

    def __init__(self, pod, command, *, image="busybox", name=None, args=None, env=None, cwd="", mounts=(),
                 annotations=None, user=None, group=None, username="", groups=(), add_caps=(), drop_caps=(),
                 read_only=False, no_new_privs=False, masked_paths=(), readonly_paths=(), seccomp=None,
                 privileged=False, memory=0, cpu_quota=0, cpu_shares=0, pid_mode=None, tty=False, stdin=False,
                 devices=(), attempt=0):
        self.pod, self.client = pod, pod.client
        name = name or f"c{len(pod.containers)}"
        self.config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=pod.node.image_ref(image)), command=command or [], args=args or [],
            working_dir=cwd, envs=[pb.KeyValue(key=k, value=v) for k, v in (env or {}).items()],
            mounts=[pb.Mount(**m) for m in mounts], annotations=annotations or {}, tty=tty, stdin=stdin,
            devices=[pb.Device(**d) for d in devices], log_path=f"{name.replace('/', '_')[:64]}_{attempt}.log")
        security = self.config.linux.security_context
        if user is not None:
            security.run_as_user.value = user
        if group is not None:
            security.run_as_group.value = group
        security.run_as_username = username
        security.supplemental_groups.extend(groups)
        security.capabilities.add_capabilities.extend(add_caps)
        security.capabilities.drop_capabilities.extend(drop_caps)
        security.readonly_rootfs = read_only
        security.no_new_privs = no_new_privs
        security.privileged = privileged
        security.masked_paths.extend(masked_paths)
        security.readonly_paths.extend(readonly_paths)
        security.namespace_options.CopyFrom(pod.config.linux.security_context.namespace_options)
        if pid_mode is not None:
            security.namespace_options.pid = pid_mode
        if seccomp == "default":
            security.seccomp.profile_type = pb.SecurityProfile.RuntimeDefault
        elif seccomp:
            security.seccomp.profile_type = pb.SecurityProfile.Localhost
            security.seccomp.localhost_ref = seccomp
        else:
            security.seccomp.profile_type = pb.SecurityProfile.Unconfined
        security.apparmor.profile_type = pb.SecurityProfile.Unconfined
        resources = self.config.linux.resources
        resources.memory_limit_in_bytes = memory
        resources.cpu_shares = cpu_shares
        if cpu_quota:
            resources.cpu_period, resources.cpu_quota = 100000, cpu_quota
        self.id = None

    def create(self):
        answer = self.client.call("CreateContainer", pb.CreateContainerRequest(
            pod_sandbox_id=self.pod.id, config=self.config, sandbox_config=self.pod.config))
        self.id = answer.container_id
        return self

    def start(self):
        self.client.call("StartContainer", pb.StartContainerRequest(container_id=self.id))
        return self

    def status(self):
        return self.client.call("ContainerStatus", pb.ContainerStatusRequest(container_id=self.id)).status

    def wait(self, timeout=60):
        """Waits for the end and returns the exit code."""
        wait.until(f"container {self.config.metadata.name} to exit",
                   lambda: self.status().state == EXITED, timeout)
        return self.status().exit_code

    def stop(self, grace=0):
        self.client.call("StopContainer", pb.StopContainerRequest(container_id=self.id, timeout=grace))

    def remove(self):
        self.client.call("RemoveContainer", pb.RemoveContainerRequest(container_id=self.id))

    def exec(self, command, timeout=30):
        request = pb.ExecSyncRequest(container_id=self.id, cmd=command, timeout=int(timeout * wait.patience()))
        return self.client.call("ExecSync", request)

    def log_bytes(self):
        with open(os.path.join(self.pod.log_dir, self.config.log_path), "rb") as f:
            return f.read()

    def stream(self, which):
        """What the process wrote to one stream, put together again from the CRI log's records.

        A record is `TIME STREAM F|P TEXT`; P says that the line goes on in the next record of that stream."""
        out = []
        for record in self.log_bytes().split(b"\n"):
            if not record:
                continue
            _time, stream, tag, text = record.split(b" ", 3)
            if stream == which:
                out.append(text if tag == b"P" else text + b"\n")
        return b"".join(out)

    def stdout(self):
        return self.stream(b"stdout")

    def stderr(self):
        return self.stream(b"stderr")

    def wait_for_output(self, text, timeout=30):
        wait.until(f"container {self.config.metadata.name} to print {text!r}",
                   lambda: text in self.stdout(), timeout)
