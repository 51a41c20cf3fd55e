"""All the clients that load the broker at a time, each in a thread of its own."""

import random
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial

import consumers
import publishers
from ledger import Ledger, Route
from link import Closed
from patience import GONE, pika_connection
from topology import Churn

JOIN_S = 30.0
CONNECTION_FORCED = 320  # what a broker says that is asked to stop
QUEUES = tuple(f"crash.q{number}" for number in range(6))
FANOUT, TOPIC = "crash.fanout", "crash.topic"
FANOUT_QUEUES = QUEUES[3:]
TOPIC_BINDINGS = {QUEUES[0]: "*.odd", QUEUES[1]: "orders.#"}
ROUTES = [
    *(Route("", queue, (queue,)) for queue in QUEUES),
    Route(FANOUT, "any", FANOUT_QUEUES),
    Route(TOPIC, "orders.odd", QUEUES[:2]),
    Route(TOPIC, "orders.even", (QUEUES[1],)),
]

Life = Callable[[str, Ledger, random.Random], None]


def prepare(uri: str) -> None:
    """Declares what the publishers and consumers work with."""
    with pika_connection(uri) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True)
        channel.exchange_declare(FANOUT, "fanout", durable=True)
        for queue in FANOUT_QUEUES:
            channel.queue_bind(queue, FANOUT, "")
        channel.exchange_declare(TOPIC, "topic", durable=True)
        for queue, key in TOPIC_BINDINGS.items():
            channel.queue_bind(queue, TOPIC, key)


# Between them and the broker every exchange takes long: much happens at a time.
HEAVY: list[Life] = [
    *[partial(publishers.publish_with_confirms, routes=ROUTES)] * 3,
    partial(publishers.publish_in_transactions, routes=ROUTES),
    partial(publishers.publish_with_pika, routes=ROUTES),
    partial(publishers.publish_in_transactions_with_pika, routes=ROUTES),
    *[partial(consumers.consume, queues=QUEUES)] * 3,
    partial(consumers.consume_in_transactions, queues=QUEUES, routes=ROUTES),
    partial(consumers.consume_with_pika, queues=QUEUES),
]
# With these it takes a millisecond or two, and topology changes as fast as it can.
LIGHT: list[Life] = [
    partial(publishers.publish_with_pika, routes=ROUTES),
    partial(consumers.consume_in_transactions, queues=QUEUES, routes=ROUTES),
]


class Crowd:
    """Clients that live one life after the other until the ledger says that the end is near."""

    def __init__(
        self, uri: str, ledger: Ledger, seed: str, churns: list[Churn], clients: list[Life]
    ) -> None:
        self._uri = uri
        self._ledger = ledger
        lives = [*clients, *(churn.run for churn in churns)]
        self._threads = [
            threading.Thread(
                target=self._live, args=(life, random.Random(f"{seed}.{number}")), daemon=True
            )
            for number, life in enumerate(lives)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for all; a client that hangs although its broker is gone is a violation."""
        deadline = time.monotonic() + JOIN_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                self._ledger.violations.add("a client hangs", thread.name)

    def _live(self, life: Life, rng: random.Random) -> None:
        ending = self._ledger.ending
        while not ending.is_set():
            try:
                life(self._uri, self._ledger, rng)
            except (*GONE, Closed) as lost:
                refused = isinstance(lost, Closed) and lost.code != CONNECTION_FORCED
                if refused or not ending.is_set():
                    self._ledger.violations.add("connection lost", f"{lost!r}")
            except Exception:
                self._ledger.violations.add("a client failed", traceback.format_exc())
