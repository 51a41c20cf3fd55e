"""A soak: clients that crash, vanish, babble and do not read, and a healthy one among them.

    python interop/soak/soak.py --minutes 5

It starts an amqpd, and fails (exit status 1) unless afterwards the queues of the clients are
gone, files and memory of the broker are back where they were, its log holds no sign of a bug,
and the healthy client saw neither error nor delay. --minutes 0.3 is enough for a smoke run.
"""

import argparse
import collections
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
from behaviours import ALL, Names
from control import Control
from pika.exceptions import ChannelClosedByBroker
from process import MIB, Process

# The interop rooms share how an amqpd is started; neither is a package that one installs.
sys.path.append(str(Path(__file__).parents[1] / "clients"))
from launch import Amqpd

CLIENTS = 6
WARM_UP_SHARE = 0.25  # of the time: caches, allocator and code paths fill
SETTLE_S = 30.0  # after the last client: what is not released by then is a leak
RESIDENT_GROWTH_BYTES_MAX = 24 * MIB
TRIP_P99_S_MAX = 0.5
TRIP_S_MAX = 3.0
STOP_S_MAX = 5.0


class Soak:
    """The misbehaving clients, `CLIENTS` at a time, until told to stop."""

    def __init__(self, uri: str, seed: int) -> None:
        self.uri = uri
        self.names = Names(f"soak.{seed}")
        self.lives: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        # Every client begins with another behaviour, and has done each of them once in a while.
        self._threads = [
            threading.Thread(target=self._live, args=(random.Random(seed + i),))
            for i in range(CLIENTS)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _live(self, rng: random.Random) -> None:
        while not self._stop.is_set():
            for behaviour in rng.sample(ALL, len(ALL)):
                if self._stop.is_set():
                    return
                self.lives[behaviour.__name__] += 1
                try:
                    behaviour(self.uri, rng, self.names)
                except Exception:
                    self.failures.append(f"{behaviour.__name__}: {traceback.format_exc()}")
                self._stop.wait(rng.uniform(0, 0.1))


def queues_left(uri: str, names: list[str]) -> list[str]:
    left = []
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        for name in names:
            channel = connection.channel()
            try:
                channel.queue_declare(name, passive=True)
            except ChannelClosedByBroker as error:
                if error.reply_code == 404:
                    continue
            left.append(name)
    return left


def settled(process: Process, files: int, resident: int) -> tuple[int, int]:
    """(open files, resident bytes) once both are within bounds, or after SETTLE_S."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        if process.open_files <= files and process.resident_bytes <= resident:
            break
        time.sleep(0.1)
    return process.open_files, process.resident_bytes


def soak(uri: str, process: Process | None, seconds: float, seed: int) -> list[str]:
    """Runs it all, prints the report, returns what is wrong."""
    control = Control(uri)  # connected when this returns: it belongs to the baseline
    files = process.open_files if process else 0
    clients = Soak(uri, seed)
    with clients.running():
        time.sleep(seconds * WARM_UP_SHARE)
        warm = process.resident_bytes if process else 0
        time.sleep(seconds * (1 - WARM_UP_SHARE))
    wrong = [f"a client failed: {failure}" for failure in clients.failures]
    if left := queues_left(uri, clients.names.given):
        wrong.append(f"{len(left)} queues are left: {left[:5]}")
    if process:
        bound = warm + RESIDENT_GROWTH_BYTES_MAX
        open_files, resident = settled(process, files, bound)
        print(f"open files      {files} before, {open_files} after")
        print(f"resident        {warm / MIB:.1f} MiB warm, {resident / MIB:.1f} MiB after")
        if open_files > files:
            wrong.append(f"{open_files - files} file descriptors leaked")
        if resident > bound:
            wrong.append(f"resident memory grew by {(resident - warm) / MIB:.1f} MiB")
    wrong += check_control(control)
    print(f"lives           {clients.lives.total()}, {len(clients.names.given)} queues")
    for name, count in clients.lives.most_common():
        print(f"  {count:6} {name.replace('_', ' ')}")
    return wrong


def check_control(control: Control) -> list[str]:
    try:
        trips = sorted(control.finish())
    except RuntimeError as error:
        return [f"the healthy client failed: {error}"]
    p99 = trips[int(len(trips) * 0.99)]
    median_ms, p99_ms, worst_ms = (s * 1000 for s in (statistics.median(trips), p99, trips[-1]))
    print(
        f"healthy client  {len(trips)} round trips: median {median_ms:.1f} ms, "
        f"p99 {p99_ms:.1f} ms, worst {worst_ms:.1f} ms"
    )
    if p99 > TRIP_P99_S_MAX or trips[-1] > TRIP_S_MAX:
        return [f"the healthy client waited: p99 {p99:.2f} s, worst {trips[-1]:.2f} s"]
    return []


def soak_own_broker(seconds: float, seed: int) -> list[str]:
    with tempfile.TemporaryDirectory() as data_dir:
        broker = Amqpd(Path(data_dir))
        try:
            wrong = soak(broker.uri, Process(broker.pid), seconds, seed)
        finally:
            begun = time.monotonic()
            status = broker.stop()
        stopped_s = time.monotonic() - begun
    if status != 0 or stopped_s > STOP_S_MAX:
        wrong.append(f"the broker stopped with {status} after {stopped_s:.1f} s")
    print(f"log             {len(broker.log)} lines, {len(broker.bugs)} signs of a bug")
    if broker.bugs:
        first = broker.log.index(broker.bugs[0])
        wrong.append("the log holds:\n" + "\n".join(broker.log[first : first + 30]))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (5)")
    parser.add_argument("--uri", help="a running broker instead of an amqpd of our own")
    parser.add_argument("--pid", type=int, help="that broker's process, to watch its memory")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    # The clients' libraries log what the broker does to them, which is what we provoke.
    logging.disable(logging.CRITICAL)
    print(f"soaking for {options.minutes} minutes, --seed {options.seed}", flush=True)
    seconds = options.minutes * 60
    if options.uri:
        process = Process(options.pid) if options.pid else None
        wrong = soak(options.uri, process, seconds, options.seed)
    else:
        wrong = soak_own_broker(seconds, options.seed)
    for each in wrong:
        print(f"FAILED: {each}")
    print("failed" if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
