# SPDX-License-Identifier: MIT
"""The steps that our programs name: strings in the ELF section cloudhv_trace."""

import subprocess
import tempfile

from . import cloudhv


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


def of_program(bin_dir, which):
    """Those of the shim ("shim") or the daemon ("daemon") that are named after it: the shim holds the daemon's code
    too. Empty where there is no such program."""
    try:
        path = cloudhv.find_program(bin_dir, {"shim": cloudhv.SHIM, "daemon": cloudhv.DAEMON}[which])
        return [name for name in of(path) if name.startswith(f"{which}.")]
    except RuntimeError:
        return []


def is_of_clones(point):
    """A step of the daemon's that only VMs from templates take."""
    return point.split(".")[1] in ("assign", "clone", "pool", "prepare", "template")


def can_inject(binary):
    """Was the program built with fault injection?"""
    with open(binary, "rb") as f:
        return b"CLOUDHV_FAULT_POINT" in f.read()
