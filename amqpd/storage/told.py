"""What is found in a file, in words for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from amqpd.storage.salvage import Gap, QueueNames
from amqpd.storage.schema import NUMBER_BITS

TOLD_MAX: Final = 50  # of each kind

_NUMBER: Final = (1 << NUMBER_BITS) - 1


class Told:
    """Tells findings: the first ones of each kind with their names, of the others how many.

    Args:
        say: takes each sentence.

    Attributes:
        count: of all findings.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._counts: Counter[str] = Counter()

    def __call__(self, kind: str, text: str) -> None:
        """Something was found; `kind` is a plural."""
        self._counts[kind] += 1
        if self._counts[kind] <= TOLD_MAX:
            self._say(text)

    def rest(self) -> None:
        """Tells how many were not told."""
        for kind, count in self._counts.items():
            if count > TOLD_MAX:
                self._say(f"and {count - TOLD_MAX:,} more {kind}")

    @property
    def count(self) -> int:
        return self._counts.total()


def some(count: int, one: str, many: str = "") -> str:
    """`1 queue`, `1,234 queues`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def queue_words(queue_id: int, names: QueueNames) -> str:
    """A queue by its name."""
    if queue_id not in names:
        return f"a queue that is not there (number {queue_id})"
    vhost, name = names[queue_id]
    return f"queue '{name}' in vhost '{vhost}'"


def message_words(message_id: int, names: QueueNames) -> str:
    """A message by its number and queue."""
    return f"message {message_id & _NUMBER} of {queue_words(message_id >> NUMBER_BITS, names)}"


def gap_words(gap: Gap, names: QueueNames) -> str:
    """Where nothing can be read."""
    if gap.after is None and gap.before is None:
        return "from the first message to the last"
    if gap.after is None:
        return f"before {message_words(gap.before or 0, names)}"
    if gap.before is None:
        return f"behind {message_words(gap.after, names)}"
    return f"between {message_words(gap.after, names)} and {message_words(gap.before, names)}"
