"""How often messages of a queue have come back from consumers.

Consumers read it in the header `x-delivery-count`, which is not there before a message has come
back for the first time. Nobody else does: it is written into what is delivered, and not into the
message.

Source: RabbitMQ, "Quorum Queues", poison message handling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from amqpd.broker.message import ENVELOPE, HEADER, WAS_PUT_OFF, Message
from amqpd.broker.queues.window import known_of
from amqpd.wire import content, fields

COUNT_HEADER: Final = "x-delivery-count"


class Returns:
    """The counts of one queue's messages.

    Attributes:
        counts: by number, of messages in memory that have come back; no more than there are.
    """

    __slots__ = ("_as_they_came", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._as_they_came: dict[int, Message] = {}  # of those that were delivered with a count

    def came_back(self, deliveries: Sequence[tuple[int, Message]], limit: int | None) -> set[int]:
        """Messages have come back once more; those of them that have done so too often."""
        counts = self.counts
        for number, _ in deliveries:
            counts[number] = counts.get(number, 0) + 1
        if limit is None:
            return set()
        return {number for number, message in deliveries if self.times(number, message) > limit}

    def times(self, number: int, message: Message) -> int:
        """How often a message has come back, also before it was put off and came anew."""
        times = self.counts.get(number, 0)
        if message[ENVELOPE].past & WAS_PUT_OFF:
            before = content.headers(message[HEADER]).values.get(COUNT_HEADER, 0)
            times += before if isinstance(before, int) else 0
        return times

    def were(self, numbers: Sequence[int], counts: Sequence[int]) -> None:
        """Messages were read back from the store that have come back so often."""
        pairs = zip(numbers, counts, strict=True)
        self.counts.update((number, count) for number, count in pairs if count)

    def counted(self, numbers: Sequence[int], messages: Sequence[Message]) -> list[Message]:
        """The messages as they are delivered: with their counts in their headers."""
        counted: list[Message] = []
        for number, message in zip(numbers, messages, strict=True):
            if number in self.counts:
                self._as_they_came[number] = message
                counted.append(with_count(message, self.times(number, message)))
            else:
                counted.append(message)
        return counted

    def as_they_came(self, numbers: Sequence[int], messages: list[Message]) -> list[Message]:
        """Messages that were delivered, without their counts."""
        if not self._as_they_came:
            return messages
        known = self._as_they_came.get
        return [known(number, message) for number, message in zip(numbers, messages, strict=True)]

    def forget(self, numbers: Iterable[int]) -> None:
        """Messages are gone."""
        for number in numbers:
            self.counts.pop(number, None)
            self._as_they_came.pop(number, None)

    def forget_all(self, gone: Sequence[Sequence[int]]) -> None:
        """Ready messages are gone as a whole: ranges of numbers, and lists of them."""
        self.forget(known_of(gone, self.counts))


def with_count(message: Message, count: int) -> Message:
    """The message with its count in its headers."""
    envelope, header, body, persistent = message
    entry = fields.long(COUNT_HEADER, count)
    return envelope, content.with_header_entry(header, COUNT_HEADER, entry), body, persistent
