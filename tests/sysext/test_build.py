# SPDX-License-Identifier: MIT
"""What hacks/build-sysext.sh refuses before it builds anything."""

import os
import subprocess

import pytest

from conftest import TOP

PROGRAM = os.path.join(TOP, "hacks/build-sysext.sh")
KEY = {"SIGNING_KEY": "pkcs11:token=t;object=o"}


@pytest.fixture
def build(tmp_path):
    (tmp_path / "vmm").write_text("#!/bin/sh\n")
    (tmp_path / "vmm").chmod(0o755)
    (tmp_path / "crt").write_text("a certificate\n")

    def run(*arguments, **environment):
        """Gives what it says when it fails."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CLOUD_HYPERVISOR", "SIGNING", "PKCS11", "SOFTHSM"))}
        done = subprocess.run([PROGRAM, "--output", tmp_path / "out", *arguments], capture_output=True, text=True, timeout=60,
                              env={**clean, **{k: v.replace("@", str(tmp_path)) for k, v in environment.items()}})
        assert done.returncode != 0 and not (tmp_path / "out").exists()
        return done.stderr

    return run


def test_arguments(build):
    assert "unknown argument --levitate" in build("--levitate")
    assert "unknown architecture vax" in build("--arch", "vax")


@pytest.mark.parametrize("environment,message", [
    ({"CLOUD_HYPERVISOR": "@/no"}, "there is no program @/no"),
    ({"CLOUD_HYPERVISOR": "@"}, "there is no program @"),
    ({"CLOUD_HYPERVISOR": "@/crt"}, "there is no program @/crt"),
    ({"CLOUD_HYPERVISOR": "@/vmm", "CLOUD_HYPERVISOR_SHA256": "00"}, "@/vmm has the checksum"),
    ({"CLOUD_HYPERVISOR_SHA256": "00"}, "none is given"),
])
def test_cloud_hypervisor(build, tmp_path, environment, message):
    assert message.replace("@", str(tmp_path)) in build(**environment)


@pytest.mark.parametrize("environment,message", [
    (KEY, "a SIGNING_KEY needs a SIGNING_CERTIFICATE"),
    ({"SIGNING_KEY": "@/no", "SIGNING_CERTIFICATE": "@/crt"}, "there is no key @/no"),
    ({**KEY, "SIGNING_CERTIFICATE": "@/no"}, "there is no certificate @/no"),
    ({**KEY, "SIGNING_CERTIFICATE": "@/crt", "PKCS11_PROVIDER_MODULE": "@/vmm"}, "what signs sees files below /run only"),
    ({**KEY, "SIGNING_CERTIFICATE": "@/crt", "SOFTHSM2_CONF": "/run/no.conf"}, "there is no /run/no.conf"),
])
def test_key(build, tmp_path, environment, message):
    assert message.replace("@", str(tmp_path)) in build(**environment)
