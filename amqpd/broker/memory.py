"""How much of all messages is held in memory, and how much of them one queue may hold."""

from __future__ import annotations

from collections.abc import Sequence

from amqpd.broker.message import HEADER, Message, body_bytes

# What a message costs in memory beside its body and its header.
MESSAGE_OVERHEAD_BYTES = 165

# What every queue may hold, however full the memory is.
WINDOW_BYTES_MIN = 65_536


class Memory:
    """What the backlogs of all queues hold together.

    Attributes:
        held: bytes of ready messages in memory, about.
        queue_max: what one queue may hold while there is room, in bytes.
        all_max: what all queues may hold together; over it each may hold WINDOW_BYTES_MIN.
    """

    __slots__ = ("_least", "all_max", "held", "queue_max")

    def __init__(self, queue_max: int, all_max: int) -> None:
        self.queue_max = queue_max
        self.all_max = all_max
        self.held = 0
        self._least = min(queue_max, WINDOW_BYTES_MIN)

    def window(self) -> int:
        """The bytes that one queue may hold now."""
        return self.queue_max if self.held < self.all_max else self._least


def held_bytes(messages: Sequence[Message], size: int) -> int:
    """What messages that came together hold, whose bodies have `size` bytes."""
    return size + MESSAGE_OVERHEAD_BYTES * len(messages) + headers_size(messages)


def held_alone(message: Message) -> int:
    """What a message holds that shares its header with no other."""
    return body_bytes(message) + MESSAGE_OVERHEAD_BYTES + len(message[HEADER])


def headers_size(messages: Sequence[Message]) -> int:
    """The size of the headers, of which those that are alike are shared, mostly, and count once.

    If the first, the middle and the last message have the same, all have it: to look at all of them
    would cost more than it says.
    """
    if not messages:
        return 0
    first = messages[0][HEADER]
    if messages[-1][HEADER] == first and messages[len(messages) // 2][HEADER] == first:
        return len(first)
    return sum(map(len, {each[HEADER] for each in messages}))
