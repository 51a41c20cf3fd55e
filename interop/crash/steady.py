"""Clients for a disk that fails: they do the same all the time, and know when they heard what."""

import random
import threading
import time
from collections.abc import Callable, Sequence

from consumers import Consumer
from ledger import Ledger, Message, Route
from link import Arrival, Closed, Confirm, Link, settle_frames
from pamqp import commands
from publishers import Confirms, Pen

WINDOW = 64
BURST = 16
BODY_BYTES = 2048
GLANCE_S = 0.02
JOIN_S = 15.0


def wait_until(condition: Callable[[], bool], within: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(GLANCE_S)
    return True


class Steady(threading.Thread):
    """A client in a thread, until it is told to stop or its connection ends.

    Attributes:
        hears_blocked: it has the capability connection.blocked.
        link: its connection.
        end: why its connection ended, if it did.
    """

    def __init__(self, uri: str, ledger: Ledger, hears_blocked: bool = True) -> None:
        super().__init__(daemon=True)
        self.ledger = ledger
        self.hears_blocked = hears_blocked
        self.link = Link(uri, hears_blocked)
        self.end: Exception | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends it without a word to the broker."""
        self._stopping.set()
        self.join(JOIN_S)

    def run(self) -> None:
        try:
            with self.link:
                while not self._stopping.is_set():
                    self.step()
        except (ConnectionError, Closed) as end:
            self.end = end
        except Exception as error:
            self.end = error
            self.ledger.violations.add("a client failed", repr(error))

    def step(self) -> None:
        """What it does again and again; it must not wait long."""
        raise NotImplementedError


class SteadyPublisher(Steady):
    """Publishes persistent messages with confirms, but not while it is told to wait.

    Attributes:
        pausing: when set, it only listens.
        confirms: what is unconfirmed.
        confirmed: when it heard which confirm, in order.
    """

    def __init__(
        self,
        uri: str,
        ledger: Ledger,
        routes: Sequence[Route],
        body_bytes: int = BODY_BYTES,
        hears_blocked: bool = True,
    ) -> None:
        super().__init__(uri, ledger, hears_blocked)
        self.pausing = threading.Event()
        self.confirms = Confirms(ledger)
        self.confirmed: list[tuple[float, Message]] = []
        self._noted: dict[Message, float] = {}
        self._pen = Pen(ledger, random.Random(0), routes, persistent_share=1.0, length=body_bytes)
        self.link.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        self.start()

    @property
    def waits(self) -> bool:
        """Whether the broker has told it to."""
        return self.link.blocked is not None

    def confirmed_since(self, moment: float) -> list[Message]:
        """What was both published and confirmed after that moment."""
        return [message for _, message in self.confirmed if self._noted[message] > moment]

    def heard_between(self, start: float, end: float) -> int:
        """How many confirms came in that time."""
        return sum(start < when < end for when, _ in self.confirmed)

    def step(self) -> None:
        room = WINDOW - len(self.confirms.waiting)
        if room and not self.waits and not self.pausing.is_set():
            burst = []
            for _ in range(min(room, BURST)):
                message, frames = self._pen.write_frames()
                message.possible = True
                self.confirms.expect(message)
                self._noted[message] = time.monotonic()
                burst.append(frames)
            self.link.send(b"".join(burst))
        for event in self.link.events(GLANCE_S):
            if isinstance(event, Confirm):
                now = time.monotonic()
                messages = self.confirms.take(event)
                if event.positive:
                    self.confirmed += [(now, message) for message in messages]


class SteadyConsumer(Steady):
    """Acknowledges all it gets.

    Attributes:
        received: how many messages.
    """

    def __init__(self, uri: str, ledger: Ledger, queue: str) -> None:
        super().__init__(uri, ledger)
        self.received = 0
        self._consumer = Consumer(ledger)
        self.link.call(commands.Basic.Qos(prefetch_count=20), commands.Basic.QosOk)
        self.link.tell(commands.Basic.Consume(queue=queue, consumer_tag=queue))
        self.start()

    def step(self) -> None:
        events = self.link.events(GLANCE_S)
        tags = self._consumer.take([event for event in events if isinstance(event, Arrival)])
        self._consumer.settle(tags)
        self.link.send(settle_frames(tags))
        self.received += len(tags)
