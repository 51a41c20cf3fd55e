"""What all connections of a running broker share: the core, the store, and the turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from amqpd.config import Config
from amqpd.core import Core
from amqpd.log import EventLog
from amqpd.server.connection import Connection
from amqpd.session.connection import Session
from amqpd.storage.memory import MemoryStore

log = EventLog("server")


class BrokerServer:
    """The core and the sockets around it; lives in one trio run."""

    def __init__(
        self, config: Config, core: Core, store: MemoryStore, nursery: trio.Nursery
    ) -> None:
        self.config = config
        self.core = core
        self.connections: dict[Session, Connection] = {}
        self.connection_ended = trio.Event()
        self._store = store
        self._nursery = nursery
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

    def turn(self) -> None:
        """Does what the core has made ready, until nothing is."""
        while True:
            ready = self.core.ready()
            if ready.journal is not None:
                self._guarded(self.core.committed, self._store.commit(ready.journal))
            for session in ready.sessions:
                connection = self.connections.get(session)
                if connection is not None:
                    connection.flush()
            if ready.journal is None and not ready.sessions:
                break
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
