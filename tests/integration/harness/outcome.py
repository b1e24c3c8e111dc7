# SPDX-License-Identifier: MIT
"""Skips are checked against tests/expected-skips: one that is not listed for this machine is a failure."""

import fnmatch
import os
import shutil

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "expected-skips")


def machine_kinds():
    """The words that describe this machine in tests/expected-skips."""
    kinds = {"any"}
    kinds.add("kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no-kvm")
    kinds.add("cgroup2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "cgroup1")
    kinds.add("go" if shutil.which("go") else "no-go")
    return kinds


def expected(path=LIST):
    """[(kind, pattern)] of the list."""
    entries = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            kind, separator, pattern = line.partition(":")
            if not separator or not pattern.strip():
                raise ValueError(f"{path}:{number}: not KIND: REASON")
            entries.append((kind.strip(), pattern.strip()))
    return entries


def unexpected(reasons, path=LIST):
    """Those of the reasons that the list does not allow on this machine."""
    kinds = machine_kinds()
    patterns = [pattern for kind, pattern in expected(path) if kind in kinds]
    return [r for r in reasons if not any(fnmatch.fnmatchcase(r, p) for p in patterns)]
