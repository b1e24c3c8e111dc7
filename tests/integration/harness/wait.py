# SPDX-License-Identifier: MIT
"""Waiting for a condition that nothing announces, with a deadline and an error that says what was missing."""

import os
import time

PATIENCE_MAX = 10


def patience():
    """By how much a deadline grows on a machine that has more to do than it can."""
    return min(1 + os.getloadavg()[0] / os.cpu_count(), PATIENCE_MAX)


class Timeout(AssertionError):
    pass


def for_a_while(condition, timeout, interval=0.02):
    """Until condition() is true, or the time is over."""
    end = time.monotonic() + timeout * patience()
    while not condition() and time.monotonic() < end:
        time.sleep(interval)


def until(what, condition, timeout=15.0, interval=0.02):
    """Returns the first true result of condition(); raises Timeout naming `what` after `timeout` seconds of an idle
    machine."""
    timeout *= patience()
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise Timeout(f"waited {timeout:g} s for: {what}")
        time.sleep(interval)
