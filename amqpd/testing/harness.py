"""A Core with everything around it that a server would be: a store, links to clients, a clock.

There are no sockets and nothing sleeps: what clients send goes straight into the core, what the
core wants done is done at once, and time is a number that `wait` moves.

    harness = Harness()
    link = harness.connect()
    link.send(PROTOCOL_HEADER)
    link.receive()  # connection.start
"""

from __future__ import annotations

from random import Random
from typing import Protocol

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.broker.recovered import Recovered
from amqpd.config import Config
from amqpd.core import Core
from amqpd.session.connection import Peer, Session
from amqpd.storage.memory import MemoryStore


class Store(Protocol):
    """What keeps things for a broker, in memory or in a file: `MemoryStore`, `SqliteStore`."""

    def recover(self) -> Recovered:
        """What a broker finds that starts now; spilled messages are gone."""

    def commit(self, batch: Batch) -> int:
        """Applies a batch; its ticket."""

    def fetch(self, fetch: Fetch) -> Fetched:
        """Reads messages back."""


class Link:
    """A client's end of a connection.

    Attributes:
        closed: the broker has closed, and all its bytes can be received.
        reads: False leaves what the broker says with the broker, as a client that does not read.
    """

    def __init__(self, harness: Harness, peer: Peer) -> None:
        self.closed = False
        self.reads = True
        self.session: Session = harness.core.connected(peer, harness.now)
        self._harness = harness
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        """The client sends bytes, cut anywhere."""
        if not self.closed:
            self._harness.core.received(self.session, data, self._harness.now)
            self._harness.settle()

    def receive(self, patience_s: float = 0.0) -> bytes:
        """What the broker has sent and was not received yet; there is nothing to be patient for."""
        self._harness.settle()
        data = bytes(self._received)
        self._received.clear()
        return data

    def read_again(self) -> None:
        """The client that did not read does so from now on."""
        self.reads = True
        self.take_output()
        self._harness.settle()

    def close(self) -> None:
        """The socket closes, by whichever side."""
        self.closed = True
        if self._harness.links.pop(self.session, None) is not None:
            self._harness.core.disconnected(self.session, self._harness.now)
            self._harness.settle()

    def take_output(self) -> None:
        """What a server does with a session that is ready: writes its output, closes it."""
        if not self.reads:
            return
        self._received += self.session.take_output()
        if self.session.closing:
            self.close()
        elif self.session.clogged:
            self._harness.core.drained(self.session, self._harness.now)


class Harness:
    """A broker in a test.

    Args:
        hotpath: as of Core.
        seed: of the core's random source.
        store: an empty one in memory if none is given.
        epoch: as of Core.
        now: as of Core.

    Attributes:
        now: seconds on the core's clock.
        deadline: when the core next wants to be woken, or None.
        commits: False holds what the journal hands over, until `commit`.
        held: batches that were handed over and are not committed: one, or none.
        fetches: False holds what the core wants to read back, until `fetch`.
        wanted: what the core wants to read back and has not got yet.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        hotpath: bool = True,
        seed: int = 0,
        store: Store | None = None,
        epoch: float = 0.0,
        now: float = 0.0,
    ) -> None:
        self.store: Store = MemoryStore() if store is None else store
        self.core = Core(
            config or Config(),
            Random(seed),
            epoch,
            now=now,
            recovered=self.store.recover(),
            hotpath=hotpath,
        )
        self.now = now
        self.deadline: float | None = None
        self.links: dict[Session, Link] = {}
        self.commits = True
        self.held: list[Batch] = []
        self.fetches = True
        self.wanted: list[Fetch] = []
        self._connected = 0

    def connect(self, *, is_loopback: bool = True) -> Link:
        """A new client, which has not said anything yet."""
        self._connected += 1
        name = f"127.0.0.1:{50000 + self._connected} -> 127.0.0.1:5672"
        link = Link(self, Peer(name, is_loopback=is_loopback))
        self.links[link.session] = link
        self.settle()
        return link

    def wait(self, seconds: float) -> None:
        """Lets time pass, waking the core at each of its deadlines."""
        end = self.now + seconds
        self.settle()
        while self.deadline is not None and self.deadline <= end:
            self.now = max(self.now, self.deadline)
            self.core.tick(self.now)
            self.settle()
        self.now = end

    def commit(self, batches: int | None = None) -> None:
        """Commits all that has happened, or what is held and then handed over: so many batches."""
        if batches is None:
            self.core.flush()
            self.settle()
        while self.held and batches != 0:
            self._commit_held()
            self.settle()
            batches = None if batches is None else batches - 1

    def _commit_held(self) -> None:
        for batch in self.held:
            self.core.committed(self.store.commit(batch))
        self.held.clear()

    def fetch(self) -> None:
        """Answers what the core wants to read back."""
        self._answer()
        self.settle()

    def _answer(self) -> None:
        wanted, self.wanted = self.wanted, []
        for fetch in wanted:
            self.core.fetched(fetch, self.store.fetch(fetch), self.now)

    def settle(self) -> None:
        """Does what the core wants done, until it wants nothing more now."""
        while True:
            ready = self.core.ready()
            self.deadline = ready.deadline
            if not ready.sessions and ready.journal is None and not ready.fetches:
                return
            self.wanted += ready.fetches
            if ready.journal is not None:
                self.held.append(ready.journal)
            if self.commits:
                self._commit_held()
            if self.fetches:
                self._answer()
            for session in ready.sessions:
                link = self.links.get(session)
                if link is not None:
                    link.take_output()
