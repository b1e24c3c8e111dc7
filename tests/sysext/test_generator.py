# SPDX-License-Identifier: MIT
"""cloudhv-containerd-generator against trees of units, as distributions and users have them."""

import os
import subprocess

import pytest

from conftest import TOP

GENERATOR = os.path.join(TOP, "sysext/usr/lib/systemd/system-generators/cloudhv-containerd-generator")
DEBIAN = """[Unit]
Description=containerd container runtime
After=network.target

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/bin/containerd

Type=notify
Delegate=yes
KillMode=process
"""
FLATCAR = """[Unit]
Description=containerd container runtime
After=network.target

[Service]
Delegate=yes
Environment=CONTAINERD_CONFIG=/usr/share/containerd/config.toml
ExecStart=/usr/bin/containerd --config ${CONTAINERD_CONFIG}
KillMode=process
Restart=always

[Install]
WantedBy=multi-user.target
"""


class Tree:
    def __init__(self, path):
        self.path = path
        self.out = os.path.join(path, "generator")
        os.makedirs(self.out)

    def write(self, name, text):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def link(self, name, target):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)

    def generate(self, **environment):
        path = ":".join(os.path.join(self.path, d) for d in ("etc", "run", "usr"))
        self.done = subprocess.run([GENERATOR, self.out, self.out, self.out], capture_output=True, text=True,
                                   env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": path, **environment})
        assert self.done.returncode == 0, self.done.stderr
        made = os.path.join(self.out, "containerd.service.d")
        return {n: open(os.path.join(made, n), encoding="utf-8").read() for n in os.listdir(made)} \
            if os.path.isdir(made) else {}

    def command(self, name="zz-cloudhv.conf"):
        """[ExecStartPre=, ExecStart= that resets, ExecStart=] of the drop-in."""
        files = self.generate()
        assert list(files) == [name], files
        return [line for line in files[name].splitlines() if line.startswith("ExecStart")]

    def reason(self):
        files = self.generate()
        assert list(files) == ["cloudhv.reason"], files
        assert files["cloudhv.reason"].strip() in self.done.stderr
        return files["cloudhv.reason"]


@pytest.fixture
def tree(tmp_path):
    return Tree(str(tmp_path))


def lines(arguments, prefix=""):
    return [f"ExecStartPre=-/usr/lib/cloudhv/containerd-config start {arguments}", "ExecStart=",
            f"ExecStart={prefix}{arguments} $CLOUDHV_CONTAINERD_CONFIG"]


def test_debian(tree):
    tree.write("usr/containerd.service", DEBIAN)
    assert tree.command() == lines("/usr/bin/containerd")


def test_flatcar(tree):
    tree.write("usr/containerd.service", FLATCAR)
    assert tree.command() == lines("/usr/bin/containerd --config ${CONTAINERD_CONFIG}")


def test_flatcar_with_its_documented_drop_in(tree):
    tree.write("usr/containerd.service", FLATCAR)
    tree.write("etc/containerd.service.d/10-use-custom-config.conf",
               "[Service]\nExecStart=\nExecStart=/usr/bin/containerd --config /etc/containerd/config.toml\n")
    assert tree.command() == lines("/usr/bin/containerd --config /etc/containerd/config.toml")


def test_no_containerd(tree):
    assert tree.generate() == {}
    assert tree.done.stderr == ""


@pytest.mark.parametrize("kind", ["link", "empty"])
def test_masked(kind, tree):
    tree.write("usr/containerd.service", DEBIAN)
    if kind == "link":
        tree.link("etc/containerd.service", "/dev/null")
    else:
        tree.write("etc/containerd.service", "")
    assert tree.generate() == {}


def test_the_initrd(tree):
    tree.write("usr/containerd.service", DEBIAN)
    assert tree.generate(SYSTEMD_IN_INITRD="1") == {}


def test_unit_of_an_earlier_directory_wins(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("etc/containerd.service", DEBIAN.replace("/usr/bin", "/opt/bin"))
    assert tree.command() == lines("/opt/bin/containerd")


def test_drop_ins_by_name_and_of_one_name_the_earlier_directory(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("usr/containerd.service.d/50-a.conf", "[Service]\nExecStart=\nExecStart=/a/containerd\n")
    tree.write("run/containerd.service.d/40-b.conf", "[Service]\nExecStart=\nExecStart=/b/containerd\n")
    assert tree.command()[2].startswith("ExecStart=/a/containerd ")
    tree.write("etc/containerd.service.d/50-a.conf", "[Service]\nExecStart=\nExecStart=/c/containerd\n")
    assert tree.command()[2].startswith("ExecStart=/c/containerd ")


def test_masked_drop_in(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("usr/containerd.service.d/50-a.conf", "[Service]\nExecStart=\nExecStart=/a/containerd\n")
    tree.link("etc/containerd.service.d/50-a.conf", "/dev/null")
    assert tree.command() == lines("/usr/bin/containerd")


def test_drop_in_of_all_services(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("etc/service.d/10-all.conf", "[Service]\nExecStart=\nExecStart=/all/containerd\n")
    assert tree.command() == lines("/all/containerd")
    tree.write("usr/containerd.service.d/10-all.conf", "[Service]\nNice=3\n")
    assert tree.command() == lines("/usr/bin/containerd")


def test_after_a_drop_in_that_wants_to_be_the_last(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("etc/containerd.service.d/zzz-last.conf", "[Service]\nExecStart=\nExecStart=/last/containerd\n")
    assert tree.command("zzzz-cloudhv.conf") == lines("/last/containerd")


def test_a_drop_in_that_nothing_can_come_after(tree):
    tree.write("usr/containerd.service", DEBIAN)
    tree.write("etc/containerd.service.d/~.conf", "[Service]\nNice=3\n")
    assert "no drop-in of containerd.service can come after ~.conf" in tree.reason()


@pytest.mark.parametrize("prefix", ["-", "+", "!", "!!", "-+"])
def test_prefixes_that_are_kept(prefix, tree):
    tree.write("usr/containerd.service", f"[Service]\nExecStart={prefix}/usr/bin/containerd -l debug\n")
    assert tree.command() == lines("/usr/bin/containerd -l debug", prefix)


@pytest.mark.parametrize("command", ["@/usr/bin/containerd other", ":/usr/bin/containerd", "-@/usr/bin/containerd x"])
def test_prefixes_that_are_not_supported(command, tree):
    tree.write("usr/containerd.service", f"[Service]\nExecStart={command}\n")
    assert "not supported" in tree.reason()


@pytest.mark.parametrize("command", ["/bin/sh -c 'exec containerd '", "/usr/bin/bash /opt/containerd start"])
def test_a_shell(command, tree):
    tree.write("usr/containerd.service", f"[Service]\nExecStart={command}\n")
    assert "runs a shell" in tree.reason()


@pytest.mark.parametrize("command", ["/usr/bin/k3s server", "/usr/bin/containerd-wrapper --config x", "/opt/containerd/bin/run"])
def test_something_else(command, tree):
    tree.write("usr/containerd.service", f"[Service]\nExecStart={command}\n")
    assert "does not run containerd" in tree.reason()


def test_env_before_it(tree):
    command = "/usr/bin/env PATH=${TORCX_BINDIR}:${PATH} ${TORCX_BINDIR}/containerd --config ${CONTAINERD_CONFIG}"
    tree.write("usr/containerd.service", f"[Service]\nExecStart={command}\n")
    assert tree.command() == lines(command)


@pytest.mark.parametrize("text,count", [("ExecStart=/a/containerd\nExecStart=/b/containerd\n", 2), ("Nice=1\n", 0),
                                        ("ExecStart=/a/containerd\nExecStart=\n", 0)])
def test_not_one_command(text, count, tree):
    tree.write("usr/containerd.service", "[Service]\n" + text)
    assert f"has {count} ExecStart= lines" in tree.reason()


def test_syntax(tree):
    """Comments, continued lines, spaces, other sections, and no newline at the end."""
    tree.write("usr/containerd.service",
               "# ExecStart=/no/containerd\n[Unit]\nExecStart=/no/containerd\n[Service]\n; ExecStart=/no/containerd\n"
               "  ExecStart = /usr/bin/containerd \\\n# in between\n   --log-level debug \\\n  --root /r  \n[Install]\n"
               "ExecStart=/no/containerd")
    command = tree.command()[2]
    assert command.split() == "ExecStart=/usr/bin/containerd --log-level debug --root /r $CLOUDHV_CONTAINERD_CONFIG".split()
    tree.write("usr/containerd.service", "[Service]\nExecStart=/usr/bin/containerd")
    assert tree.command() == lines("/usr/bin/containerd")


def test_what_looks_like_patterns_and_variables_stays_text(tree):
    tree.write("usr/containerd.service", "[Service]\nExecStart=/usr/bin/containerd --root '/a b' --state \"%t/x*\" $EXTRA `id`\n")
    assert tree.command() == lines("/usr/bin/containerd --root '/a b' --state \"%t/x*\" $EXTRA `id`")
