# SPDX-License-Identifier: MIT
"""The image's plain files: units that systemd understands, JSON that our programs understand, Butane that Ignition
understands, pages that man understands."""

import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import TOP

SYSEXT = os.path.join(TOP, "sysext")
MAN = os.path.join(TOP, "docs/man")
# What docs/install.md says; a rise is a decision.
EXPOSURE = 3.6


def files(directory, suffix=""):
    return sorted(os.path.relpath(os.path.join(d, n), TOP) for d, _, names in os.walk(os.path.join(TOP, directory))
                  for n in names if n.endswith(suffix))


@pytest.mark.parametrize("name", files("sysext", ".json") + files("sysext", ".conflist"))
def test_json(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as f:
        assert json.load(f)


def test_defaults_name_only_places_of_the_image():
    for name in ("config.json", "daemon.json"):
        with open(os.path.join(SYSEXT, "usr/share/cloudhv", name), encoding="utf-8") as f:
            for key, value in json.load(f).items():
                assert not str(value).startswith("/") or value.startswith(("/usr/lib/cloudhv/", "/usr/share/cloudhv/",
                                                                           "/run/cloudhv/")), key


def test_release_file():
    path = os.path.join(SYSEXT, "usr/lib/extension-release.d/extension-release.containerd-cloudhypervisor")
    with open(path, encoding="utf-8") as f:
        lines = [line.strip() for line in f if not line.startswith("#")]
    assert lines == ["ID=_any", "SYSEXT_SCOPE=system", "EXTENSION_RELOAD_MANAGER=1"]


@pytest.mark.parametrize("name", ["usr/lib/cloudhv/containerd-config",
                                  "usr/lib/systemd/system-generators/cloudhv-containerd-generator"])
def test_scripts(name):
    path = os.path.join(SYSEXT, name)
    assert os.access(path, os.X_OK)
    subprocess.run(["shellcheck", "--shell=bash", path], check=True)


@pytest.fixture
def unit_tree(tmp_path):
    """The units, in a root directory where the programs they name are."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there")
    shutil.copytree(os.path.join(TOP, "units"), tmp_path / "units")
    for name in os.listdir(tmp_path / "units"):
        path = tmp_path / "units" / name
        if name.endswith((".service", ".socket")):
            text = path.read_text()
            path.write_text(re.sub(r"=-?/usr/(bin|lib/cloudhv)/\S+", "=/bin/true", text))
    return tmp_path / "units"


def test_units(unit_tree):
    names = [n for n in os.listdir(unit_tree) if n.endswith((".service", ".socket"))]
    assert len(names) == 3
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *[str(unit_tree / n) for n in names]],
                          capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "cloudhv" in line]
    assert done.returncode == 0 and not ours, done.stderr


def test_exposure(unit_tree):
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager",
                           str(unit_tree / "cloudhv-sandbox-daemon.service")], capture_output=True, text=True)
    found = re.search(r"exposure level for cloudhv-sandbox-daemon.service: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= EXPOSURE, done.stdout
    with open(os.path.join(TOP, "docs/install.md"), encoding="utf-8") as f:
        assert f"**{EXPOSURE}**" in f.read()


def test_strict_policy_is_the_same_everywhere():
    policy = "--image-policy=root=signed+absent:usr=signed+absent"
    for name in ("butane/cloudhv.bu", "butane/local.bu", "sysext/usr/share/cloudhv/etc/systemd-sysext-strict.conf",
                 "docs/install.md"):
        with open(os.path.join(TOP, name), encoding="utf-8") as f:
            text = f.read()
        assert policy in text, name
        for found in re.findall(r"--image-policy=\S+", text):
            assert found.rstrip("`,.") == policy, (name, found)


@pytest.mark.parametrize("name", files("docs/man"))
def test_pages(name):
    if not shutil.which("man"):
        pytest.skip("man is not there")
    done = subprocess.run(["man", "--warnings", "-l", "-Tutf8", os.path.join(TOP, name)], capture_output=True, text=True,
                          env={**os.environ, "MANPAGER": "cat", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "NAME" in re.sub(".\b", "", done.stdout)  # bold is a letter twice


def rows_of(section):
    """{key: default} of a page's list of keys."""
    with open(os.path.join(MAN, "cloudhv-config.5"), encoding="utf-8") as f:
        text = f.read()
    return dict(re.findall(r'^\.TP\n\\fB(\w+)\\fR \((.*)\)$', text.partition(f".SS {section}")[2].partition(".SS")[0],
                           re.M))


def test_page_of_the_configuration_has_every_key_and_default():
    """docs/configuration.md is checked against the program by a unit test; the page is checked against it here."""
    with open(os.path.join(TOP, "docs/configuration.md"), encoding="utf-8") as f:
        text = f.read()
    for heading, section in (("## Both files", '"Both files"'), ("## config.json", "config.json"),
                             ("## daemon.json", "daemon.json")):
        part = text.partition(heading + "\n")[2].partition("\n## ")[0]
        documented = {k: v.strip("`") for k, v in re.findall(r"^\| `(\w+)` \| (.+?) \|", part, re.M)}
        page = {k: v.replace("\\-", "-").replace('\\(dq', '"') for k, v in rows_of(section).items()}
        assert page == documented, section


# ------------------------------------------------------------------------------------------------------ Ignition

MAKE = os.path.join(TOP, "hacks/make-ignition.sh")


@pytest.fixture(scope="session")
def ignition(tmp_path_factory):
    """Runs make-ignition.sh; skips where butane cannot be had."""
    if not shutil.which("go"):
        pytest.skip("no Go compiler to build butane with")
    tools = subprocess.run([MAKE, "--tools"], capture_output=True, text=True)
    assert tools.returncode == 0, tools.stderr
    directory = tmp_path_factory.mktemp("ignition")
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout",
                    directory / "key", "-out", directory / "crt"], check=True, capture_output=True)
    (directory / "image").write_bytes(b"image")

    def make(name, *arguments, check=True):
        done = subprocess.run([MAKE, "--certificate", directory / "crt", *arguments, os.path.join(TOP, "butane", name)],
                              capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    make.directory = directory
    return make


def test_ignition_of_the_node(ignition):
    done = ignition("cloudhv.bu", "--image", ignition.directory / "image", "--url", "https://images.example.com/a/",
                    "--version", "1.2.3")
    storage = json.loads(done.stdout)["storage"]
    found = {f["path"]: f for f in storage["files"]}
    image = found["/opt/extensions/cloudhv/containerd-cloudhypervisor-1.2.3.raw"]["contents"]
    assert image["source"] == "https://images.example.com/a/containerd-cloudhypervisor-1.2.3.raw"
    digest = subprocess.run(["sha512sum"], input=b"image", capture_output=True).stdout.split()[0].decode()
    assert image["verification"]["hash"] == "sha512-" + digest
    assert storage["links"][0]["target"].endswith("-1.2.3.raw")
    assert "/etc/verity.d/containerd-cloudhypervisor.crt" in found
    assert not re.search(r"@[A-Z]+@", done.stdout)


def test_ignition_of_a_trial(ignition):
    done = ignition("local.bu")
    assert "/etc/verity.d/containerd-cloudhypervisor.crt" in done.stdout
    butane = ignition("local.bu", "--butane").stdout
    assert "BEGIN CERTIFICATE" in butane and "local:" not in butane


def test_ignition_needs_what_it_needs(ignition):
    assert "--url is missing" in ignition("cloudhv.bu", check=False).stderr
    assert "characters" in ignition("cloudhv.bu", "--image", ignition.directory / "image", "--url", "https://x/|y",
                                    check=False).stderr
