"""Publisher confirms of one channel. Source: RabbitMQ, "Publisher confirms".

Confirms leave in the order of the publishes: what has nothing to store still waits behind what has,
because an ack with `multiple` speaks for all before it.
"""

from __future__ import annotations

from collections import deque

from amqpd.wire.prefixes import ack, nack


class Confirms:
    """Sequence numbers and what waits for a commit.

    Attributes:
        published: sequence number of the last publish.
        refused: sequence numbers of publishes that a queue has refused, not yet said.
    """

    __slots__ = ("_acked", "_nacked", "_queued", "_waiting", "published", "refused")

    def __init__(self) -> None:
        self.published = 0
        self._queued = 0
        self._acked = 0
        self._nacked = 0
        self.refused: deque[int] = deque()
        self._waiting: deque[tuple[int, int]] = deque()  # ticket, last sequence number

    def close_batch(self, ticket: int) -> None:
        """All publishes since the last call are safe once `ticket` is committed."""
        if self.published > self._queued:
            self._queued = self.published
            self._waiting.append((ticket, self.published))

    def committed(self, channel: int, ticket: int) -> bytes:
        """The acks and nacks that are due now that `ticket` is committed; empty if none are."""
        last = 0
        while self._waiting and self._waiting[0][0] <= ticket:
            last = self._waiting.popleft()[1]
        if not last:
            return b""
        frames = b""
        while self.refused and self.refused[0] <= last:
            refused = self.refused.popleft()
            frames += self._up_to(channel, refused - 1) + nack(channel, refused)
            self._acked = refused
            self._nacked += 1
        return frames + self._up_to(channel, last)

    def _up_to(self, channel: int, last: int) -> bytes:
        """An ack for all until this one; empty if that is none."""
        count, self._acked = last - self._acked, last
        return ack(channel, last, multiple=count > 1) if count else b""

    @property
    def acked(self) -> int:
        """Publishes that were confirmed with an ack."""
        return self._acked - self._nacked

    @property
    def outstanding(self) -> int:
        """Publishes that are not confirmed."""
        return self.published - self._acked
