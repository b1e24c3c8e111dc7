# SPDX-License-Identifier: MIT
"""The test images, assembled when a run starts from Debian's static busybox and our two small C programs."""

import os
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "..", "programs")
BUSYBOX = "/bin/busybox"

sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "hacks", "lib"))
from oci_image import Layer, write_archive  # noqa: E402 (found by the path above)


def compile_program(name, out_dir, compiler):
    """Compiles programs/NAME.c as a static binary and returns its content."""
    out = os.path.join(out_dir, name)
    subprocess.run([*compiler.split(), "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-static", "-s", "-o", out,
                    os.path.join(PROGRAMS, f"{name}.c")], check=True)
    with open(out, "rb") as f:
        return f.read()


def base_layer(probe, busybox):
    """A root file system with busybox under all its names, a few users, and the probe."""
    layer = Layer()
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var", "var/log", "www"):
        layer.directory(name)
    layer.directory("tmp", 0o1777)
    with open(busybox, "rb") as f:
        layer.file("bin/busybox", f.read(), 0o755)
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            layer.symlink(f"bin/{applet}", "busybox")
    layer.file("bin/probe", probe, 0o755)
    layer.file("bin/probe-setuid", probe, 0o4755)
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n"
                             "bob:x:1001:1001::/home:/bin/sh\n")
    layer.file("etc/group", "root:x:0:\nalice:x:1000:\nbob:x:1001:\nstaff:x:50:alice\nshared:x:50000:alice\n")
    layer.file("etc/resolv.conf", "nameserver 192.0.2.99\n")
    layer.file("etc/hostname", "from-the-image\n")
    layer.file("www/index.html", "hello from the pod\n")
    return layer.bytes()


def config(**more):
    return {"Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"], "WorkingDir": "/", **more}


def small_layer(marker):
    return Layer().file("marker", f"{marker}\n").bytes()


def odd_layer():
    """Names, types and modes that are rare but valid; a conversion that skips or fails on one of them shows."""
    layer = Layer()
    layer.directory("odd").directory("odd/" + "d" * 200).directory("odd/unreadable", 0)
    layer.file("odd/unreadable/file", "secret\n", 0)
    layer.file("odd/" + "n" * 255, "long name\n")
    layer.file("odd/white space and \"quotes\"", "spaces\n")
    layer.file("odd/new\nline", "newline\n")
    layer.file("odd/ünïcödé", "utf-8\n")
    layer.file("odd/empty", b"")
    layer.file("odd/setuid", "x\n", 0o4755, 1000, 1000)
    layer.file("odd/many-owners", "x\n", 0o640, 4000000, 3000000)
    layer.symlink("odd/dangling", "/nonexistent/" + "x" * 900).symlink("odd/absolute", "/odd/empty")
    layer.hardlink("odd/hard", "odd/empty")
    layer.entry("odd/fifo", tarfile.FIFOTYPE, 0o600)
    layer.entry("odd/null", tarfile.CHRTYPE, 0o666, device=(1, 3))
    layer.file("odd/removed", "gone\n")
    layer.file("odd/page", b"p" * 4096).file("odd/page-and-one", b"q" * 4097)
    return layer.bytes()


def whiteout_layer():
    return Layer().whiteout("odd/removed").file("odd/added", "added\n").bytes()


def opaque_layers():
    """A directory whose lower content a higher layer hides as a whole."""
    lower = Layer().directory("opaque").file("opaque/old", "old\n").bytes()
    upper = Layer().directory("opaque").file("opaque/.wh..wh..opq", b"").file("opaque/new", "new\n").bytes()
    return [lower, upper]


def assemble(out_dir, pause_reference, compiler, busybox):
    """Writes all archives; returns {short name: (reference, path)}. `compiler` and `busybox` are for the architecture
    of the guest, of which the archives say that it is this machine's, or containerd would not take them."""
    base = base_layer(compile_program("probe", out_dir, compiler), busybox)
    pause = Layer().file("pause", compile_program("pause", out_dir, compiler), 0o755).bytes()
    images = {}

    def add(name, layers, image_config, reference=None):
        reference = reference or f"test.invalid/{name}:latest"
        path = os.path.join(out_dir, f"{name}.tar")
        write_archive(path, reference, layers, image_config)
        images[name] = (reference, path)

    add("pause", [pause], {"Entrypoint": ["/pause"]}, pause_reference)
    add("busybox", [base], config())
    add("volume", [base, Layer().directory("data", 0o750, 1000, 1000).file("data/seed", "from the image\n").bytes()],
        config(Volumes={"/data": {}, "/made": {}}))
    add("user", [base], config(User="alice"))
    add("user-numeric", [base], config(User="1001:50"))
    add("workdir", [base], config(WorkingDir="/var/log", Entrypoint=["/bin/sh", "-c"], Cmd=["pwd; echo $FROM_IMAGE"]))
    add("odd", [base, odd_layer(), whiteout_layer()] + opaque_layers(), config())
    add("layers", [base] + [Layer().file(f"l{i}", f"layer {i}\n").bytes() for i in range(25)], config())
    add("one", [base, small_layer("one")], config(), "test.invalid/moving:latest")
    add("two", [base, small_layer("two")], config(), "test.invalid/moving:latest")
    return images
