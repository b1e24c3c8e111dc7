#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a partitioned image without the gaps: systemd-repart begins its first partition at 1 MiB.

    pack-image.py IMAGE NEW-IMAGE

Partitions keep their content, identifiers and attributes, so that hash tree and signature stay valid, and lie on
multiples of 4 KiB. The same input gives the same file. Needs sfdisk.
"""

import re
import subprocess
import sys

SECTOR = 512
ALIGN = 4096 // SECTOR
TABLE = 34  # the sectors of a table of 128 entries, with those before it
BACKUP = 33


def align(sector):
    return -(-sector // ALIGN) * ALIGN


def main():
    source, target = sys.argv[1:]
    dump = subprocess.run(["sfdisk", "--dump", source], check=True, capture_output=True, text=True).stdout
    script, moves, position = [], [], align(TABLE)
    for line in dump.splitlines():
        found = re.match(r".* : start= *(\d+), size= *(\d+), (.*)", line)
        if found:
            start, size = int(found[1]), int(found[2])
            script.append(f"start={position}, size={size}, {found[3]}")
            moves.append((start, position, size))
            position = align(position + size)
        elif re.match(r"(label|label-id|unit|sector-size):", line):
            script.append(line)
    script.insert(0, f"first-lba: {TABLE}")
    end = align(position + BACKUP)
    with open(source, "rb") as old, open(target, "wb") as new:
        new.truncate(end * SECTOR)
        for start, place, size in moves:
            old.seek(start * SECTOR)
            new.seek(place * SECTOR)
            new.write(old.read(size * SECTOR))
    subprocess.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", target], check=True,
                   input="\n".join(script) + "\n", text=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
