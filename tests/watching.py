"""Watches the log for what must never be in it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Bugs(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "internal error" or record.msg.startswith("messages are damaged"):
            self.found.append(record)


@contextmanager
def no_internal_error() -> Iterator[None]:
    """Fails if the broker meets an internal error (541) or misses messages.

    That is a bug, whatever a client has sent.
    """
    bugs = _Bugs()
    log = logging.getLogger("amqpd")
    log.addHandler(bugs)
    try:
        yield
    finally:
        log.removeHandler(bugs)
    assert not bugs.found, logging.Formatter().format(bugs.found[0])
