# SPDX-License-Identifier: MIT
"""containerd-config against real containerds: what it hands out differs from the host's in our runtime only."""

import os
import re
import subprocess

import pytest

from conftest import TOP, containerd

PROGRAM = os.path.join(TOP, "sysext/usr/lib/cloudhv/containerd-config")
V2 = "io.containerd.grpc.v1.cri"
V3 = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
RELEASES = ["1.6", "1.7", "2.x"]
OURS = {"runtime_type": "io.containerd.cloudhv.v1", "pod_annotations": "io.cloudhv.*"}

OWN_RUNTIME = f"""
[plugins."{V2}".containerd.runtimes.other]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{V2}".containerd.runtimes.other.options]
    BinaryName = "/opt/other/bin/runc"
"""
SYSTEMD_CGROUP = f"""
[plugins."{V2}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{V2}".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""
MIRROR = f"""
[plugins."{V2}".registry.mirrors."registry.example"]
  endpoint = ["http://mirror.example:5000"]
[plugins."{V2}".registry.configs."mirror.example:5000".auth]
  username = "me"
  password = "secret \\" 'quoted'"
"""
CERTS_D = f"""
[plugins."{V2}".registry]
  config_path = "/etc/containerd/certs.d"
"""
FLATCAR = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
subreaper = true
oom_score = -999
disabled_plugins = []
[grpc]
address = "/run/containerd/containerd.sock"
uid = 0
gid = 0
[plugins."io.containerd.runtime.v1.linux"]
shim = "containerd-shim"
runtime = "runc"
no_shim = false
[plugins."{V2}"]
enable_selinux = true
[plugins."{V2}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{V2}".containerd.runtimes.runc.options]
SystemdCgroup = true
"""
DEBIAN = f"""
version = 2
[plugins]
  [plugins."{V2}"]
    [plugins."{V2}".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"""
V3_HOST = f"""
version = 3
[plugins.'{V3}']
  enable_selinux = true
  [plugins.'{V3}'.containerd.runtimes.other]
    runtime_type = 'io.containerd.runc.v2'
[plugins.'{IMAGES}'.registry]
  config_path = '/etc/containerd/certs.d'
"""
TOP_LEVEL = """
version = 2
oom_score = -500
[debug]
  level = "debug"
[timeouts]
  "io.containerd.timeout.shim.cleanup" = "17s"
[proxy_plugins.remote]
  type = "snapshot"
  address = "/run/remote.sock"
[proxy_plugins.other]
  type = "snapshot"
  address = "/run/other.sock"
  [proxy_plugins.other.exports]
    root = "/var/lib/other"
[stream_processors."example"]
  accepts = ["application/x-example"]
  returns = "application/x-tar"
  path = "example"
"""

# name: text of the host's configuration, and the releases that can read it.
HOSTS = {
    "empty": ("", RELEASES),
    "version-1": ('[plugins.cri]\nenable_selinux = true\n[plugins.cri.containerd.runtimes.other]\n'
                  'runtime_type = "io.containerd.runc.v2"\n', RELEASES),
    "version-1-short-names": ('disabled_plugins = ["aufs"]\n[plugins.cri]\nenable_selinux = true\n', ["2.x"]),
    "flatcar": (FLATCAR, RELEASES),
    "debian": (DEBIAN, RELEASES),
    "mirror": ("version = 2\n" + MIRROR, RELEASES),
    "certs.d": ("version = 2\n" + CERTS_D, RELEASES),
    "another-runtime": ("version = 2\n" + OWN_RUNTIME, RELEASES),
    "default-runtime": (f'version = 2\n[plugins."{V2}".containerd]\ndefault_runtime_name = "other"\n' + OWN_RUNTIME,
                        RELEASES),
    "systemd-cgroup": ("version=2\n" + SYSTEMD_CGROUP + OWN_RUNTIME + MIRROR, RELEASES),
    "top-level": (TOP_LEVEL, RELEASES),
    "inline": (f"version = 2\nplugins = {{ '{V2}' = {{ enable_selinux = true }} }}\n", RELEASES),
    "version-3": (V3_HOST, ["2.x"]),
    "version-4": (V3_HOST.replace("version = 3", "version = 4"), ["2.x"]),
}

