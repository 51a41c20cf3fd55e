"""Waiting on conditions, never on the clock alone."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str, within: float = 10.0) -> None:
    """Returns as soon as `condition()` is true; TimeoutError after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within} s: {what}")
        time.sleep(0.01)
