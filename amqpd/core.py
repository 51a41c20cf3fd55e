"""The whole broker without I/O: inputs in, `Ready` out.

Each input says what has happened and when; `ready` says what must be done now. Nothing in or below
this file reads a clock, a socket, a file or a random source, so the same inputs give the same
bytes, a whole broker runs in a unit test, and time is a number.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from amqpd import errors
from amqpd.broker.broker import Broker
from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch
from amqpd.broker.recovered import NOTHING, Recovered
from amqpd.config import Config
from amqpd.session import hotpath
from amqpd.session.connection import HotPath, Peer, Session
from amqpd.session.methods.basic import deliver


class Ready(Struct, gc=False, eq=False):
    """What must be done now; each thing is handed out once.

    Attributes:
        sessions: have output to be written, or are to be closed.
        journal: a batch to make durable; `Core.committed` with its ticket when it is. No other is
            handed out before.
        fetches: messages to read back; `Core.fetched` with each answer.
        deadline: when to call `Core.tick` at the latest, in seconds on the caller's clock.
    """

    sessions: list[Session]
    journal: Batch | None
    fetches: list[Fetch]
    deadline: float | None


class Core:
    """The broker.

    Args:
        random: for names that must not be guessed; a seeded one makes runs repeatable.
        epoch: wall time at `now` == 0, in seconds since 1970.
        now: seconds on the caller's monotonic clock, which may begin anywhere.
        recovered: what the store has kept.
        hotpath: False takes every frame the slow way. Nothing else changes.
    """

    def __init__(
        self,
        config: Config,
        random: Random,
        epoch: float = 0.0,
        *,
        now: float = 0.0,
        recovered: Recovered = NOTHING,
        hotpath: bool = True,
    ) -> None:
        self.broker = Broker(config, random, epoch, recovered, now=now)
        self.sessions: dict[Session, None] = {}
        self._hot_path = _hot_path(hotpath)
        self._speakers: dict[Session, None] = {}
        self._promisers: dict[Session, None] = {}

    def connected(self, peer: Peer, now: float) -> Session:
        """A client has connected."""
        self.broker.now = now
        session = Session(self.broker, peer, self._hot_path, self._speakers, self._promisers)
        self.sessions[session] = None
        return session

    def received(self, session: Session, data: bytes, now: float) -> None:
        """The client has sent bytes, cut anywhere."""
        self.broker.now = now
        session.received(data)

    def drained(self, session: Session, now: float) -> None:
        """All output that was taken from a clogged session has been written."""
        self.broker.now = now
        session.drained()

    def disconnected(self, session: Session, now: float) -> None:
        """The socket is closed, by whichever side."""
        self.broker.now = now
        try:
            if not session.closing:
                session.end()
        finally:
            session.forget()
            self.sessions.pop(session, None)
            self._speakers.pop(session, None)

    def tick(self, now: float) -> None:
        """`Ready.deadline` has passed."""
        self.broker.now = now
        self.broker.deadlines.run(now)
        self.broker.settle_touched()

    def committed(self, ticket: int) -> None:
        """The journal up to this ticket is durable."""
        self.broker.journal.has_committed(ticket)
        for session in list(self._promisers):
            session.committed(ticket)

    def fetched(self, fetch: Fetch, answer: Fetched, now: float) -> None:
        """Messages were read back."""
        self.broker.now = now
        self.broker.fetched(fetch, answer)

    def alarmed(self, resource: str, on: bool, now: float) -> None:
        """Something has run short, or is there again.

        Args:
            resource: "memory", "disk", or "store" where the store has no room to write.
        """
        self.broker.now = now
        alarms = self.broker.alarms
        if self.broker.events is not None and on != (resource in alarms):
            self.broker.events.alarm(resource, on)
        if on:
            alarms.add(resource)
            return
        alarms.discard(resource)
        if not alarms:
            for session in list(self.sessions):
                session.flow.relieved()

    @property
    def is_settled(self) -> bool:
        """Whether all that has happened is committed."""
        return self.broker.journal.is_settled

    def flush(self) -> None:
        """Whatever has happened is to be committed now."""
        self.broker.journal.wait_for(self.broker.journal.last_ticket())

    def stopped(self) -> None:
        """All clients have gone, and the broker stops when what is ready now is committed."""
        for queue in self.broker.queues.values():
            queue.stopped()
        self.flush()

    def shutdown(self, reason: str, now: float) -> None:
        """Asks every client to go: connection.close 320."""
        self.broker.now = now
        for session in list(self.sessions):
            if session.state == "running":
                session.close(
                    errors.connection_forced(
                        f"broker forced connection closure with reason '{reason}'"
                    )
                )
            elif session.state != "closing":
                session.end()

    def ready(self) -> Ready:
        """What must be done now."""
        broker = self.broker
        while (
            broker.resumable or broker.letters
        ):  # events of what happened outside of queues' rules
            broker.settle_touched()
            resumable, broker.resumable = broker.resumable, []
            for waiter in resumable:
                waiter.resume()
        fetches, broker.fetches = broker.fetches, []
        batch = broker.journal.hand_over(broker.now, broker.epoch + broker.now)
        deadline = broker.deadlines.next()
        due = broker.journal.due
        if due is not None and (deadline is None or due < deadline):
            deadline = due
        sessions = list(self._speakers)
        self._speakers.clear()
        return Ready(sessions, batch, fetches, deadline)


def _hot_path(wanted: bool) -> HotPath:
    return HotPath(hotpath.absorb, hotpath.deliver) if wanted else HotPath(None, deliver)
