# SPDX-License-Identifier: MIT
"""Broken configuration and broken surroundings: an error that names thing and reason, and nothing left behind."""

import contextlib
import glob
import os
import shutil
import subprocess

import pytest

from harness import cri

pytestmark = pytest.mark.only("cloudhv")


def refusal(node, runtime, **options):
    """The text of the error that a pod with one container gives."""
    with pytest.raises(cri.CriError) as error:
        with node.pod(runtime, **options) as pod:
            pod.sh("true")
    return error.value.text


@pytest.mark.parametrize("text,words", [
    ("{\"default_vcpus\": 1,", ["config.json", "line"]),
    ("{\"default_vcpuss\": 1}", ["config.json", "default_vcpuss"]),
    ("{\"default_vcpus\": \"many\"}", ["config.json", "default_vcpus"]),
    ("{\"default_memory_mb\": -5}", ["config.json", "default_memory_mb"]),
    ("[]", ["config.json"]),
    ("", ["config.json"]),
])
def test_broken_configuration(node, runtime, cloudhv, text, words):
    with cloudhv.configured(text=text):
        message = refusal(node, runtime)
    for word in words:
        assert word in message


def test_missing_kernel(node, runtime, cloudhv):
    with cloudhv.configured(kernel_path="/nonexistent/vmlinux"):
        assert "/nonexistent/vmlinux" in refusal(node, runtime)


def test_damaged_kernel(node, runtime, cloudhv):
    """A VMM that can't boot its guest is an error within the boot's time limit, not a pod that hangs."""
    damaged = os.path.join(cloudhv.root, "etc", "damaged")
    with open(damaged, "wb") as f:
        f.write(b"\x7fELF" + b"\0" * 4096)
    with cloudhv.configured(kernel_path=damaged, boot_timeout_secs=5):
        assert refusal(node, runtime)
    os.unlink(damaged)


def test_missing_vmm(node, runtime, cloudhv):
    with cloudhv.configured(qemu_binary="/nonexistent/qemu"):
        assert "/nonexistent/qemu" in refusal(node, runtime)


def test_disk_full_in_the_cache(node, runtime, cloudhv):
    small = os.path.join(cloudhv.root, "etc", "small")
    os.makedirs(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        cloudhv.write_config(shim={"erofs_cache_dir": small})
        message = refusal(node, runtime)
        assert "No space left on device" in message and small in message
        left = [p for p in glob.glob(f"{small}/**", recursive=True) if os.path.isfile(p)]
        assert not [p for p in left if os.path.getsize(p) > 65536], left
    finally:
        cloudhv.write_config()
        subprocess.run(["umount", small], check=True)
        os.rmdir(small)
    with node.pod(runtime) as pod:
        assert pod.sh("echo fine") == "fine\n"


def test_damaged_cache_is_noticed(node, runtime, cloudhv):
    with node.pod(runtime) as pod:
        digest = pod.sh("cat /bin/busybox /www/index.html | sha256sum")
    images = [p for p in glob.glob(f"{cloudhv.cache_dir}/**", recursive=True)
              if os.path.isfile(p) and os.path.getsize(p) > 65536]
    assert images, "nothing in the cache"
    for path in images:
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            f.seek(size // 2)
            f.write(b"\xff" * 8192)
    with node.pod(runtime) as pod:
        assert pod.sh("cat /bin/busybox /www/index.html | sha256sum") == digest
    for path in images:
        if os.path.exists(path):
            os.truncate(path, 4096)
    with node.pod(runtime) as pod:
        assert pod.sh("cat /bin/busybox /www/index.html | sha256sum") == digest


@contextlib.contextmanager
def empty_cache(cloudhv):
    """Nothing is known of any image."""
    directory = os.path.join(cloudhv.root, "etc", "cache")
    cloudhv.write_config(shim={"erofs_cache_dir": directory})
    try:
        yield directory
    finally:
        cloudhv.write_config()
        shutil.rmtree(directory, ignore_errors=True)


def layer_with(node, name):
    """The directory of the layer that has a file of that name."""
    found = glob.glob(f"{node.root}/root/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/{name}")
    assert found, f"no layer has {name}"
    return found[0][:-len(name) - 1]


def test_missing_layer(node, runtime, cloudhv):
    """Gone when containerd has made the container, which looks at some of the layers itself."""
    layer = layer_with(node, "l7")
    with empty_cache(cloudhv) as cache, node.pod(runtime) as pod:
        container = pod.container(["true"], image="layers").create()
        os.rename(layer, f"{layer}.away")
        try:
            with pytest.raises(cri.CriError) as error:
                container.start()
        finally:
            os.rename(f"{layer}.away", layer)
        assert layer in error.value.text and "No such file" in error.value.text
        assert not glob.glob(f"{cache}/images/*") + glob.glob(f"{cache}/images/.tmp*")
        assert pod.sh("cat /l7", image="layers") == "layer 7\n"


def test_huge_file_in_a_layer(node, runtime, cloudhv):
    """Nobody writes terabytes of zeros because an image has a sparse file."""
    huge = os.path.join(layer_with(node, "www/index.html"), "huge")
    with empty_cache(cloudhv) as cache:
        with open(huge, "wb") as f:
            f.truncate(15 << 40)
        try:
            message = refusal(node, runtime)
        finally:
            os.unlink(huge)
        assert huge in message and "image_max_mb" in message
        assert not glob.glob(f"{cache}/images/*") + glob.glob(f"{cache}/images/.tmp*")


def test_cache_deleted_under_a_running_pod(node, runtime, cloudhv):
    with node.pod(runtime) as pod:
        container = pod.run_container(["sh", "-c", "echo up; sleep 2; sha256sum < /bin/busybox; ls /bin | wc -l"])
        container.wait_for_output(b"up\n")
        for path in glob.glob(f"{cloudhv.cache_dir}/**", recursive=True):
            if os.path.isfile(path):
                os.unlink(path)
        assert container.wait() == 0
        assert pod.sh("echo fine") == "fine\n"


@pytest.mark.parametrize("name", ["with/slash", "..", "n" * 1000, "ünïcödé", "a b\nc"])
def test_odd_pod_names(node, runtime, name):
    """Names go into annotations only, never into paths; containerd may refuse one, and then nothing is left."""
    try:
        with node.pod(runtime, name=name, hostname="host") as pod:
            assert pod.sh("echo fine") == "fine\n"
    except cri.CriError as error:
        assert error.text
