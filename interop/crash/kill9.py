"""kill -9 under load, again and again, on one data directory: what was promised must be there.

    python interop/crash/kill9.py --rounds 50
    python interop/crash/kill9.py --rounds 3 --seconds-per-round 1 --seed 7

Exit status 1, with what was lost, as soon as a promise is broken.
"""

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import crowd
from broker import Broker
from crowd import Crowd
from ledger import Ledger, Settled
from recovery import check_queue
from topology import Churn

CHURNS = 3
LIGHT_EVERY = 3
DRAIN_EVERY = 4  # rounds: in between, messages grow old
# One of these for each life of the broker: all of them promise the same, as far as kill -9 goes.
SETTINGS: list[dict[str, str]] = [
    {},
    {
        "AMQPD_LIMITS__QUEUE_MEMORY_BYTES_MAX": "65536",
        "AMQPD_LIMITS__QUEUES_MEMORY_BYTES_MAX": "1000000",
    },
    {"AMQPD_LIMITS__UNCOMMITTED_BYTES_MAX": "65536"},
    {"AMQPD_STORAGE__SYNC": "normal"},
    {"AMQPD_STORAGE__SYNC": "off"},
]


class Rounds:
    """The broker, the book, and what happens in a round."""

    def __init__(self, broker: Broker, seed: int, seconds: float, kept: Path) -> None:
        self.ledger = Ledger()
        self._broker = broker
        self._seed = seed
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._kept = kept
        self._churns = [Churn(self.ledger, number) for number in range(CHURNS)]

    def run(self, rounds: int) -> bool:
        """Whether all promises were kept; it ends with the first round in which one was not."""
        self._broker.start()
        crowd.prepare(self._broker.uri)
        for churn in self._churns:
            churn.prepare(self._broker.uri)
        for number in range(1, rounds + 1):
            how = self._load_and_kill(number)
            loaded = dict(self.ledger.counts)
            ready_s = self._come_back()
            self._check(drain=number % DRAIN_EVERY == 0)
            self._report(f"round {number:3}", how, ready_s, loaded)
            if self.ledger.violations:
                return False
        return self._stop_and_look_again()

    def _load_and_kill(self, number: int) -> str:
        """One round's load and its end; in what way it ended."""
        self.ledger.begin_round()
        lives = crowd.LIGHT if number % LIGHT_EVERY == 0 else crowd.HEAVY
        seed = f"{self._seed}.{number}"
        clients = Crowd(self._broker.uri, self.ledger, seed, self._churns, lives)
        clients.start()
        time.sleep(self._rng.uniform(0.2, 1.8) * self._seconds)
        how = self._rng.choices(["kill", "kill twice", "stop, kill"], [8, 1, 1])[0]
        self.ledger.ending.set()
        if how == "stop, kill":
            self._broker.send(signal.SIGTERM)
            time.sleep(self._rng.uniform(0, 0.3))
        self._broker.kill()
        clients.join()
        if how == "kill twice":
            # In the middle of its start, where it may be repairing what the first one left.
            self._broker.launch()
            time.sleep(self._rng.uniform(0, 0.6))
            self._broker.kill()
        return how

    def _come_back(self) -> float:
        """Starts it on what was left, of which a copy is kept for whoever must find the bug."""
        shutil.rmtree(self._kept, ignore_errors=True)
        if self._broker.data_dir.exists():
            shutil.copytree(self._broker.data_dir, self._kept)
        self._broker.environment = self._rng.choice(SETTINGS)
        return self._broker.start()

    def _check(self, drain: bool) -> None:
        try:
            for queue in crowd.QUEUES:
                check_queue(self._broker.uri, self.ledger, queue, drain)
            for churn in self._churns:
                churn.check(self._broker.uri)
        except Exception:  # whatever it is: a broker that came back answers otherwise
            self.ledger.violations.add("a check failed", traceback.format_exc())
        if self._broker.bugs:
            self.ledger.violations.add("bug in the log", "\n    ".join(self._broker.log[-40:]))

    def _report(self, name: str, how: str, ready_s: float, loaded: dict[str, int]) -> None:
        counts = loaded | {each: self.ledger.counts[each] for each in ("left", "redelivered")}
        text = " ".join(f"{what} {number}" for what, number in sorted(counts.items()))
        print(f"{name}  {how:10}  ready {ready_s:.2f} s  {text}", flush=True)

    def _stop_and_look_again(self) -> bool:
        """A stop in peace loses nothing either, and what was acknowledged before stays away."""
        for queue in crowd.QUEUES[::2]:
            check_queue(self._broker.uri, self.ledger, queue, drain=True)
            self.ledger.settle(self.ledger.queues[queue].values(), Settled.PROMISED)
        status = self._broker.stop()
        if status != 0:
            self.ledger.violations.add("exit status", f"{status} after SIGTERM")
        self.ledger.begin_round()
        ready_s = self._come_back()
        self._check(drain=True)
        self._report("at last  ", "stop", ready_s, {})
        return not self.ledger.violations


def run(rounds: int, seed: int, seconds: float, directory: Path) -> list[str]:
    """All rounds; what went wrong, or nothing."""
    with Broker(directory / "data") as broker:
        played = Rounds(broker, seed, seconds, directory / "as-the-kill-left-it")
        try:
            if played.run(rounds):
                return []
        except RuntimeError as error:  # it does not start any more
            played.ledger.violations.add("no start", str(error))
        return played.ledger.violations.lines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="how often it is killed (50)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--seconds-per-round", type=float, default=2.0, help="of load (2)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # pika logs that its broker has gone, which is what we do
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left behind
    print(f"{options.rounds} rounds, --seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="amqpd-crash-"))
    wrong = run(options.rounds, options.seed, options.seconds_per_round, directory)
    if wrong:
        print("\n".join(wrong))
        print(f"failed with --seed {options.seed}; the directory as the kill left it: {directory}")
        return 1
    shutil.rmtree(directory)
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
