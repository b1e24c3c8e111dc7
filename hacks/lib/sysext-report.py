#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is in a built system extension: a manifest, an SPDX document and the list of corresponding sources.

    sysext-report.py --image IMAGE --facts DIRECTORY --version V --epoch SECONDS
                     --fsck PROGRAM --output PREFIX
    sysext-report.py --compare OLD-MANIFEST NEW-MANIFEST     exit status 1 where package sets differ

DIRECTORY is what hacks/lib/sysext-tree.sh left. The same input gives the same files.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT_TYPES = ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE")


def partitions(image):
    table = json.loads(subprocess.run(["sfdisk", "-J", image], check=True, capture_output=True).stdout)
    return table["partitiontable"]["partitions"]


def read_files(image, fsck, directory):
    """Path, size, and checksums of every file in the image."""
    data = next(p for p in partitions(image) if p["type"] in ROOT_TYPES)
    part = Path(directory) / "data"
    with open(image, "rb") as source, open(part, "wb") as target:
        source.seek(data["start"] * 512)
        target.write(source.read(data["size"] * 512))
    root = Path(directory) / "root"
    subprocess.run([fsck, f"--extract={root}", part], check=True, capture_output=True)
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found.append({"path": name, "link": os.readlink(path)})
        elif path.is_file():
            content = path.read_bytes()
            found.append({"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
                          "sha1": hashlib.sha1(content).hexdigest()})
    return found


def read_components(facts):
    names = ("files", "package", "version", "licence", "source", "source_version", "suite")
    lines = (facts / "components.tsv").read_text().splitlines()
    return [dict(zip(names, line.split("\t"))) for line in lines]


def owners(path, components):
    """The components a file is made of; what no more special pattern names is the project's own."""
    found = [c for c in components if c["files"] != "usr/*" and fnmatch.fnmatch(path, c["files"])]
    return found or [c for c in components if c["files"] == "usr/*"]


def by_part(files):
    parts = {}
    for file in files:
        words = file["path"].split("/")
        depth = 4 if words[:3] in (["usr", "share", "cloudhv"], ["usr", "lib", "cloudhv"]) else 3
        part = "/".join(words[:depth])
        parts[part] = parts.get(part, 0) + file.get("size", 0)
    return parts


def manifest(arguments, files, components):
    packages = {kind: [dict(zip(("name", "version", "architecture"), line.split()))
                       for line in (arguments.facts / f"{kind}-packages").read_text().splitlines()]
                for kind in ("build", "tools")}
    return {
        "image": Path(arguments.image).name,
        "version": arguments.version,
        "sha256": hashlib.sha256(Path(arguments.image).read_bytes()).hexdigest(),
        "size": os.path.getsize(arguments.image),
        "source_date_epoch": arguments.epoch,
        "bytes_by_part": by_part(files),
        "files": [{k: v for k, v in f.items() if k != "sha1"} for f in files],
        "components": components,
        "build_packages": packages["build"],
        "tools_packages": packages["tools"],
    }


def spdx_id(*words):
    return "SPDXRef-" + "-".join("".join(c if c.isalnum() or c == "." else "-" for c in w) for w in words)


def spdx(arguments, files, components):
    """SPDX 2.3: a package for the image and for each component, and which files each is in."""
    image_sum = hashlib.sha256(Path(arguments.image).read_bytes()).hexdigest()
    created = datetime.fromtimestamp(arguments.epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    image = {
        "SPDXID": spdx_id("Image"), "name": Path(arguments.image).stem, "versionInfo": arguments.version,
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION", "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": image_sum}],
    }
    packages, relations = {}, [("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"])]
    for component in components:
        identifier = spdx_id("Package", component["package"])
        if identifier in packages:
            continue
        packages[identifier] = {
            "SPDXID": identifier, "name": component["package"], "versionInfo": component["version"],
            "supplier": "Organization: Debian" if component["suite"] else "NOASSERTION",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "NOASSERTION",
            "licenseDeclared": component["licence"], "copyrightText": "NOASSERTION",
            "sourceInfo": f"{component['source']} {component['source_version']} {component['suite']}".strip(),
        }
        if component["suite"]:
            packages[identifier]["externalRefs"] = [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": f"pkg:deb/debian/{component['source']}@{component['source_version']}?arch=source",
            }]
        relations.append((image["SPDXID"], "CONTAINS", identifier))
    entries = []
    for number, file in enumerate(f for f in files if "link" not in f):
        identifier = f"SPDXRef-File-{number}"
        entries.append({
            "SPDXID": identifier, "fileName": "./" + file["path"], "copyrightText": "NOASSERTION",
            "licenseConcluded": "NOASSERTION",
            "checksums": [{"algorithm": "SHA1", "checksumValue": file["sha1"]},
                          {"algorithm": "SHA256", "checksumValue": file["sha256"]}],
        })
        relations.append((image["SPDXID"], "CONTAINS", identifier))
        for owner in owners(file["path"], components):
            relations.append((identifier, "GENERATED_FROM", spdx_id("Package", owner["package"])))
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{image['name']}-{arguments.version}",
        "documentNamespace": "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_OID, image_sum)),
        "creationInfo": {"created": created, "creators": ["Tool: cloudhv sysext-report"]},
        "packages": [image, *packages.values()], "files": entries,
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
                          for a, kind, b in dict.fromkeys(relations)],
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def report(arguments):
    components = read_components(arguments.facts)
    with tempfile.TemporaryDirectory() as directory:
        files = read_files(arguments.image, arguments.fsck, directory)
    write_json(Path(f"{arguments.output}.manifest.json"), manifest(arguments, files, components))
    write_json(Path(f"{arguments.output}.spdx.json"), spdx(arguments, files, components))
    Path(f"{arguments.output}.sources").write_text(
        "Corresponding sources of what the image holds in binary form: Debian source packages, with the files that\n"
        "make each up and their checksums. guest/kernel/ and hacks/ of this repository are the scripts that control\n"
        "compilation.\n\n" + (arguments.facts / "sources").read_text())
    parts = sorted(by_part(files).items(), key=lambda item: -item[1])
    for part, size in parts[:12]:
        print(f"{size:10} {part}")


def package_set(path):
    content = json.loads(Path(path).read_text())
    found = {(kind, p["name"], p["architecture"]): p["version"]
             for kind in ("build", "tools") for p in content[f"{kind}_packages"]}
    found.update({("image", c["package"], ""): c["version"] for c in content["components"] if c["suite"]})
    return found


def compare(old_path, new_path):
    old, new = package_set(old_path), package_set(new_path)
    different = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    for key in different:
        print(f"{key[0]} package {key[1]}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}")
    return 1 if different else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", nargs=2)
    parser.add_argument("--image")
    parser.add_argument("--facts", type=Path)
    parser.add_argument("--fsck", default="fsck.erofs", help="fsck.erofs 1.8 or later")
    parser.add_argument("--version")
    parser.add_argument("--epoch", type=int)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    if arguments.compare:
        return compare(*arguments.compare)
    report(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
