# SPDX-License-Identifier: MIT
"""What the spec says of a process is in effect for it: user, capabilities, limits, file system, names.

Starting a container costs more than looking around in it, so a few containers print all that the cases ask for."""

import re

import pytest

MIB = 1 << 20

LOOK = r"""
section() { echo "== $1"; }
section id; id -u; id -g; id -G
section status; grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status
section cwd; pwd
section env; env
section args; tr '\0' '\n' < /proc/$$/cmdline
section hostname; hostname
section etc-hostname; cat /etc/hostname
section resolv; cat /etc/resolv.conf
section hosts; cat /etc/hosts
section dev; ls /dev
section nodes; for n in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$n; done
section null; echo x > /dev/null && head -c 3 /dev/zero | wc -c
section shm; grep ' /dev/shm ' /proc/mounts
section shm-write; echo x > /dev/shm/file && cat /dev/shm/file
section root-write; touch /made 2>&1 && echo written
section tmp-write; touch /tmp/made 2>&1 && echo written
section mounts; cat /proc/mounts
section cgroup-memory; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null
section cgroup-cpu; cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us
section cgroup-weight; cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null
section sysctl; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced
section masked; wc -c < /proc/timer_list; ls /proc/acpi 2>/dev/null | wc -l
section readonly; (echo 1 > /proc/sys/kernel/shm_rmid_forced) 2>&1; (echo x > /proc/sysrq-trigger) 2>&1
section syscalls; probe syscalls
section setuid; probe-setuid uid
section pid1; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l
section fds; ls /proc/self/fd | wc -l
section umask; umask
section limits; cat /proc/self/limits
section loopback; cat /sys/class/net/lo/flags
section interfaces; ls /sys/class/net
"""


