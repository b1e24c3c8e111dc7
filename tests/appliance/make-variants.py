#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images that a strict host must refuse, made of a good one, as small patches.

    make-variants.py IMAGE DIRECTORY

writes DIRECTORY/NAME.patch for each: lines "OFFSET HEX-BYTES", for guest/lib.sh to apply to a copy. Needs openssl.
"""

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
HASH = "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"
SIGNATURE = "41092B05-9FC8-4523-994F-2DEF0408B176"


def run(*command, data=None):
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def partitions(image):
    table = json.loads(run("sfdisk", "-J", image))["partitiontable"]["partitions"]
    return {p["type"]: (p["start"] * 512, p["size"] * 512) for p in table}


def flip(content, offset):
    content[offset] ^= 0x40


def new_key(directory, name):
    key, certificate = Path(directory) / f"{name}.key", Path(directory) / f"{name}.crt"
    run("openssl", "req", "-new", "-x509", "-newkey", "rsa:3072", "-sha256", "-nodes", "-subj", f"/CN={name}/",
        "-keyout", key, "-out", certificate)
    return key, certificate


def expire(key, certificate):
    """The same certificate, with the present second as its end."""
    request = run("openssl", "x509", "-x509toreq", "-in", certificate, "-signkey", key)
    certificate.write_bytes(run("openssl", "x509", "-req", "-signkey", key, "-days", "0", data=request))


def sign(root_hash, key, certificate):
    return run("openssl", "smime", "-sign", "-binary", "-nocerts", "-noattr", "-outform", "der", "-inkey", key,
               "-signer", certificate, data=root_hash.encode())


def write_signature(content, where, value):
    start, size = where
    text = json.dumps(value).encode()
    content[start:start + size] = text.ljust(size, b"\0")


def read_signature(content, where):
    start, size = where
    return json.loads(bytes(content[start:start + size]).rstrip(b"\0"))


def without_partition(image, content, number):
    """The same with a partition less; the table's checksums are right."""
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(content)
        copy.flush()
        run("sfdisk", "--delete", copy.name, str(number))
        return bytearray(Path(copy.name).read_bytes())


def write_patch(path, old, new):
    """Runs of bytes that differ; runs that are near each other are joined."""
    assert len(old) == len(new)
    runs, position = [], 0
    for start in range(0, len(old), 4096):
        if old[start:start + 4096] != new[start:start + 4096]:
            runs.append((start, new[start:start + 4096]))
    assert runs, f"{path} changes nothing"
    path.write_text("".join(f"{start} {bytes(part).hex()}\n" for start, part in runs))


def variants(image, directory):
    good = bytearray(Path(image).read_bytes())
    where = partitions(image)
    signature = read_signature(good, where[SIGNATURE])
    der = bytearray(base64.b64decode(signature["signature"]))

    changed = bytearray(good)
    flip(changed, where[DATA][0] + 1024 + 24)  # erofs' superblock
    yield "data-superblock", changed
    changed = bytearray(good)
    flip(changed, where[HASH][0] + 4096 + 8)  # the topmost level of the tree
    yield "hash-tree", changed
    changed = bytearray(good)
    broken = bytearray(der)
    flip(broken, len(broken) - 8)  # within the RSA signature, which is last
    write_signature(changed, where[SIGNATURE], {**signature, "signature": base64.b64encode(broken).decode()})
    yield "signature", changed
    changed = bytearray(good)
    other = ("0" if signature["rootHash"][0] != "0" else "1") + signature["rootHash"][1:]
    write_signature(changed, where[SIGNATURE], {**signature, "rootHash": other})
    yield "root-hash", changed
    yield "unsigned", without_partition(image, good, 3)
    yield "no-verity", without_partition(image, without_partition(image, good, 3), 2)
    with tempfile.TemporaryDirectory() as keys:
        for name in ("other", "expired"):
            key, certificate = new_key(keys, name)
            if name == "expired":
                expire(key, certificate)
            changed = bytearray(good)
            write_signature(changed, where[SIGNATURE], {
                **signature, "signature": base64.b64encode(sign(signature["rootHash"], key, certificate)).decode()})
            yield f"{name}-key", changed
            (directory / f"{name}.crt").write_bytes(certificate.read_bytes())
    # Far into the data: found only when it is read.
    changed = bytearray(good)
    flip(changed, where[DATA][0] + where[DATA][1] // 2)
    yield "data-later", changed


def main():
    image, directory = sys.argv[1], Path(sys.argv[2])
    good = Path(image).read_bytes()
    for name, changed in variants(image, directory):
        write_patch(directory / f"{name}.patch", good, bytes(changed))


if __name__ == "__main__":
    main()
