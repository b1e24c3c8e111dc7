# SPDX-License-Identifier: MIT
"""The steps that our programs name: strings in the ELF section cloudhv_trace."""

import subprocess
import tempfile


def of(binary):
    """Names of the trace points of a program, sorted; empty where it has none."""
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(["objcopy", "-O", "binary", "--only-section=cloudhv_trace",
                               "--set-section-flags", "cloudhv_trace=alloc,load", binary, out.name],
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"objcopy: {done.stderr}")
        data = out.read()
    return sorted({name.decode() for name in data.split(b"\0") if name})


def can_inject(binary):
    """Was the program built with fault injection?"""
    with open(binary, "rb") as f:
        return b"CLOUDHV_FAULT_POINT" in f.read()