def sections(text):
    parts = re.split(r"^== (\S+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def caps(status, which):
    return int(re.search(rf"^{which}:\s*([0-9a-f]+)$", status, re.M).group(1), 16)


CAP = {name: 1 << bit for bit, name in enumerate(
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD".split())}


@pytest.fixture(scope="module")
def looked(node, runtime, no_leaks):
    """{container: {section: text}} of one pod with containers of different settings."""
    settings = {
        "plain": {},
        "strict": {
            "user": 1000, "group": 1001, "groups": [50000, 1234], "read_only": True, "no_new_privs": True,
            "drop_caps": ["ALL"], "seccomp": "default", "cwd": "/var/log", "memory": 96 * MIB, "cpu_quota": 50000,
            "cpu_shares": 512, "env": {"GIVEN": "a value with spaces, = and \"quotes\"", "EMPTY": "", "FROM_IMAGE": "no"},
            "masked_paths": ["/proc/timer_list", "/proc/acpi", "/proc/does-not-exist"],
            "readonly_paths": ["/proc/sys", "/proc/sysrq-trigger"]},
        "capable": {"add_caps": ["NET_ADMIN"], "drop_caps": ["CHOWN", "MKNOD"]},
        "named": {"username": "alice"},
    }
    dns = {"servers": ["192.0.2.1", "2001:db8::1"], "searches": ["ns.svc.test", "svc.test"], "options": ["ndots:5"]}
    with node.pod(runtime, hostname="a-host-name", dns=dns, sysctls={
            "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"}) as pod:
        containers = {name: pod.run_container(["sh", "-c", LOOK, "the-shell", "an argument", ""], name=name, **options)
                      for name, options in settings.items()}
        found = {}
        for name, container in containers.items():
            container.wait()
            found[name] = sections(container.stdout().decode())
        found["ips"] = pod.ips
        yield found


def test_user_and_groups(looked):
    assert looked["plain"]["id"].split() == ["0", "0", "0"]
    uid, gid, *groups = looked["strict"]["id"].split()
    assert (uid, gid) == ("1000", "1001")
    assert {"1001", "50000", "1234"} <= set(groups)
    uid, gid, *groups = looked["named"]["id"].split()
    assert (uid, gid) == ("1000", "1000")
    # As /etc/group of the image says of alice.
    assert {"50", "50000"} <= set(groups)


def test_capabilities(looked):
    default = caps(looked["plain"]["status"], "CapEff")
    assert default & CAP["CHOWN"] and default & CAP["NET_BIND_SERVICE"]
    assert not default & (CAP["SYS_ADMIN"] | CAP["SYS_MODULE"] | CAP["NET_ADMIN"] | CAP["SYS_PTRACE"])
    for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert caps(looked["strict"]["status"], which) == 0
    capable = looked["capable"]["status"]
    for which in ("CapPrm", "CapEff", "CapBnd"):
        value = caps(capable, which)
        assert value & CAP["NET_ADMIN"] and not value & (CAP["CHOWN"] | CAP["MKNOD"])
    assert caps(capable, "CapInh") == 0 or caps(capable, "CapInh") == caps(capable, "CapPrm")
    calls = dict(line.split() for line in looked["capable"]["syscalls"].splitlines())
    assert calls["chown"] == "EPERM" and calls["mknod"] == "EPERM"
    calls = dict(line.split() for line in looked["plain"]["syscalls"].splitlines())
    assert calls["chown"] == "ok" and calls["mknod"] == "ok"


def test_no_new_privs(looked):
    assert "NoNewPrivs:\t1" in looked["strict"]["status"]
    assert "NoNewPrivs:\t0" in looked["plain"]["status"]
    assert looked["strict"]["setuid"] == "Effective uid: 1000\n"
    assert looked["named"]["setuid"] == "Effective uid: 0\n"


def test_seccomp(looked):
    assert "Seccomp:\t2" in looked["strict"]["status"]
    assert "Seccomp:\t0" in looked["plain"]["status"]
    blocked = dict(line.split() for line in looked["strict"]["syscalls"].splitlines())
    open_ = dict(line.split() for line in looked["plain"]["syscalls"].splitlines())
    # KEYCTL_GET_KEYRING_ID is harmless; the default profile has no keyctl. bpf(9999) is EINVAL to who may call it.
    assert blocked["keyctl"] == "EPERM" and open_["keyctl"] != "EPERM"
    assert blocked["getpid"] == "ok"


def test_read_only_root(looked):
    assert "Read-only file system" in looked["strict"]["root-write"]
    assert "written" not in looked["strict"]["root-write"]
    assert looked["plain"]["root-write"] == "written\n"
    assert looked["plain"]["tmp-write"] == "written\n"


def test_environment_arguments_and_directory(looked):
    strict, plain = looked["strict"], looked["plain"]
    env = dict(line.split("=", 1) for line in strict["env"].splitlines() if "=" in line)
    assert env["GIVEN"] == "a value with spaces, = and \"quotes\"" and env["EMPTY"] == ""
    assert env["FROM_IMAGE"] == "no" and env["PATH"] == "/bin:/usr/bin" and env["HOSTNAME"] == "a-host-name"
    assert dict(line.split("=", 1) for line in plain["env"].splitlines() if "=" in line)["FROM_IMAGE"] == "yes"
    assert (strict["cwd"], plain["cwd"]) == ("/var/log\n", "/\n")
    assert plain["args"].endswith("the-shell\nan argument\n\n")
    assert looked["plain"]["umask"] == "0022\n"


@pytest.mark.quick
def test_name_resolution_files(looked):
    for name in ("plain", "strict"):
        found = looked[name]
        assert found["hostname"] == "a-host-name\n"
        assert found["etc-hostname"] == "a-host-name\n"
        assert found["resolv"].split("\n") == [
            "search ns.svc.test svc.test", "nameserver 192.0.2.1", "nameserver 2001:db8::1", "options ndots:5", ""]
        assert re.search(r"^127\.0\.0\.1\s+localhost", found["hosts"], re.M)


def test_limits(looked):
    strict = looked["strict"]
    assert strict["cgroup-memory"].split() == [str(96 * MIB)]
    assert strict["cgroup-cpu"].split() == ["50000", "100000"]
    # 512 shares are 512, or that on the scale of cgroup v2 (1 + (512-2)*9999/262142, or the newer curve).
    assert strict["cgroup-weight"].split() in (["512"], ["20"], ["59"])


def test_devices(looked):
    found = looked["plain"]
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout",
            "stderr"} <= set(found["dev"].split())
    # Nothing of the machine below: disks, serial ports, memory.
    assert not re.search(r"^(vd|sd|hvc|ttyS|vport|mem|kmsg|kvm|nvme|pmem)", found["dev"], re.M)
    assert found["nodes"].split("\n")[:2] == ["/dev/null 1:3 666", "/dev/zero 1:5 666"]
    assert found["null"] == "3\n"
    assert "tmpfs" in found["shm"] and found["shm-write"] == "x\n"


def test_masked_and_read_only_paths(looked):
    assert looked["strict"]["masked"].split() == ["0", "0"]
    # A kernel may have no sysrq-trigger at all.
    refused = re.findall("Read-only|Permission denied|nonexistent", looked["strict"]["readonly"])
    assert len(refused) == 2 and "nonexistent" not in looked["strict"]["readonly"].splitlines()[0]


def test_sysctls(looked):
    assert looked["plain"]["sysctl"].split() == ["80", "1"]


def test_process_sees_only_its_own(looked):
    """A process namespace per container; nothing inherited from the runtime."""
    found = looked["plain"]
    assert found["pid1"].split()[0] == "sh" and int(found["pid1"].split()[1]) <= 4
    assert int(found["fds"]) <= 5
    assert set(found["interfaces"].split()) == {"eth0", "lo"}
    assert int(found["loopback"], 16) & 1, "lo is down"


def test_mounts(looked):
    """The usual file systems with the usual options."""
    mounts = {line.split()[1]: line.split() for line in looked["plain"]["mounts"].splitlines()}
    for path, kind in (("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"),
                       ("/dev/mqueue", "mqueue"), ("/dev/shm", "tmpfs")):
        assert mounts[path][2] == kind
    assert "ro" in mounts["/sys"][3].split(",")
    for option in ("nosuid", "noexec", "nodev"):
        assert option in mounts["/proc"][3].split(",")


def test_memory_limit_kills(node, runtime):
    with node.pod(runtime) as pod:
        greedy = pod.run_container(["probe", "fill", "300"], memory=64 * MIB)
        modest = pod.run_container(["probe", "fill", "20"], memory=64 * MIB)
        assert greedy.wait() == 128 + 9
        assert modest.wait() == 0
        assert greedy.status().reason == "OOMKilled"
        assert pod.ready()


def test_localhost_is_shared_by_the_pod(node, runtime):
    with node.pod(runtime) as pod:
        server = pod.run_container(["sh", "-c", "httpd -p 8000 -h /www; echo up; exec sleep 3600"])
        server.wait_for_output(b"up\n")
        assert pod.sh("wget -q -O - http://127.0.0.1:8000/") == "hello from the pod\n"


def test_termination_log_and_writable_file(node, runtime, tmp_path):
    """The kubelet mounts an empty file and reads it after the exit."""
    log = tmp_path / "termination-log"
    log.write_text("")
    with node.pod(runtime) as pod:
        container = pod.run_container(["sh", "-c", "echo it broke > /dev/termination-log; exit 2"], mounts=[
            {"container_path": "/dev/termination-log", "host_path": str(log)}])
        assert container.wait() == 2
        assert log.read_text() == "it broke\n"


def test_configuration_files(node, runtime, tmp_path):
    """Secrets, ConfigMaps and the service account as the kubelet lays them out: a tree behind a symbolic link."""
    volume = tmp_path / "volume"
    data = volume / "..2026_01_01"
    (data / "sub").mkdir(parents=True)
    (data / "token").write_text("secret")
    (data / "token").chmod(0o440)
    (data / "sub" / "binary").write_bytes(bytes(range(256)))
    (volume / "..data").symlink_to("..2026_01_01")
    (volume / "token").symlink_to("..data/token")
    single = tmp_path / "single"
    single.write_text("one file")
    with node.pod(runtime) as pod:
        out = pod.sh("cd /var/run/secrets && cat token && echo && sha256sum ..data/sub/binary && readlink token && "
                     "stat -L -c %a token && cat /etc/single.conf && (echo x > token; echo x > /etc/single.conf) 2>&1 | "
                     "grep -c Read-only", mounts=[
                         {"container_path": "/var/run/secrets", "host_path": str(volume), "readonly": True},
                         {"container_path": "/etc/single.conf", "host_path": str(single), "readonly": True}])
        import hashlib
        digest = hashlib.sha256(bytes(range(256))).hexdigest()
        assert out.splitlines() == ["secret", f"{digest}  ..data/sub/binary", "..data/token", "440", "one file2"]
