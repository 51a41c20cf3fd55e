"""Compaction: of the messages of a stream that have the same key only the newest ones stay.

From time to time the store is asked which messages are superseded by those that have come since the
last time; these are deleted then. So a reader may see a little more than stays, and nothing is kept
in memory for a key.

The key is the header `x-group-id`, or the routing key. This is amqpd's own: docs/STREAMS.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.message import ENVELOPE, HEADER, Message
from amqpd.broker.queues.groups import GROUP_ID
from amqpd.wire import content

# It is looked for superseded messages after so many new ones, or so long after the first of them.
LOOK_MESSAGES: Final = 4096
LOOK_S: Final = 1.0
SUPERSEDED_MAX: Final = 8192  # of one look; of more, it looks again


class Compaction:
    """What is known of the superseded messages of one stream.

    Args:
        seen_below: messages with smaller offsets are known not to be new.

    Attributes:
        is_wanted: the store is to be asked.
    """

    def __init__(self, queue_id: int, seen_below: int) -> None:
        self.seen_below = seen_below
        self.is_wanted = False
        self._queue_id = queue_id
        self._is_asked = False
        self._ticket = 0
        self._look_at: float | None = None

    def tend(self, now: float, stored_below: int, next_number: int, committed: int) -> float | None:
        """Looks whether it is time to ask; when to look again.

        Args:
            stored_below: all messages with smaller offsets are in the store.
            committed: the last ticket that is; what was superseded last has to be gone first.
        """
        if self._is_asked or next_number == self.seen_below:
            return None
        if self._look_at is None:
            self._look_at = now + LOOK_S
        unseen = stored_below - self.seen_below
        is_time = now >= self._look_at or unseen >= LOOK_MESSAGES
        if is_time and unseen > 0 and self._ticket <= committed:
            self.is_wanted = True
            return None
        return max(self._look_at, now + LOOK_S / 10)

    def ask(self, newest: int, stored_below: int) -> Fetch:
        """What to ask the store."""
        self.is_wanted, self._is_asked, self._look_at = False, True, None
        below = min(stored_below, self.seen_below + 4 * LOOK_MESSAGES)
        return Fetch(self._queue_id, self.seen_below, below, SUPERSEDED_MAX, 0, newest=newest)

    def answered(self, fetch: Fetch, answer: Fetched, ticket: int) -> None:
        """The store has answered, and what is superseded goes with a ticket."""
        self._is_asked, self._ticket = False, ticket
        if len(answer.numbers) < fetch.messages_max:
            self.seen_below = fetch.below


def message_keys(first: int, messages: Sequence[Message]) -> dict[int, str]:
    """The keys of messages, by their offsets."""
    return {number: _key(message) for number, message in enumerate(messages, first)}


def _key(message: Message) -> str:
    header, group = message[HEADER], None
    if content.flags(header) & content.HEADERS:
        group = content.headers(header).values.get(GROUP_ID)
    key = f"key {message[ENVELOPE].routing_key}" if group is None else f"group {group}"
    return key.encode("utf-8", "backslashreplace").decode()  # text, also where a client's is none
