"""What a broker has promised, it keeps: through kill -9, on full disks and on failing ones.

The short form of what kill9.py, disk_full.py and fsync_fails.py do; nightly.sh is the long one.
"""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import disk_full
import fsync_fails
import kill9
import pytest
from faults import Missing

SECONDS_PER_TEST = 100.0


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """All waits have their own bounds; this is for a bug in one of them."""

    def too_late(*_: object) -> None:
        raise TimeoutError(f"the test took more than {SECONDS_PER_TEST} s")

    signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_TEST)
    logging.disable(logging.CRITICAL)  # pika logs that its broker has gone, which is what we do
    yield
    logging.disable(logging.NOTSET)
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_what_was_confirmed_is_there_after_kill_9(tmp_path: Path) -> None:
    assert kill9.run(rounds=5, seed=9, seconds=1.5, directory=tmp_path) == []


@pytest.mark.parametrize("case", ["full-killed", "full", "tmpfs"])
def test_a_full_disk_makes_publishers_wait_and_loses_nothing(case: str) -> None:
    try:
        assert disk_full.CASES[case]() == []
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("word", ["fsync", "write"])
def test_a_failing_disk_ends_the_broker_and_nothing_more_is_confirmed(word: str) -> None:
    try:
        assert fsync_fails.fail(word) == []
    except Missing as missing:
        pytest.skip(str(missing))