# name: files below the host's directory; config.toml is the one that containerd is given.
IMPORTS = {
    "absolute": {"config.toml": "version = 2\nimports = ['@/more.toml']\n" + SYSTEMD_CGROUP,
                 "more.toml": "version = 2\n" + OWN_RUNTIME},
    "relative": {"config.toml": "version = 2\nimports = ['conf/more.toml']\noom_score = -3\n",
                 "conf/more.toml": "version = 2\n" + SYSTEMD_CGROUP + OWN_RUNTIME},
    "glob": {"config.toml": "version = 2\nimports = ['@/conf.d/*.toml']\noom_score = -3\n",
             "conf.d/a.toml": "version = 2\n[debug]\nlevel = 'warn'\n",
             "conf.d/b.toml": "version = 2\n" + MIRROR + SYSTEMD_CGROUP},
    "nested": {"config.toml": "version = 2\nimports = ['one.toml']\n",
               "one.toml": "version = 2\nimports = ['conf/two.toml']\n[debug]\nlevel = 'warn'\n",
               "conf/two.toml": "version = 2\n" + SYSTEMD_CGROUP},
    "glob-of-nothing": {"config.toml": "version = 2\nimports = ['@/none/*.toml']\n" + CERTS_D},
}


class Host:
    def __init__(self, path):
        self.path = path
        self.out = os.path.join(path, "run")
        self.config = os.path.join(path, "config.toml")

    def write(self, files):
        for name, text in files.items():
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text.replace("@", self.path))

    def run(self, *arguments):
        done = subprocess.run([PROGRAM, "--directory", self.out, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        self.journal = done.stderr
        return done

    def read(self, name):
        try:
            with open(os.path.join(self.out, name), encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return None


@pytest.fixture
def host(tmp_path):
    return Host(str(tmp_path))


def dump(program, path):
    arguments = ["--config", path, "config", "dump"] if os.path.exists(path) else ["config", "default"]
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def parse(text):
    """{(table, key): value} of a dump, which has one pair a line."""
    table, values = "", {}
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            table = line[1:-1].replace("'", '"')
            values[table, ""] = ""
        elif line:
            key, _, value = line.partition(" = ")
            values[table, key.strip("'\"")] = value.replace("'", '"')
    return values


def check_same_but_ours(program, host):
    assert host.read("reason") is None, host.read("reason")
    made = os.path.join(host.out, "config.toml")
    assert os.stat(made).st_mode & 0o777 == 0o600
    before, after = parse(dump(program, host.config)), parse(dump(program, made))
    ours = {k: v for k, v in after.items() if re.search(r'\.runtimes\."?cloudhv"?($|\.)', k[0])}
    rest = {k: v for k, v in after.items() if k not in ours}
    before.pop(("", "imports"), None)
    rest.pop(("", "imports"), None)
    assert rest == before
    for key, value in OURS.items():
        assert any(k[1] == key and value in v for k, v in ours.items()), ours
    assert not [n for n in os.listdir(host.out) if n not in ("config.toml", "environment")]


@pytest.mark.parametrize("version", RELEASES)
def test_no_configuration(version, host):
    program = containerd(version)
    host.run("make", program, host.config)
    check_same_but_ours(program, host)


@pytest.mark.parametrize("name,version", [(n, v) for n, (_, releases) in HOSTS.items() for v in releases])
def test_one_file(name, version, host):
    program = containerd(version)
    host.write({"config.toml": HOSTS[name][0]})
    host.run("make", program, host.config)
    check_same_but_ours(program, host)


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("name", IMPORTS)
def test_imports(name, version, host):
    program = containerd(version)
    host.write(IMPORTS[name])
    host.run("make", program, host.config)
    check_same_but_ours(program, host)


@pytest.mark.parametrize("version", ["1.6", "1.7"])
def test_names_of_version_1(version, host):
    """A dump of containerd 1.x says it is version 2 and keeps names that mean nothing there."""
    host.write({"config.toml": HOSTS["version-1-short-names"][0]})
    host.run("make", containerd(version), host.config)
    given_up(host, 'invalid disabled plugin URI "aufs"')


def test_imports_of_other_versions(host):
    """A file of version 2 that imports one of version 3, and the other way round."""
    program = containerd("2.x")
    host.write({"config.toml": "version = 2\nimports = ['more.toml']\n" + SYSTEMD_CGROUP, "more.toml": V3_HOST})
    host.run("make", program, host.config)
    check_same_but_ours(program, host)
    host.write({"config.toml": V3_HOST.replace("version = 3", "version = 3\nimports = ['more.toml']"),
                "more.toml": "version = 2\n" + SYSTEMD_CGROUP})
    host.run("make", program, host.config)
    check_same_but_ours(program, host)


def test_containerd_2_imports_the_host_s_file(host):
    """So that a person who looks finds little, and passwords are not copied."""
    host.write({"config.toml": "version = 2\n" + MIRROR})
    host.run("make", containerd("2.x"), host.config)
    assert f"imports = ['{host.config}']" in host.read("config.toml")
    assert "secret" not in host.read("config.toml")


def given_up(host, text):
    assert host.read("config.toml") is None
    assert host.read("environment") is None
    assert text in host.read("reason")
    assert len(host.read("reason").splitlines()) == 1
    assert text in host.journal


@pytest.mark.parametrize("version", RELEASES)
def test_broken_file(version, host):
    host.write({"config.toml": "version = 2\n[plugins\n"})
    host.run("make", containerd(version), host.config)
    given_up(host, f"containerd cannot read its configuration {host.config}")


@pytest.mark.parametrize("version", RELEASES)
def test_missing_import(version, host):
    host.write({"config.toml": "version = 2\nimports = ['none.toml']\n"})
    host.run("make", containerd(version), host.config)
    if host.read("reason"):
        given_up(host, "none.toml")
    else:
        check_same_but_ours(containerd(version), host)


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("quoted", ["cloudhv", '"cloudhv"'])
def test_runtime_of_that_name(version, quoted, host):
    """What somebody has configured by hand is neither replaced nor mixed with ours."""
    host.write({"config.toml": f'version = 2\n[plugins."{V2}".containerd.runtimes.{quoted}]\n'
                               'runtime_type = "io.containerd.cloudhv.v1"\nsnapshotter = "native"\n'})
    host.run("make", containerd(version), host.config)
    given_up(host, "has a runtime cloudhv already")
    assert host.journal.startswith("<6>")


@pytest.mark.parametrize("version", RELEASES)
def test_names_that_only_resemble_ours(version, host):
    host.write({"config.toml": "version = 2\n" + OWN_RUNTIME.replace("other", "cloudhv-other").replace(
        'runtimes.cloudhv-other', 'runtimes."cloudhv-other"')})
    host.run("make", containerd(version), host.config)
    check_same_but_ours(containerd(version), host)


@pytest.mark.parametrize("version", RELEASES)
def test_cri_disabled(version, host):
    disabled = [f'"{V2}"'] + ([f'"{V3}"', f'"{IMAGES}"'] if version == "2.x" else [])
    host.write({"config.toml": f"version = 2\ndisabled_plugins = [{', '.join(disabled)}]\n"})
    host.run("make", containerd(version), host.config)
    given_up(host, "disabled")


def test_a_setting_that_would_be_lost_is_never_lost_silently(host, tmp_path):
    """With a containerd that drops a setting whatever it is given, there is no configuration and a reason."""
    real = containerd("2.x")
    fake = tmp_path / "containerd"
    fake.write_text(f"#!/bin/bash\ncase \"$*\" in *{host.out}*) {real} \"$@\" | grep -v enable_selinux ;;\n"
                    f"*) {real} \"$@\" ;;\nesac\n")
    fake.chmod(0o755)
    host.write({"config.toml": FLATCAR})
    host.run("make", str(fake), host.config)
    given_up(host, "settings would be lost")


# ------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize("arguments,option", [
    (["--config", "@/config.toml"], "--config"),
    (["--log-level", "debug", "--config=@/config.toml"], "--config"),
    (["-config", "@/config.toml", "--address", "/run/x.sock"], "--config"),
    (["-c", "@/config.toml"], "-c"),
    (["-c=@/config.toml"], "-c"),
])
@pytest.mark.parametrize("prefix", [[], ["/usr/bin/env", "PATH=/usr/bin:/opt/bin"]])
def test_command_line(prefix, arguments, option, host):
    """What the unit runs, with the variable that it gets, reads our file; in every release without an error."""
    for version in RELEASES:
        program = containerd(version)
        host.write({"config.toml": FLATCAR})
        line = prefix + [program] + [a.replace("@", host.path) for a in arguments]
        host.run("start", *line)
        assert host.read("environment") == f"CLOUDHV_CONTAINERD_CONFIG={option} {host.out}/config.toml\n"
        words = host.read("environment").strip().partition("=")[2].split()
        shown = subprocess.run(line + words + ["config", "dump"], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "io.containerd.cloudhv.v1" in shown.stdout


def test_start_without_a_file_that_was_named(host):
    host.run("start", containerd("1.6"), "--config", host.path + "/none.toml")
    given_up(host, "does not exist")


def test_start_with_a_relative_path(host):
    host.run("start", containerd("1.6"), "--config", "../" * 20 + host.config.lstrip("/"))
    given_up(host, "not absolute")


def test_start_of_something_else(host):
    host.run("start", "/usr/bin/something", "--config", host.config)
    given_up(host, "does not name containerd")


def test_nothing_of_an_earlier_start_is_left(host):
    host.write({"config.toml": FLATCAR})
    host.run("start", containerd("1.6"), "--config", host.config)
    assert host.read("environment")
    host.write({"config.toml": "broken"})
    host.run("start", containerd("1.6"), "--config", host.config)
    given_up(host, "cannot read")
    host.write({"config.toml": FLATCAR})
    host.run("start", containerd("1.6"), "--config", host.config)
    assert host.read("reason") is None
