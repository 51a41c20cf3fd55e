"""A disk that fills up under load: publishers wait, nothing is lost, and it all goes on.

    python interop/crash/disk_full.py          # a disk that pretends, and a tmpfs that does not
    python interop/crash/disk_full.py full     # one case of those below

Exit status 1, with what went wrong. `full`: every write fails, `full-low`: and the disk says that
nothing is free, `low`: it says so, but writes go well; `tmpfs`: a small one that the load fills up,
where it may be mounted. `full-killed` is killed in the middle of it.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from broker import Broker
from faults import Faults, Missing
from ledger import Ledger, Route
from link import Link
from pamqp import commands
from publishers import Pen, commit
from recovery import check_queue
from steady import SteadyConsumer, SteadyPublisher, wait_until

MIB = 1024 * 1024
KEPT, READ = "full.kept", "full.read"
STOCK, UNTOUCHED = "full.stock", "full.untouched"  # filled before; somebody has read the first
QUEUES = (KEPT, READ, STOCK, UNTOUCHED)
STOCK_MESSAGES = 300
LOAD_S = 1.5
BLOCKED_S_MAX = 6.0
FILLED_S_MAX = 30.0  # until load alone has filled a real disk
GET_S_MAX = 10.0
COMMITTED_S = 2.0  # what was on its way to the disk when it was filled has arrived after this
WHILE_FULL_S = 3.0
UNBLOCKED_S_MAX = 10.0
CONFIRMED_S_MAX = 20.0
REASON = "low on disk"


class Disk(Protocol):
    """Something that can be full.

    Attributes:
        refuses: while it is full, every write fails.
        fills_again: with the load that filled it.
        body_bytes: of the messages that load it.
        blocked_s_max: from `fill` until publishers must have been told.
    """

    refuses: bool
    fills_again: bool
    body_bytes: int
    blocked_s_max: float

    def fill(self) -> None: ...

    def free(self) -> None: ...


class ShimDisk:
    """A disk that says it is full, in these words of faults.c."""

    fills_again = False
    body_bytes = 2048
    blocked_s_max = BLOCKED_S_MAX

    def __init__(self, faults: Faults, words: list[str]) -> None:
        self._faults = faults
        self._words = words
        self.refuses = "full" in words

    def fill(self) -> None:
        self._faults.switch(*self._words)

    def free(self) -> None:
        self._faults.switch()


class SmallDisk:
    """A file system so small that the load fills it, until its ballast goes overboard."""

    refuses = False  # small batches may find room where larger ones did not
    fills_again = True
    blocked_s_max = FILLED_S_MAX

    def __init__(self, mount_point: Path, ballast_bytes: int, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self._ballast = mount_point / "ballast"
        self._ballast.write_bytes(bytes(ballast_bytes))

    def fill(self) -> None:
        """Nothing to do: it fills up."""

    def free(self) -> None:
        self._ballast.unlink()


class Scenario:
    """A broker, its disk, and clients that watch."""

    def __init__(self, broker: Broker, disk: Disk) -> None:
        self.ledger = Ledger()
        self._broker = broker
        self._disk = disk
        self._publishers: list[SteadyPublisher] = []
        self._consumers: list[SteadyConsumer] = []

    def run(self, kill_while_full: bool) -> list[str]:
        """All of it; what went wrong.

        Args:
            kill_while_full: does not wait until there is room again.
        """
        self._broker.start()
        self._prepare()
        self._load()
        time.sleep(LOAD_S)
        self._disk.fill()
        filled = time.monotonic()
        self._expect_blocked(filled)
        self._expect_deliveries()
        time.sleep(WHILE_FULL_S)
        self._expect_silence(filled, time.monotonic())
        if not kill_while_full:
            self._disk.free()
            self._expect_unblocked()
            self._expect_confirms()
        self._kill()
        if kill_while_full:
            self._disk.free()
        if not self._start_again():
            return self.ledger.violations.lines()
        for queue in QUEUES:
            check_queue(self._broker.uri, self.ledger, queue, drain=True)
        if status := self._broker.stop():
            self._violate("exit status", f"{status} after SIGTERM")
        if self._broker.bugs:
            self._violate("bug in the log", f"{self._broker.bugs}")
        return self.ledger.violations.lines()

    def _violate(self, kind: str, detail: str) -> None:
        self.ledger.violations.add(kind, detail)

    def _prepare(self) -> None:
        with Link(self._broker.uri) as link:
            link.call(commands.Tx.Select(), commands.Tx.SelectOk)
            for queue in QUEUES:
                declare = commands.Queue.Declare(queue=queue, durable=True)
                link.call(declare, commands.Queue.DeclareOk)
            for queue in (STOCK, UNTOUCHED):
                pen = Pen(self.ledger, random.Random(0), [Route("", queue, (queue,))], 1.0, 200)
                written = [pen.write_frames() for _ in range(STOCK_MESSAGES)]
                link.send(b"".join(frames for _, frames in written))
                commit(link, self.ledger, [message for message, _ in written])
            link.tell(commands.Basic.Get(queue=STOCK))
            link.close()  # which gives it back

    def _start_again(self) -> bool:
        try:
            self._broker.start()
        except RuntimeError as error:
            self._violate("no start", f"{error}")
            return False
        return True

    def _load(self) -> None:
        """Two that hear that they are blocked, one that does not, and a consumer."""
        kept, read = Route("", KEPT, (KEPT,)), Route("", READ, (READ,))
        for routes, hears_blocked in (([kept], True), ([kept, read], True), ([kept], False)):
            self._publish(routes, hears_blocked)
        self._consumers = [SteadyConsumer(self._broker.uri, self.ledger, READ)]

    def _publish(self, routes: list[Route], hears_blocked: bool) -> SteadyPublisher:
        body_bytes = self._disk.body_bytes
        publisher = SteadyPublisher(
            self._broker.uri, self.ledger, routes, body_bytes, hears_blocked
        )
        self._publishers.append(publisher)
        return publisher

    @property
    def _hearing(self) -> list[SteadyPublisher]:
        return [each for each in self._publishers if each.hears_blocked]

    def _expect_blocked(self, filled: float) -> None:
        bound = self._disk.blocked_s_max
        if not wait_until(lambda: all(each.waits for each in self._hearing), bound):
            self._violate("not blocked", f"{bound} s after the disk was full")
        # One that comes later is blocked as well, once it publishes.
        late = self._publish([Route("", KEPT, (KEPT,))], hears_blocked=True)
        if not wait_until(lambda: late.waits, BLOCKED_S_MAX):
            self._violate("not blocked", "a publisher that connected while the disk was full")
        print(f"blocked after {time.monotonic() - filled:.1f} s", flush=True)
        for each in self._hearing:
            if REASON not in (each.link.blocked or REASON):
                self._violate("another reason", f"{each.link.blocked}")
        for each in (*self._consumers, self._publishers[2]):
            if each.link.times_blocked:
                self._violate("blocked", "one that does not publish, or could not have understood")

    def _expect_deliveries(self) -> None:
        """What was in a queue goes on to whoever comes."""
        known, new = (
            SteadyConsumer(self._broker.uri, self.ledger, queue) for queue in (STOCK, UNTOUCHED)
        )
        self._consumers += [known, new]
        if not wait_until(lambda: known.received == STOCK_MESSAGES, GET_S_MAX):
            detail = f"{known.received} of {STOCK_MESSAGES} within {GET_S_MAX} s"
            self._violate("no deliveries while the disk is full", detail)
        # amqpd marks a queue in its file before it delivers from it for the first time.
        print(f"{new.received} of {STOCK_MESSAGES} from a queue that nobody had read", flush=True)

    def _expect_silence(self, filled: float, now: float) -> None:
        """No confirm of what cannot be on the disk."""
        if not self._disk.refuses:
            return
        for each in self._publishers:
            if wrong := each.confirmed_since(filled):
                self._violate("confirmed while the disk was full", f"{len(wrong)}, {wrong[0].key}")
            if number := each.heard_between(filled + COMMITTED_S, now):
                self._violate("confirms long after the disk was full", f"{number}")

    def _expect_unblocked(self) -> None:
        freed = time.monotonic()
        if not wait_until(lambda: not any(each.waits for each in self._hearing), UNBLOCKED_S_MAX):
            self._violate("not unblocked", f"{UNBLOCKED_S_MAX} s after there was room")
        print(f"unblocked after {time.monotonic() - freed:.1f} s", flush=True)

    def _expect_confirms(self) -> None:
        """All that is outstanding, and then all that is new."""
        for each in self._publishers:
            each.pausing.set()
        done = wait_until(
            lambda: not any(each.confirms.waiting for each in self._publishers), CONFIRMED_S_MAX
        )
        if not done:
            missing = [len(each.confirms.waiting) for each in self._publishers]
            self._violate("unconfirmed", f"{missing} publishes, {CONFIRMED_S_MAX} s after room")
        if self._disk.fills_again:
            return
        resumed = time.monotonic()
        for each in self._publishers:
            each.pausing.clear()
        if not wait_until(
            lambda: all(each.confirmed_since(resumed) for each in self._publishers), CONFIRMED_S_MAX
        ):
            self._violate("does not go on", f"no confirms {CONFIRMED_S_MAX} s later")

    def _kill(self) -> None:
        for each in (*self._publishers, *self._consumers):
            if each.end is not None:
                self._violate("connection lost", f"{each.end!r}")
        self.ledger.ending.set()
        self._broker.kill()
        for each in (*self._publishers, *self._consumers):
            each.stop()


@contextmanager
def tmpfs(directory: Path, size_bytes: int) -> Iterator[Path]:
    """A small file system of its own; `Missing` where one may not mount."""
    point = directory / "tmpfs"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "amqpd-crash", str(point)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        raise Missing("a tmpfs cannot be mounted")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def on_shim(words: list[str], kill_while_full: bool) -> list[str]:
    """The scenario on a disk that pretends."""
    with tempfile.TemporaryDirectory(prefix="amqpd-crash-") as name:
        data_dir = Path(name) / "data"
        faults = Faults(Path(name), data_dir)
        with Broker(data_dir, faults.environment) as broker:
            return Scenario(broker, ShimDisk(faults, words)).run(kill_while_full)


def on_tmpfs(size_bytes: int, ballast_bytes: int, body_bytes: int) -> list[str]:
    """The scenario on a disk that is really full."""
    # No alarm before it is: else it would be on from the start.
    environment = {"AMQPD_ALARMS__DISK_FREE_BYTES_MIN": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="amqpd-crash-") as name,
        tmpfs(Path(name), size_bytes) as point,
        Broker(point / "data", environment) as broker,
    ):
        disk = SmallDisk(point, ballast_bytes, body_bytes)
        return Scenario(broker, disk).run(kill_while_full=False)


CASES = {
    "full-killed": lambda: on_shim(["full"], kill_while_full=True),
    "full": lambda: on_shim(["full"], kill_while_full=False),
    "full-low": lambda: on_shim(["full", "low"], kill_while_full=False),
    "low": lambda: on_shim(["low"], kill_while_full=False),
    # Room for the WAL, which has 16 MiB and more, and for as much again when it is copied.
    "tmpfs": lambda: on_tmpfs(96 * MIB, 48 * MIB, 16_384),
}
# Not among those that are tried without being asked for: a broker that starts copies its WAL, and
# does not start where there is no room for that, although it would have gone on with what there is.
TIGHT = {"tmpfs-tight": lambda: on_tmpfs(8 * MIB, 3 * MIB, 2048)}


def main() -> int:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left behind
    failed = False
    for case in sys.argv[1:] or CASES:
        print(f"== {case}", flush=True)
        try:
            wrong = (CASES | TIGHT)[case]()
        except Missing as missing:
            print(f"skipped: {missing}")
            continue
        print("\n".join(wrong) or "passed", flush=True)
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
