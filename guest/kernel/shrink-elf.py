#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rewrites a linked vmlinux so that it holds only what a PVH boot loads.

The linker aligns segments to 2 MiB in the file and fills gaps with padding; section headers and symbols are of no
use to a VMM. The result has segments aligned to 4 KiB, no sections, and no long runs of padding: a PT_LOAD with such
a run is split in two, since what no segment covers is not in the file. A gap would be zero in the guest where it was
0xCC before: only padding between functions, never executed.
"""

import struct
import sys

PT_LOAD, PT_NOTE = 1, 4
PAGE = 4096
LONGEST_RUN = 64 * 1024
ELF = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")


def runs_of_padding(data):
    """Yields (start, end), page-aligned, of runs of pages that hold only 0x00 or only 0xCC."""
    start = None
    kinds = (bytes(PAGE), b"\xcc" * PAGE)
    for offset in range(0, len(data) + PAGE, PAGE):
        page = data[offset:offset + PAGE]
        if len(page) == PAGE and page in kinds:
            start = offset if start is None else start
            continue
        if start is not None and offset - start >= LONGEST_RUN:
            yield start, offset
        start = None


def split(segment, data):
    """A segment as (flags, vaddr, paddr, bytes, memory size) pieces, padding left out."""
    _, flags, _, vaddr, paddr, _, memsz, _ = segment
    position = 0
    for start, end in list(runs_of_padding(data)) + [(len(data), len(data))]:
        piece = data[position:start]
        last = start == len(data)
        if piece or last:
            size = memsz - position if last else len(piece)
            if size:
                yield flags, vaddr + position, paddr + position, piece, size
        position = end


def main(source, target):
    with open(source, "rb") as f:
        image = f.read()
    header = list(ELF.unpack_from(image))
    if header[0][:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{source}: not a little-endian 64-bit ELF file")
    programs = [PROGRAM.unpack_from(image, header[5] + i * header[9]) for i in range(header[10])]
    loads, notes = [], []
    for p in programs:
        data = image[p[2]:p[2] + p[5]]
        if p[0] == PT_LOAD:
            loads.extend(split(p, data))
        elif p[0] == PT_NOTE:
            notes.append((p, data))
    count = len(loads) + len(notes)
    offset = -(-(ELF.size + count * PROGRAM.size) // 8) * 8
    table, body = [], bytearray()
    for p, data in notes:
        table.append(PROGRAM.pack(PT_NOTE, p[1], offset + len(body), p[3], p[4], len(data), len(data), 4))
        body += data
    for flags, vaddr, paddr, data, size in loads:
        at = offset + len(body)
        body += bytes((paddr - at) % PAGE)  # the file offset and the address agree modulo the page size
        table.append(PROGRAM.pack(PT_LOAD, flags, offset + len(body), vaddr, paddr, len(data), size, PAGE))
        body += data
    header[5], header[6] = ELF.size, 0  # program headers follow; no section headers
    header[10], header[11], header[12], header[13] = count, 0, 0, 0
    with open(target, "wb") as f:
        head = ELF.pack(*header) + b"".join(table)
        f.write(head + bytes(offset - len(head)) + body)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: shrink-elf.py VMLINUX OUTPUT")
    main(sys.argv[1], sys.argv[2])
