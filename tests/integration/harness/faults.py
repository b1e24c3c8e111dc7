# SPDX-License-Identifier: MIT
"""A program that stops itself at a trace point: what a test does meanwhile."""

import os
import signal

from . import proc


def stopped_processes(node, cloudhv):
    own = node.processes() | ({cloudhv.daemon_pid} - {None})
    return [pid for pid in own if proc.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] == [b"T"]]


def kill_vmms_while_stopped(node, cloudhv, program, done):
    """Until `done`: kills all VMMs whenever the program stops itself, and lets it go on."""
    while not done.wait(0.05):
        for pid in stopped_processes(node, cloudhv):
            if os.path.basename(proc.exe(pid)) == program:
                for vmm in cloudhv.vmms():
                    os.kill(vmm, signal.SIGKILL)
                os.kill(pid, signal.SIGCONT)
