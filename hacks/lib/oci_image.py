# SPDX-License-Identifier: MIT
"""Assembles OCI images: layers from directories or by hand, and an image layout as one tar archive.

The same input gives the same archive: entries are sorted, owned by root, and carry no time.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile

ARCHITECTURE = os.environ.get("CLOUDHV_ARCH") or platform.machine()
ARCHITECTURE = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}.get(ARCHITECTURE, ARCHITECTURE)


class Layer:
    """A layer: a tar stream in memory. Names have no leading slash, as in images."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def entry(self, name, kind, mode, uid=0, gid=0, data=b"", link="", device=None):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, uid, gid, link
        info.size = len(data)
        if device:
            info.devmajor, info.devminor = device
        self.tar.addfile(info, io.BytesIO(data) if data else None)
        return self

    def directory(self, name, mode=0o755, uid=0, gid=0):
        return self.entry(name, tarfile.DIRTYPE, mode, uid, gid)

    def file(self, name, data, mode=0o644, uid=0, gid=0):
        return self.entry(name, tarfile.REGTYPE, mode, uid, gid, data if isinstance(data, bytes) else data.encode())

    def symlink(self, name, target):
        return self.entry(name, tarfile.SYMTYPE, 0o777, link=target)

    def hardlink(self, name, target):
        return self.entry(name, tarfile.LNKTYPE, 0o644, link=target)

    def whiteout(self, name):
        head, _, tail = name.rpartition("/")
        return self.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}", b"", 0o644)

    def tree(self, root):
        """Adds what is below the directory `root`."""
        for directory, names, files in os.walk(root):
            names.sort()
            for name in sorted(names + files):
                path = os.path.join(directory, name)
                target = os.path.relpath(path, root)
                mode = os.lstat(path).st_mode & 0o7777
                if os.path.islink(path):
                    self.symlink(target, os.readlink(path))
                elif os.path.isdir(path):
                    self.directory(target, mode)
                else:
                    with open(path, "rb") as f:
                        self.file(target, f.read(), mode)
        return self

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def write_archive(path, reference, layers, config):
    """Writes an image named `reference`. `layers` are tar streams, `config` is the runtime part of the image
    (Entrypoint, Cmd, Env, WorkingDir, User, Volumes ...)."""
    blobs = {}

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    descriptors = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    **blob(gzip.compress(layer, compresslevel=1, mtime=0))} for layer in layers]
    image = {"architecture": ARCHITECTURE, "os": "linux", "config": config, "rootfs": {
        "type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(json.dumps(image).encode())},
                "layers": descriptors}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": manifest["mediaType"], **blob(json.dumps(manifest).encode()),
         "platform": {"architecture": ARCHITECTURE, "os": "linux"},
         "annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}}]}
    out = Layer()
    out.file("oci-layout", '{"imageLayoutVersion":"1.0.0"}')
    out.file("index.json", json.dumps(index))
    out.directory("blobs").directory("blobs/sha256")
    for digest, data in blobs.items():
        out.file(f"blobs/sha256/{digest}", data)
    with open(path, "wb") as f:
        f.write(out.bytes())
