#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What Ignition's files stage would write, as a tree: reads its JSON and nothing else.

    apply-ignition.py JSON IMAGE DIRECTORY

A file that is to be fetched from a network is IMAGE, and must have the hash that the JSON demands. Units to be enabled
are listed in DIRECTORY.enable. What this does not know is an error.
"""

import base64
import gzip
import hashlib
import json
import os
import sys
import urllib.parse
from pathlib import Path


def only(entry, *known):
    unknown = set(entry) - set(known)
    if unknown:
        raise ValueError(f"fields that this script does not know: {sorted(unknown)} in {entry}")


def content(entry, image):
    only(entry, "source", "compression", "verification")
    source = entry.get("source") or "data:,"
    if source.startswith("data:"):
        kind, _, data = source[5:].partition(",")
        value = base64.b64decode(data) if kind.endswith(";base64") else urllib.parse.unquote_to_bytes(data)
        if entry.get("compression") == "gzip":
            value = gzip.decompress(value)
    else:
        value = image.read_bytes()
        if "verification" not in entry:
            raise ValueError(f"{source} is fetched without a hash")
    if "verification" in entry:
        name, _, wanted = entry["verification"]["hash"].partition("-")
        if hashlib.new(name, value).hexdigest() != wanted:
            raise ValueError(f"{source} has another hash than {wanted}")
    return value


def place(root, path):
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def apply_storage(storage, image, root):
    only(storage, "directories", "files", "links")
    for entry in storage.get("directories", []):
        only(entry, "path", "mode", "overwrite")
        target = place(root, entry["path"])
        target.mkdir(exist_ok=True)
        target.chmod(entry.get("mode", 0o755))
    for entry in storage.get("files", []):
        only(entry, "path", "mode", "contents", "overwrite")
        target = place(root, entry["path"])
        target.write_bytes(content(entry.get("contents", {}), image))
        target.chmod(entry.get("mode", 0o644))
    for entry in storage.get("links", []):
        only(entry, "path", "target", "hard", "overwrite")
        if entry.get("hard"):
            raise ValueError("hard links are not made")
        os.symlink(entry["target"], place(root, entry["path"]))


def apply_units(units, root):
    """The names of those that are to be enabled."""
    enabled = []
    for unit in units:
        only(unit, "name", "enabled", "contents", "dropins")
        if "contents" in unit:
            place(root, f"/etc/systemd/system/{unit['name']}").write_text(unit["contents"])
        for dropin in unit.get("dropins", []):
            place(root, f"/etc/systemd/system/{unit['name']}.d/{dropin['name']}").write_text(dropin["contents"])
        if unit.get("enabled"):
            enabled.append(unit["name"])
    return enabled


def main():
    configuration = json.loads(Path(sys.argv[1]).read_text())
    image, root = Path(sys.argv[2]), Path(sys.argv[3])
    only(configuration, "ignition", "storage", "systemd")
    root.mkdir()
    apply_storage(configuration.get("storage", {}), image, root)
    enabled = apply_units(configuration.get("systemd", {}).get("units", []), root)
    Path(f"{root}.enable").write_text("".join(f"{name}\n" for name in enabled))


if __name__ == "__main__":
    main()
