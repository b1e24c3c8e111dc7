# SPDX-License-Identifier: MIT
"""Waiting for a condition that nothing announces, with a deadline and an error that says what was missing."""

import time


class Timeout(AssertionError):
    pass


def until(what, condition, timeout=15.0, interval=0.02):
    """Returns the first true result of condition(); raises Timeout naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise Timeout(f"waited {timeout:g} s for: {what}")
        time.sleep(interval)
