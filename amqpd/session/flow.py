"""When a client is not read: what it asked for is on its way from the disk, or it publishes more
than there is room for.

Source: RabbitMQ, "Blocked connections", "Memory and disk alarms".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.wire.methods import Connection, encode_method

if TYPE_CHECKING:
    from amqpd.broker.queues.queue import Queue
    from amqpd.session.connection import Session

# What ran short, as connection.blocked names it: alarms of the machine, and a store that is full.
SHORT_OF = {"memory": "memory", "disk": "disk", "store": "disk"}


class Flow:
    """Whether one client is read.

    Attributes:
        suspended: the next frame waits for messages of a queue to be at hand.
        blocked: the client has published while something ran short, and is not read until it is
            there again.
    """

    __slots__ = ("_awaited", "_session", "blocked", "suspended")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._awaited: Queue | None = None
        self.suspended = False
        self.blocked = False

    @property
    def stopped(self) -> bool:
        """Whether nothing should be read from the client now."""
        session = self._session
        if session.state != "running":
            return False
        if self.suspended or self.blocked:
            return True
        if not session.feeds and not session.builds:
            return False
        return session.broker.journal.is_choked

    def suspend(self, queue: Queue) -> None:
        """The frame that is being handled is put off until the queue has messages in memory."""
        self.suspended, self._awaited = True, queue
        queue.waiters[self] = None
        self._session.broker.touch(queue)
        self._session.broker.settle_touched()

    def resume(self) -> None:
        """The queue has messages in memory, or none at all."""
        if self.suspended:
            self.suspended, self._awaited = False, None
            self._session.work_on()

    def end(self) -> None:
        """The session ends, and waits for nothing."""
        if self._awaited is not None:
            self._awaited.waiters.pop(self, None)
        self.suspended, self._awaited = False, None

    def posted(self) -> None:
        """The client has published."""
        session = self._session
        if session.broker.alarms and not self.blocked:
            self.blocked = True
            if session.client_can("connection.blocked"):
                short_of = sorted({SHORT_OF[each] for each in session.broker.alarms})
                blocked = Connection.Blocked(reason=f"low on {' & '.join(short_of)}")
                session.say_at_once(encode_method(0, blocked))

    def relieved(self) -> None:
        """Nothing runs short any more."""
        session = self._session
        if self.blocked:
            self.blocked = False
            if session.client_can("connection.blocked") and session.state == "running":
                session.say_at_once(encode_method(0, Connection.Unblocked()))
