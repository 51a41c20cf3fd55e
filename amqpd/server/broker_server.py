"""What all connections of a running broker share: the core, the store, and the turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.config import Config
from amqpd.core import Core
from amqpd.log import EventLog
from amqpd.server.connection import Connection
from amqpd.server.memory import Collector
from amqpd.server.store import Place
from amqpd.session.connection import Session

log = EventLog("server")


class BrokerServer:
    """The core and the sockets around it; lives in one trio run.

    Attributes:
        relieved: set, and replaced, when clients that are not read may be read again.
        store_failed: nothing can be kept any more.
    """

    def __init__(self, config: Config, core: Core, place: Place, nursery: trio.Nursery) -> None:
        self.config = config
        self.core = core
        self.connections: dict[Session, Connection] = {}
        self.connection_ended = trio.Event()
        self.relieved = trio.Event()
        self.store_failed = trio.Event()
        self._store = place.start(self)
        self._is_full = False
        self._turning = False
        self._again = False
        self._nursery = nursery
        self._collector = Collector()
        self._deadline = float("inf")
        self._deadline_moved = trio.Event()

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Runs a task beside the others, until the broker stops."""
        self._nursery.start_soon(task)

    def forget(self, session: Session) -> None:
        """The session's connection has ended."""
        del self.connections[session]
        self.connection_ended.set()
        self.connection_ended = trio.Event()

    def drained(self, session: Session) -> None:
        """The session's output has been written."""
        self._guarded(self.core.drained, session, trio.current_time())

    def disconnected(self, session: Session) -> None:
        """The session's socket is closed."""
        self._guarded(self.core.disconnected, session, trio.current_time())
        self.turn()

    # --- what the store and the machine have to say ----------------------------------------------

    def committed(self, ticket: int) -> None:
        """The batch with this ticket is durable."""
        self._happened(self.core.committed, ticket)

    def fetched(self, fetch: Fetch, answer: Fetched) -> None:
        """Messages were read back."""
        self._happened(self.core.fetched, fetch, answer, trio.current_time())

    def full(self, on: bool) -> None:
        """The store has no room to write, or has some again."""
        self._is_full = on
        self.alarmed("store", on)

    def alarmed(self, resource: str, on: bool) -> None:
        """Something has run short, or is there again."""
        self._happened(self.core.alarmed, resource, on, trio.current_time())

    def failed(self, error: Exception) -> None:
        """Nothing can be kept any more: nothing may be promised."""
        log.error("the store has failed; nothing more is confirmed", error=str(error))
        self.store_failed.set()
        self.relieve()

    def _happened(self, happened: Callable[..., None], *arguments: object) -> None:
        self._guarded(happened, *arguments)
        self.turn()
        self.relieve()

    def relieve(self) -> None:
        """Whoever is not read looks again whether that still holds."""
        self.relieved.set()
        self.relieved = trio.Event()

    async def settle(self) -> bool:
        """Waits until all that has happened is committed; whether it is, or cannot be now."""
        self.turn()
        while not self.core.is_settled and not self.store_failed.is_set() and not self._is_full:
            await self.relieved.wait()
        return self.core.is_settled

    def turn(self) -> None:
        """Does what the core has made ready, until nothing is."""
        self._again = True
        if self._turning:
            return  # the turn that is under way will see it
        self._turning = True
        try:
            while self._again:
                self._again = False
                self._do_what_is_ready()
        finally:
            self._turning = False
        self._collector.look(self.core.broker.now)

    def _do_what_is_ready(self) -> None:
        ready = self.core.ready()
        if ready.journal is not None:
            self._store.hand_over(ready.journal)
        for fetch in ready.fetches:
            self._store.fetch(fetch)
        for session in ready.sessions:
            connection = self.connections.get(session)
            if connection is not None:
                connection.flush()
        if ready.deadline is not None and ready.deadline < self._deadline:
            self._deadline = ready.deadline
            self._deadline_moved.set()

    async def tick(self) -> None:
        """Calls the core whenever its deadline has passed."""
        while True:
            with trio.move_on_at(self._deadline):
                await self._deadline_moved.wait()
            self._deadline_moved = trio.Event()
            if trio.current_time() < self._deadline:
                continue
            self._deadline = float("inf")
            self._guarded(self.core.tick, trio.current_time())
            self.turn()

    def _guarded(self, happened: Callable[..., None], *arguments: object) -> None:
        """Tells the core; a bug in it is logged, and does not take the broker with it."""
        try:
            happened(*arguments)
        except Exception as bug:
            log.exception("internal error", bug)
