"""A disk that does not keep what it is given: the broker must confirm nothing more, and end.

    python interop/crash/fsync_fails.py          # fsync, then write
    python interop/crash/fsync_fails.py fsync

Exit status 1, with what went wrong. What had been confirmed before must be there when it starts
again on a disk that works.
"""

import logging
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from broker import Broker
from faults import Faults, Missing
from ledger import Ledger, Route
from link import Closed, Link
from pamqp import commands
from recovery import check_queue
from steady import JOIN_S, SteadyConsumer, SteadyPublisher

QUEUES = ("fails.kept", "fails.read")
LOAD_S = 1.5
END_S_MAX = 10.0
DECLARE_S = 3.0
# What a person would look for in the log.
SAID = re.compile(r"disk|I/O|storage|store", re.IGNORECASE)


class Scenario:
    """A broker whose disk fails, and what its clients hear of it."""

    def __init__(self, broker: Broker, faults: Faults) -> None:
        self.ledger = Ledger()
        self._broker = broker
        self._faults = faults

    def run(self, word: str) -> list[str]:
        """All of it; what went wrong."""
        broker, ledger = self._broker, self.ledger
        broker.start()
        with Link(broker.uri) as link:
            for queue in QUEUES:
                link.call(
                    commands.Queue.Declare(queue=queue, durable=True), commands.Queue.DeclareOk
                )
            routes = [Route("", queue, (queue,)) for queue in QUEUES]
            publishers = [SteadyPublisher(broker.uri, ledger, routes) for _ in range(3)]
            consumer = SteadyConsumer(broker.uri, ledger, QUEUES[1])
            time.sleep(LOAD_S)
            self._faults.switch(word)
            failing = time.monotonic()
            self._expect_no_declare(link)
        self._expect_end(failing)
        for each in (*publishers, consumer):
            each.join(JOIN_S)
            if each.is_alive():
                self._violate("a client hangs", "its broker is gone")
                each.stop()
        for each in publishers:
            if wrong := each.confirmed_since(failing):
                self._violate("confirmed by a failing disk", f"{len(wrong)}, {wrong[0].key}")
        confirmed = sum(len(each.confirmed) for each in publishers)
        print(f"{confirmed} confirmed; the end of its log: {broker.log[-1:]}", flush=True)
        if not confirmed:
            self._violate("no load", "nothing was confirmed before the disk failed")
        ledger.ending.set()
        self._faults.switch()
        broker.start()
        for queue in QUEUES:
            check_queue(broker.uri, ledger, queue, drain=True)
        if status := broker.stop():
            self._violate("exit status", f"{status} after SIGTERM")
        return ledger.violations.lines()

    def _violate(self, kind: str, detail: str) -> None:
        self.ledger.violations.add(kind, detail)

    def _expect_no_declare(self, link: Link) -> None:
        """declare-ok of something durable would be a promise too."""
        declare = commands.Queue.Declare(queue="fails.late", durable=True)
        try:
            link.call(declare, commands.Queue.DeclareOk, within=DECLARE_S)
        except (Closed, ConnectionError, TimeoutError):
            return
        self._violate("declared on a failing disk", "declare-ok has come")

    def _expect_end(self, failing: float) -> None:
        status = self._broker.exit_status(END_S_MAX)
        after_s = time.monotonic() - failing
        if status is None:
            self._violate("does not end", f"{after_s:.1f} s after the disk failed")
            self.ledger.ending.set()
            self._broker.kill()
        elif status <= 0:
            self._violate("exit status", f"{status} in place of a positive one")
        if not any(SAID.search(line) for line in self._broker.log):
            self._violate("not said in the log", f"{self._broker.log}")
        print(f"ended with {status} after {after_s:.1f} s", flush=True)


def fail(word: str) -> list[str]:
    """The scenario, with this word of faults.c; what went wrong."""
    with tempfile.TemporaryDirectory(prefix="amqpd-crash-") as name:
        data_dir = Path(name) / "data"
        faults = Faults(Path(name), data_dir)
        with Broker(data_dir, faults.environment) as broker:
            return Scenario(broker, faults).run(word)


def main() -> int:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left behind
    failed = False
    for word in sys.argv[1:] or ("fsync", "write"):
        print(f"== {word}", flush=True)
        try:
            wrong = fail(word)
        except Missing as missing:
            print(f"skipped: {missing}")
            continue
        print("\n".join(wrong) or "passed", flush=True)
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
