#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The image that comes after another: the same with another version and, if there are any, other programs, signed with
a key of its own, as after a change of keys.

    make-next.py IMAGE VERSION MKFS-DIRECTORY OUTPUT-DIRECTORY [PROGRAMS]

writes OUTPUT-DIRECTORY/next.raw and next.crt, and prints IMAGE's own version. PROGRAMS is a tree whose files take the
place of those that IMAGE has there. Needs openssl, veritysetup, sfdisk, and the mkfs.erofs and fsck.erofs of
MKFS-DIRECTORY. What takes minutes, compiling and compressing well, is left to hacks/build-sysext.sh.
"""

import base64
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("variants", HERE / "make-variants.py")
variants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(variants)

NAME = "containerd-cloudhypervisor"
RELEASE = f"usr/lib/extension-release.d/extension-release.{NAME}"
SECTOR = 512
FIRST = 40  # sector of the first partition, as hacks/lib/pack-image.py has it
run = variants.run


def change_version(tree, version):
    """Gives the version that it had."""
    path = tree / RELEASE
    text, old = path.read_text(), []
    text = re.sub(r"^SYSEXT_VERSION_ID=(.*)$", lambda m: old.append(m[1]) or f"SYSEXT_VERSION_ID={version}", text,
                  flags=re.M)
    path.write_text(text)
    [old] = old
    return old.strip('"')


def replace(tree, programs):
    for source in programs.rglob("*"):
        target = tree / source.relative_to(programs)
        if source.is_file():
            assert target.exists(), f"the image has no {target.relative_to(tree)}"
            mode = target.stat().st_mode & 0o777
            target.write_bytes(source.read_bytes())
            target.chmod(mode)


def root_hash(data, tree):
    """Writes the hash tree of data, and gives the hash at its top."""
    out = run("veritysetup", "format", f"--salt={'5a' * 32}", f"--uuid={uuid.uuid5(uuid.NAMESPACE_OID, str(data))}", data,
              tree).decode()
    return re.search(r"^Root hash:\s*([0-9a-f]{64})$", out, re.M)[1]


def signature(top, work):
    key, certificate = variants.new_key(work, "next")
    der = run("openssl", "x509", "-in", certificate, "-outform", "der")
    digest = run("openssl", "dgst", "-sha256", "-hex", data=der).decode().split()[-1]
    signed = base64.b64encode(variants.sign(top, key, certificate)).decode()
    return certificate, {"rootHash": top, "signature": signed, "certificateFingerprint": digest}


def write_image(path, parts):
    """parts: (type, id, content)"""
    script, position = [f"label: gpt\nfirst-lba: {FIRST - 6}"], FIRST
    for kind, identifier, content in parts:
        size = -(-len(content) // 4096) * 4096 // SECTOR
        read_only = "" if kind == variants.SIGNATURE else ', attrs="GUID:60"'
        script.append(f"start={position}, size={size}, type={kind}, uuid={identifier}{read_only}")
        position += size
    with open(path, "wb") as file:
        file.truncate((position + FIRST) * SECTOR)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", path, data="\n".join(script).encode())
    with open(path, "r+b") as file:
        position = FIRST
        for _, _, content in parts:
            file.seek(position * SECTOR)
            file.write(content)
            position += -(-len(content) // 4096) * 4096 // SECTOR


def main():
    image, version, tools, out = sys.argv[1:5]
    out = Path(out)
    good = Path(image).read_bytes()
    start, size = variants.partitions(image)[variants.DATA]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        work = Path(name)
        old_data, tree, data, hashes = work / "old", work / "tree", work / "data", work / "hashes"
        old_data.write_bytes(good[start:start + size])
        run(f"{tools}/fsck.erofs", f"--extract={tree}", old_data)
        print(change_version(tree, version))
        for programs in sys.argv[5:]:
            replace(tree, Path(programs))
        run(f"{tools}/mkfs.erofs", "--quiet", "-zlz4", data, tree)
        top = root_hash(data, hashes)
        certificate, signed = signature(top, work)
        # The ids of data and hash tree are the halves of the hash: so systemd finds what belongs together.
        write_image(out / "next.raw", [
            (variants.DATA, uuid.UUID(top[:32]), data.read_bytes()),
            (variants.HASH, uuid.UUID(top[32:]), hashes.read_bytes()),
            (variants.SIGNATURE, uuid.uuid4(), json.dumps(signed).encode().ljust(16384, b"\0"))])
        (out / "next.crt").write_bytes(certificate.read_bytes())


if __name__ == "__main__":
    main()
